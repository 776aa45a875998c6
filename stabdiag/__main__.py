"""`python -m stabdiag` and the `stabdiag` script."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command line and exit with its code."""
    from stabdiag.commands.application import run

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # whoever cancels a job ends the worker with it
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
