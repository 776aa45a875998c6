"""The command line: commands, streams and exit codes. Each command is a file in `stabdiag/commands/`.

Exit codes: 0 nothing to report, 1 findings, 2 the scan did not happen, 130 interrupted.
"""

from __future__ import annotations

import sys
import traceback
from typing import Annotated

import typer

from stabdiag import __version__
from stabdiag.commands import compare, fix, init, replay, report, rule, scan
from stabdiag.commands import run as run_command
from stabdiag.commands.output import to_stderr, to_stdout
from stabdiag.errors import UserError
from stabdiag.reports.parts.place import one_line

# Typer brings its own copy of Click; its base class of usage errors is reached through the one that Typer exports.
ClickException: type[Exception] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="stabdiag",
    help="Finds where the numbers of a PyTorch model go wrong, before training does.",
    epilog="Start with: stabdiag scan model.py",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("scan")(scan.scan)
app.command("run", context_settings={"allow_interspersed_args": False})(run_command.run)
app.command("init")(init.init)
app.command("fix")(fix.fix)
app.command("rule")(rule.rule)
app.command("report")(report.report)
app.command("compare")(compare.compare)
app.command("replay")(replay.replay)


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> int:
    """Finds where the numbers of a PyTorch model go wrong, before training does."""
    if version:
        to_stdout(f"stabdiag {__version__}\n")
        raise typer.Exit(0)
    if context.invoked_subcommand is None:
        to_stdout(context.get_help() + "\n")
        raise typer.Exit(0)
    return 0


def run(arguments: list[str]) -> int:
    """Run one command and give its exit code."""
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code = int(app(args=arguments, prog_name="stabdiag", standalone_mode=False) or 0)
    except UserError as error:
        to_stderr(f"error: {one_line(str(error))}")
        return 2
    except ClickException as error:
        to_stderr(f"error: {_usage(error, arguments)}")
        return 2
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as error:
        if "-v" in arguments or "--verbose" in arguments:
            traceback.print_exc()
        to_stderr(f"error: internal error ({type(error).__name__}: {error}); run again with -v and report the traceback")
        return 2
    if code == 130:
        to_stderr("interrupted")
    return code


def _usage(error: Exception, arguments: list[str]) -> str:
    message = str(getattr(error, "format_message", error.__str__)()).rstrip(".")
    if message.startswith("No such command") and arguments and ".py" in arguments[0]:
        return f"{message}; did you mean `stabdiag scan {arguments[0]}`?"
    message = message[:1].lower() + message[1:]
    return message if message.endswith("?") else f"{message}; see `stabdiag {_command(arguments)}--help`"


def _command(arguments: list[str]) -> str:
    names = {command.name for command in app.registered_commands}
    return "".join(f"{word} " for word in arguments[:1] if word in names)
