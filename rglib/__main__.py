"""The command line: ``python -m rglib COMMAND``, or ``rglib COMMAND`` where it is installed."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from rglib.commands import UNUSABLE, refused
from rglib.commands.arguments import parser

INTERRUPTED = 130  # as a shell reports Ctrl-C; what is written by then is whole
PIPE_CLOSED = 141  # as a shell reports it of other commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, importing its module alone, and return its exit status.

    Raises:
        SystemExit: the arguments are not understood, or ask for help.
    """
    try:
        try:
            status = run(arguments)
        finally:
            if sys.stdout is not None:  # as it is where the shell closed it
                sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return PIPE_CLOSED
    except OSError as error:  # the disk that the output goes to is full
        _discard_output()
        print(f"rglib: cannot write the output: {error.strerror or error}", file=sys.stderr)
        return UNUSABLE
    return status


def run(arguments: Sequence[str] | None) -> int:
    """Parse the arguments and run the command that they name."""
    chosen = parser().parse_args(arguments)
    try:
        command = importlib.import_module(f"rglib.commands.{chosen.command}")
    except ModuleNotFoundError as error:
        if (error.name or "rglib").startswith("rglib"):
            raise
        return refused(chosen.command, f'needs {error.name}: pip install "rglib[workflow]"')
    status: int = command.run(chosen)
    return status


def _discard_output() -> None:
    """Leave Python nothing to write when it ends, which would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
