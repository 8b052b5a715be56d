"""Measure and write ``results/benchmarks.csv`` and ``.md``: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import time
from importlib import import_module
from pathlib import Path

import torch

from benchmarks.subjects import Setup
from benchmarks.table import Row, circumstances, write
from rglib.core.devices import device_named
from rglib.files import check_writable

# Modules of this package, imported when they are measured: not every machine has all they need.
SECTIONS = (
    "convolutions",
    "evaluation",
    "training",
    "equilibrium",
    "updates",
    "solvers",
    "memory",
    "sizes",
    "data",
)


def main(arguments: list[str] | None = None) -> None:
    """Measure the sections asked for; what is there is written at once."""
    options = parser().parse_args(arguments)
    check_writable([options.out])
    torch.set_num_threads(options.threads)
    setup = Setup(
        device=device_named(options.device),
        rounds=options.rounds or (2 if options.quick else 7),
        least=0.001 if options.quick else 0.1,
        quick=options.quick,
    )
    around = circumstances({"device": setup.device, "rounds": setup.rounds, "quick": setup.quick})
    rows: list[Row] = []
    for section in options.only:
        began = time.perf_counter()
        for row in import_module(f"benchmarks.{section}").measure(setup):
            rows.append(row)
            write(rows, around, options.out)
        print(f"{section}: {time.perf_counter() - began:.0f} s", flush=True)
    print((options.out / "benchmarks.md").read_text(encoding="utf-8"))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    made.add_argument("--only", type=_sections, default=list(SECTIONS), metavar="A,B")
    made.add_argument("--quick", action="store_true", help="small sizes: does everything run?")
    made.add_argument("--rounds", type=int, help="7, or 2 with --quick")
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--device", default="auto", help="auto, cpu or cuda")
    made.add_argument("--out", type=Path, default=Path("results"))
    return made


def _sections(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in SECTIONS]:
        raise argparse.ArgumentTypeError(
            f"no section {unknown[0]!r}; there are {', '.join(SECTIONS)}"
        )
    return names


if __name__ == "__main__":
    main()
