"""The rows of ``results/benchmarks.csv`` and their reading form ``results/benchmarks.md``."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import pandas as pd
import torch

from benchmarks.timing import Measured, Value
from rglib.files import replacing
from rglib.records.provenance import code_version, machine

TIMERS = {"cpu": "CPU time", "clock": "on the clock", "": "value"}


@dataclass(frozen=True)
class Row:
    """One number.

    Attributes:
        section: the module that measured it.
        quantity: what is measured, with its direction: "A / B" is a ratio of A to B.
        case: on what.
        network: its size.
        precision: the number format inside the network.
        unit: of the value; "ratio" for a quotient of two measured in turns.
        value: the median over the rounds; None where it was not measured, as the note says.
        q25: the lower quartile; None where there are no rounds.
        q75: the upper one.
        timer: "cpu" or "clock" where times are compared, else "".
        note: what else a reader must know.
    """

    section: str
    quantity: str
    case: str
    network: str = ""
    precision: str = ""
    unit: str = "ratio"
    value: float | None = None
    q25: float | None = None
    q75: float | None = None
    timer: str = ""
    note: str = ""

    def with_spread(self, measured: Measured, of: Value) -> list[Row]:
        """As many rows as timers, with the spread of a value over the rounds."""
        rows = []
        for timer in measured.timers:
            s = measured.spread(of, timer)
            rows.append(replace(self, timer=timer, value=s.median, q25=s.q25, q75=s.q75))
        return rows


def circumstances(options: Mapping[str, object]) -> dict[str, str]:
    """What the numbers depend on beside the code; the load tells of other work."""
    one, five, _ = os.getloadavg()
    return {
        "machine": machine(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "rglib": code_version(),
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
        "load before": f"{one:.1f} over 1 minute, {five:.1f} over 5",
        **{name: str(value) for name, value in options.items()},
    }


def write(rows: Sequence[Row], around: Mapping[str, str], folder: Path) -> None:
    """Write benchmarks.csv, benchmarks.md and, as JSON, the circumstances; each whole or not."""
    frame = pd.DataFrame([asdict(row) for row in rows], columns=[f.name for f in fields(Row)])
    with replacing(folder / "benchmarks.csv") as partial:
        frame.to_csv(partial, index=False)
    with replacing(folder / "benchmarks.md") as partial:
        partial.write_text(as_markdown(rows, around), encoding="utf-8")
    with replacing(folder / "benchmarks.json") as partial:
        partial.write_text(json.dumps(around, indent=1) + "\n", encoding="utf-8")


def as_markdown(rows: Sequence[Row], around: Mapping[str, str]) -> str:
    """A table for each section, medians with the quartiles in brackets."""
    parts = [
        "# Benchmarks",
        "; ".join(f"{name}: {value}" for name, value in around.items()) + ".",
        "Medians over the rounds, in brackets the quartiles. CPU time is of the whole process; "
        "the clock also holds whatever else the machine did.",
    ]
    for section in dict.fromkeys(row.section for row in rows):
        parts += [f"## {section}", _table([row for row in rows if row.section == section])]
    return "\n\n".join(parts) + "\n"


def _table(rows: Sequence[Row]) -> str:
    timers = [timer for timer in TIMERS if any(row.timer == timer for row in rows)]
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        key = (row.quantity, row.case, row.network, row.precision)
        lines.setdefault((*key, row.unit, row.note), {})[row.timer] = _cell(row)
    head = ["quantity", "case", "network", "precision", *(TIMERS[t] for t in timers), "unit"]
    body = [
        {**dict(zip(head[:4], key[:4], strict=True)), **{TIMERS[t]: c.get(t, "") for t in timers}}
        | {"unit": key[4], "note": key[5]}
        for key, c in lines.items()
    ]
    return str(pd.DataFrame(body).to_markdown(index=False, disable_numparse=True))


def _cell(row: Row) -> str:
    if row.value is None:
        return "not measured"
    if row.q25 is None or row.q75 is None:
        return f"{row.value:.4g}"
    return f"{row.value:.3g} ({row.q25:.3g} to {row.q75:.3g})"
