"""``rglib kit``: compute the conformance kit anew."""

from __future__ import annotations

import argparse

from rglib.commands import refused, say
from rglib.commands.files import check_outputs
from rglib.conformance.kit import make, write


def run(chosen: argparse.Namespace) -> int:
    """Write the file; return 0, or 2 if it cannot be written."""
    try:
        check_outputs([chosen.output], inputs=(), overwrite=chosen.overwrite)
        kit = make()
        write(kit, chosen.output)
    except (ValueError, OSError) as error:
        return refused("kit", error)
    say(f"{chosen.output}: {len(kit.tensors)} tensors, {chosen.output.stat().st_size} bytes")
    return 0
