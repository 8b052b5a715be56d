"""``rglib conform``: where another implementation departs from the protocol."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict

from rglib.commands import refused
from rglib.conformance.cases import DEGRADATIONS
from rglib.conformance.checks import CHECKS, Finding, Status
from rglib.conformance.kit import SHIPPED, Kit, as_text, conform, first_departure
from rglib.extensions import closest, is_own, make


def run(chosen: argparse.Namespace) -> int:
    """Print the findings; return 0, 1 or 2 as the help says."""
    try:
        _check_cases(chosen.case or ())
        if not is_own(chosen.adapter) or chosen.adapter.startswith(":"):
            raise ValueError(f"{chosen.adapter}: must be MODULE:CLASS, my_module:Adapter")
        adapter = make(chosen.adapter, {}, given={})
        findings = conform(adapter, Kit.read(chosen.kit or SHIPPED), cases=chosen.case)
        if all(one.status == Status.NOT_OFFERED for one in findings):
            methods = ", ".join(dict.fromkeys(check.method for check in CHECKS))
            raise ValueError(f"{chosen.adapter} has none of the methods {methods}")
    except ValueError as error:
        return refused("conform", error)
    print(_as_json(findings) if chosen.json else as_text(findings))
    return 0 if first_departure(findings) is None else 1


def _check_cases(names: Sequence[str]) -> None:
    for name in names:
        if name not in DEGRADATIONS:
            raise ValueError(
                f"--case: unknown {name!r}{closest(name, DEGRADATIONS)}; "
                f"there are {', '.join(DEGRADATIONS)}"
            )


def _as_json(findings: Sequence[Finding]) -> str:
    """A list of objects, with null for a deviation that is no number."""
    rows = [asdict(one) for one in findings]
    for row in rows:
        if row["deviation"] == float("inf"):
            row["deviation"] = None
    return json.dumps(rows, indent=1)
