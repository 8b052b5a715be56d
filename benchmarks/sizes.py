"""The forward pass over threads, batch and image size: pixels per second beside the smallest's.

The networks are as for an evaluation. Threads are compared on the clock, on machines with more than
one core that are otherwise idle: where other work holds the cores they gain nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from benchmarks.convolutions import forward
from benchmarks.subjects import Case, Setup, frozen
from benchmarks.table import Row
from benchmarks.timing import Measured, Work, in_turns, rate, ratio, seconds
from rglib.records.provenance import PAPER_NETWORK, NetworkSize

SECTION = "sizes"


def measure(setup: Setup) -> list[Row]:
    """For both networks and number formats."""
    return [
        row
        for size, precision in setup.networks_in_all_precisions
        for row in _measure(size, precision, setup)
    ]


def _measure(size: NetworkSize, precision: str, setup: Setup) -> list[Row]:
    sides, batches = _extent(size, setup)
    G = frozen("G", size, precision, setup.device)
    row = Row(SECTION, "", "", str(size), precision)
    by_case = [
        [Case(1, side) for side in sides],
        [Case(batch, sides[0]) for batch in batches],
    ]
    rows = []
    for cases in by_case:
        works = {case: forward(G, case.images().to(setup.device)) for case in cases}
        measured = in_turns(
            {str(case): work for case, work in works.items()},
            rounds=setup.rounds,
            least=setup.least,
            device=setup.device,
        )
        for case in cases:
            rows += _compared(row, measured, case, cases[0])
    if setup.device.type == "cpu" and not setup.quick:
        rows += _threads(replace(row, case=str(Case(1, sides[-1]))), G, sides[-1], setup)
    return rows


def _extent(size: NetworkSize, setup: Setup) -> tuple[list[int], list[int]]:
    """Sides of one image, and batches of images of the smallest side."""
    if setup.quick:
        return [16, 32], [1, 2]
    if size == PAPER_NETWORK and setup.device.type == "cpu":
        return [64, 128, 256], [1, 4]
    return [64, 128, 256, 512], [1, 4, 16]


def _compared(row: Row, measured: Measured, case: Case, first: Case) -> list[Row]:
    speed = replace(row, quantity="pixels per second", case=str(case), unit="megapixels/s")
    rows = speed.with_spread(measured, rate(str(case), case.pixels / 1e6))
    if case != first:
        compared = replace(row, quantity=f"pixels per second / those of {first}", case=str(case))
        own, least = rate(str(case), case.pixels), rate(str(first), first.pixels)
        rows += compared.with_spread(measured, ratio(own, least))
    return rows


def _threads(row: Row, G: torch.nn.Module, side: int, setup: Setup) -> list[Row]:
    """How much faster with every number of threads than with one."""
    counts = range(1, (os.cpu_count() or 1) + 1)
    run = forward(G, Case(1, side).images())
    works = {str(count): _with_threads(run, count) for count in counts}
    measured = in_turns(works, rounds=setup.rounds, least=setup.least, device=setup.device)
    clock = replace(measured, timers=("clock",))  # CPU time counts all threads
    rows = []
    for count in counts[1:]:
        compared = replace(row, quantity=f"speed, {count} threads / 1")
        rows += compared.with_spread(clock, ratio(seconds("1"), seconds(str(count))))
    return rows


def _with_threads(run: Work, count: int) -> Work:
    def work() -> None:
        with _threads_set(count):
            run()

    return work


@contextmanager
def _threads_set(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
