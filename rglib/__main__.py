"""The command line: ``python -m rglib COMMAND``, or ``rglib COMMAND`` where it is installed.

A command imports what it needs itself, so that the others start without it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

UNUSABLE = 2  # as argparse exits for arguments that it does not know


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    Raises:
        SystemExit: the arguments are not understood, or ask for help.
    """
    parser = argparse.ArgumentParser(prog="rglib", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_verify(commands)
    chosen = parser.parse_args(arguments)
    status: int = chosen.run(chosen)
    return status


def add_verify(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``verify``."""
    parser = commands.add_parser(
        "verify",
        help="say which results are stale or were touched by hand",
        description="Recompute the hashes that the records of results name: of the results, the "
        "code, the configuration, and of networks and images where work/ is at hand. Exit status: "
        "0 all is ok, 1 something is not, 2 there is nothing to compare.",
    )
    parser.add_argument("folder", type=Path, help="results/, or a copy of it")
    parser.add_argument(
        "--configfile",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="what snakemake was given; without it config.yaml and config/*.yaml are tried",
    )
    parser.add_argument("--json", action="store_true", help="print a list of JSON objects")
    parser.set_defaults(run=run_verify)


def run_verify(chosen: argparse.Namespace) -> int:
    """Print the findings; return 0, 1 or 2 as the help says."""
    from rglib.verify import Status, VerifyError, as_json, as_table, verify

    try:
        findings = verify(chosen.folder, configfiles=chosen.configfile)
    except (VerifyError, OSError) as error:
        print(f"rglib verify: {error}", file=sys.stderr)
        return UNUSABLE
    print(as_json(findings) if chosen.json else as_table(findings))
    found = {finding.status for finding in findings}
    if found == {Status.UNRECORDED}:
        print(
            f"rglib verify: {chosen.folder} has no records: its files were not made by this "
            "workflow, or by a version before records; make them anew with snakemake",
            file=sys.stderr,
        )
        return UNUSABLE
    return 0 if found == {Status.OK} else 1


if __name__ == "__main__":
    sys.exit(main())
