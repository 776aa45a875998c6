"""`python -m stabdiag` and the `stabdiag` script."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command line and exit with its code."""
    from stabdiag.commands.application import run

    for name in ("SIGTERM", "SIGHUP", "SIGQUIT"):  # whoever cancels a job or closes the terminal ends the worker with it
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda number, frame: sys.exit(128 + number))
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
