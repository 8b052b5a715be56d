"""Calls of G and seconds to the PSNR of 1500 steps of Adam, with Adam and with semi_implicit.

The shipped network restores a small crop. *There* is a PSNR that is at least that of Adam's last
iterate less 0.05 dB. Calls of G are counted, those of semi_implicit's power iteration at the start
included. Time includes the PSNR of each iterate, with both.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from benchmarks.subjects import METHODS, Setup, frozen, middle, shipped_size
from benchmarks.table import Row
from benchmarks.timing import Spread
from rglib.core.algorithms import GradientDescent
from rglib.core.fixed_point import solver_named
from rglib.core.maps import Gradient
from rglib.core.metrics import psnr
from rglib.core.problems import Observation, observe_test_image
from rglib.plan.roles import SOLVERS
from rglib.restoration.restorers import restorer
from rglib.restoration.weights_folder import Models

SECTION = "solvers"
PROBLEMS = ("completion80", "deblur_s1.6", "sr2_bicubic_n0.01")
SLACK = 0.05  # dB
BUDGET = 150  # calls of G


@dataclass
class Counting:
    """G, and how often it was called."""

    G: Gradient
    calls: int = 0

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.G(x)


@dataclass
class Course:
    """PSNR (dB), calls of G and seconds of the CPU, or on a GPU's clock, at every iterate."""

    psnr: list[float] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def reaching(self, target: float) -> int | None:
        """The first iterate of at least this PSNR."""
        return next((i for i, value in enumerate(self.psnr) if value >= target), None)

    def after(self, calls: int) -> float:
        """The PSNR of the last iterate that took no more than so many calls."""
        return [p for p, c in zip(self.psnr, self.calls, strict=True) if c <= calls][-1]


def course(method: GradientDescent, seen: Observation) -> Course:
    """Restore, and take down every iterate."""
    found, G = Course(), Counting(method.G)
    clock = time.perf_counter if seen.y.is_cuda else time.process_time
    began = clock()

    def record(x: Tensor) -> None:
        found.psnr.append(psnr(x, seen.x_hat).item())
        found.calls.append(G.calls)
        found.seconds.append(clock() - began)

    replace(method, G=G).restore(seen, record)
    return found


def measure(setup: Setup) -> list[Row]:
    """For a few problems."""
    return [row for problem in PROBLEMS for row in _measure(problem, setup)]


def _measure(problem: str, setup: Setup) -> list[Row]:
    side = 32 if setup.quick else 96
    iterations = {"adam": 30 if setup.quick else 1501, "semi_implicit": 20 if setup.quick else 301}
    seen = observe_test_image(problem, middle(side)).to(setup.device)
    G = frozen("G", shipped_size(), "float32", setup.device)
    settings = Models.open().settings
    made = restorer("gradient_descent", problem, G, settings)
    assert isinstance(made, GradientDescent)
    lr = settings["problems"][problem]["lr"]
    rounds: list[Mapping[str, Course]] = []
    for _ in range(min(setup.rounds, 3)):
        rounds.append(
            {
                name: course(
                    replace(
                        made,
                        solver=solver_named(name, lr=lr),
                        iterations=iterations[name],
                        tolerance=None,  # every step is taken
                        average=name == "semi_implicit",
                    ),
                    seen,
                )
                for name in SOLVERS
            }
        )
    where = f"{problem}, {side}x{side}, {METHODS['G']}, lr {lr:g}"
    timer = "clock" if seen.y.is_cuda else "cpu"  # as in `course`
    return _rows(Row(SECTION, "", where, str(shipped_size()), "float32"), rounds, timer=timer)


def _rows(row: Row, rounds: list[Mapping[str, Course]], *, timer: str) -> list[Row]:
    timed = replace(row, timer=timer)
    last = rounds[0]["adam"].psnr[-1]
    steps = len(rounds[0]["adam"].psnr) - 1
    rows = [replace(row, quantity=f"Adam after {steps} steps", unit="dB", value=last)]
    there = {name: rounds[0][name].reaching(last - SLACK) for name in SOLVERS}
    for name, i in there.items():
        within = rounds[0][name].after(BUDGET)
        budget = replace(row, quantity=f"{name} after {BUDGET} calls", unit="dB", value=within)
        rows.append(budget)
        calls = replace(row, quantity=f"{name}, calls until there", unit="calls of G")
        if i is None:
            rows.append(replace(calls, note=f"not there in {rounds[0][name].calls[-1]} calls"))
            continue
        rows.append(replace(calls, value=rounds[0][name].calls[i]))
        rows.append(_seconds(timed, f"{name}, until there", [r[name].seconds[i] for r in rounds]))
    rows.append(
        _seconds(timed, f"adam, all {steps} steps", [r["adam"].seconds[-1] for r in rounds])
    )
    if (new := there["semi_implicit"]) is not None:
        ratios = [r["adam"].seconds[-1] / r["semi_implicit"].seconds[new] for r in rounds]
        rows.append(_spread(timed, f"adam, all {steps} steps / semi_implicit, until there", ratios))
        if (old := there["adam"]) is not None:
            ratios = [r["adam"].seconds[old] / r["semi_implicit"].seconds[new] for r in rounds]
            rows.append(_spread(timed, "adam / semi_implicit, both until there", ratios))
    return rows


def _seconds(row: Row, quantity: str, values: list[float]) -> Row:
    return replace(_spread(row, quantity, values), unit="seconds")


def _spread(row: Row, quantity: str, values: list[float]) -> Row:
    s = Spread.of(values)
    return replace(row, quantity=quantity, value=s.median, q25=s.q25, q75=s.q75)
