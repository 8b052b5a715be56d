"""The command line: each command a module with ``run``, the arguments of all in one."""

import sys

UNUSABLE = 2  # exit status for what cannot be done as asked, as argparse's


def say(text: str) -> None:
    """Print one line, whatever the names of files in it are made of."""
    print(one_line(text))


def refused(command: str, error: Exception | str) -> int:
    """Say in one line on stderr why a command cannot do what it is asked; return its exit status.

    Raises:
        BrokenPipeError: the error is that nobody reads the output any more.
    """
    if isinstance(error, BrokenPipeError):
        raise error
    print(f"rglib {command}: {one_line(str(error))}", file=sys.stderr)
    return UNUSABLE


def one_line(text: str) -> str:
    r"""Write what cannot be printed, line breaks among it, as in Python: ``\n``, ``\udcff``."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
