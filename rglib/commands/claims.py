"""``rglib claims``: check claims on a table."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from rglib.commands import refused
from rglib.extensions import closest
from rglib.paper import CLAIMS
from rglib.report.claims import Claim, Claims, ClaimsError, Numbers, Verdict, verdicts_text


def run(chosen: argparse.Namespace) -> int:
    """Print the verdicts; return 0, 1 or 2 as the help says."""
    try:
        claims = Claims.read(chosen.claims or CLAIMS)
        columns = _pairs(chosen.columns, "--columns", "method=algorithm")
        methods = _pairs(chosen.methods, "--methods", "rerg=rerg_scaled")
        numbers = claims.numbers(chosen.table, curves=chosen.curves, columns=columns)
        _check_rows(chosen.table, claims, columns)
        numbers = _by_others(numbers, claims, methods)
    except ClaimsError as error:
        return refused("claims", error)
    verdicts = [claim.verdict(numbers) for claim in claims.claims]
    as_text = _as_json if chosen.json else verdicts_text
    print(as_text(claims.claims, verdicts))
    if methods and not chosen.json:
        print("\n" + "\n".join(f"{ours}: the rows of {theirs}" for ours, theirs in methods.items()))
    found = {verdict.holds for verdict in verdicts}
    if found == {None}:
        return refused("claims", f"none can be evaluated on {chosen.table}")
    return 1 if False in found else 0


def _check_rows(path: Path, claims: Claims, columns: Mapping[str, str]) -> None:
    """Methods that have rows of a problem have them of the same images.

    Where there is no column ``image``, they have as many rows. Means over other images cannot be
    compared: the table was cut short, or images were left out.

    Raises:
        ClaimsError: they have not; it names the problem and two methods.
    """
    method = columns.get(claims.method, claims.method)
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    by_problem = table.groupby(columns.get(claims.problem, claims.problem), sort=False)
    for problem, rows in by_problem:
        seen = {
            str(name): frozenset(own["image"]) if "image" in own else len(own)
            for name, own in rows.groupby(method, sort=False)
        }
        first, *others = seen
        for other in others:
            if seen[other] != seen[first]:
                raise ClaimsError(
                    f"{path}: {problem} has {_told(seen[first])} of {first} and "
                    f"{_told(seen[other])} of {other}; means over them cannot be compared"
                )


def _told(seen: frozenset[str] | int) -> str:
    return f"{seen} rows" if isinstance(seen, int) else f"the images {', '.join(sorted(seen))}"


def _pairs(pairs: Sequence[str], option: str, example: str) -> dict[str, str]:
    """``OURS=THEIRS`` as a mapping.

    Raises:
        ClaimsError: one is no such pair, or two are of one name.
    """
    named: dict[str, str] = {}
    for pair in pairs:
        ours, equals, theirs = pair.partition("=")
        if not (ours and equals and theirs):
            raise ClaimsError(f"{option}: {pair!r} must be OURS=THEIRS, as in {example}")
        if ours in named:
            raise ClaimsError(f"{option}: {ours} is given twice, {named[ours]} and {theirs}")
        named[ours] = theirs
    return named


def _by_others(numbers: Numbers, claims: Claims, methods: Mapping[str, str]) -> Numbers:
    """The numbers with those of other methods in the place of methods of the claims.

    Raises:
        ClaimsError: the claims name no such method, or the table has no rows of the other.
    """
    claimed = sorted({name for claim in claims.claims for name in (claim.method, *claim.against)})
    there = sorted({str(name) for frame in numbers.values.values() for name in frame})
    for ours, theirs in methods.items():
        if ours not in claimed:
            known = closest(ours, claimed) or f"; they name {', '.join(claimed)}"
            raise ClaimsError(f"--methods: the claims name no {ours}{known}")
        if theirs not in there:
            known = closest(theirs, there) or f"; it has {', '.join(there)}"
            raise ClaimsError(f"--methods: the table has no rows of {theirs}{known}")
    values = {
        value: frame.assign(**{ours: frame[theirs] for ours, theirs in methods.items()})
        for value, frame in numbers.values.items()
    }
    kept = numbers.curves[~numbers.curves["method"].isin(methods)]
    others = [
        numbers.curves[numbers.curves["method"] == theirs].assign(method=ours)
        for ours, theirs in methods.items()
    ]
    return Numbers(values, pd.concat([kept, *others], ignore_index=True))


def _as_json(claims: Sequence[Claim], verdicts: Sequence[Verdict]) -> str:
    """A list of objects; a margin that is not finite is its sign as a string, or null."""
    return json.dumps(
        [
            {
                "claim": claim.name,
                "statement": claim.statement,
                "holds": verdict.holds,
                "found": verdict.found,
                "margin": _margin(verdict.margin),
                "unit": claim.unit,
                "where": verdict.where,
            }
            for claim, verdict in zip(claims, verdicts, strict=True)
        ],
        indent=1,
    )


def _margin(margin: float) -> float | str | None:
    if math.isinf(margin):
        return "infinite" if margin > 0 else "-infinite"
    return None if math.isnan(margin) else margin
