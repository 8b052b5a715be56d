"""``rglib verify``: which results are stale or were touched."""

from __future__ import annotations

import argparse

from rglib.commands import refused
from rglib.records.verify import Status, VerifyError, as_json, as_table, verify


def run(chosen: argparse.Namespace) -> int:
    """Print the findings; return 0, 1 or 2 as the help says."""
    try:
        findings = verify(chosen.folder, configfiles=chosen.configfile)
    except (VerifyError, OSError) as error:
        return refused("verify", error)
    print(as_json(findings) if chosen.json else as_table(findings))
    found = {finding.status for finding in findings}
    if found == {Status.UNRECORDED}:
        return refused(
            "verify",
            f"{chosen.folder} has no records: its files were not made by this workflow, or by a "
            "version before records; make them anew with snakemake",
        )
    return 0 if found == {Status.OK} else 1
