"""The command line: ``python -m rglib COMMAND``, or ``rglib COMMAND`` where it is installed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from rglib.commands.arguments import parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, importing its module alone, and return its exit status.

    Raises:
        SystemExit: the arguments are not understood, or ask for help.
    """
    chosen = parser().parse_args(arguments)
    return importlib.import_module(f"rglib.commands.{chosen.command}").run(chosen)


if __name__ == "__main__":
    sys.exit(main())
