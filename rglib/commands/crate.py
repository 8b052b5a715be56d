"""``rglib crate``: a Workflow Run RO-Crate of the results of a run."""

from __future__ import annotations

import argparse

from rglib.commands import refused, say
from rglib.records.verify import VerifyError


def run(chosen: argparse.Namespace) -> int:
    """Write the crate; return 0, or 2 if it cannot be written."""
    try:
        from rglib.integrations.rocrate import CrateError, write_crate
    except ImportError as error:
        return refused("crate", f"needs rocrate: pip install rocrate ({error})")
    try:
        names = write_crate(
            chosen.folder, chosen.output, snakefile=chosen.snakefile, licence=chosen.license
        )
    except (CrateError, VerifyError, OSError) as error:
        return refused("crate", error)
    say(f"{chosen.output}: {len(names)} results with their records, and ro-crate-metadata.json")
    return 0
