"""The command line: ``python -m rglib COMMAND``, or ``rglib COMMAND`` where it is installed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from rglib.commands.arguments import parser

INTERRUPTED = 130  # as a shell reports Ctrl-C; what is written by then is whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, importing its module alone, and return its exit status.

    Raises:
        SystemExit: the arguments are not understood, or ask for help.
    """
    chosen = parser().parse_args(arguments)
    try:
        command = importlib.import_module(f"rglib.commands.{chosen.command}")
        status: int = command.run(chosen)
    except KeyboardInterrupt:
        return INTERRUPTED
    return status


if __name__ == "__main__":
    sys.exit(main())
