"""Updates of G at fixed points with kept iterates, beside those that look for x_g every time.

*kept* is `rglib.core.kept`: batches live for 16 visits, 24 steps of semi_implicit on the first and
3 on each later one, and back-propagation through the semi-implicit step. *to the fixed point* takes
as many calls of G from the start as the networks that ship needed in the mean when they were
trained, with semi_implicit and with deepinv's ``GD`` under ``DEQConfig(jacobian_free=True)``. All
have rglib's network in bfloat16, the same batch and no optimiser.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from benchmarks.subjects import Case, Setup, network, shipped_size
from benchmarks.table import Row
from benchmarks.timing import Work, in_turns, ratio, seconds
from benchmarks.training import NOT_INSTALLED, OBJECTIVES, Step, of_length
from rglib.core.fixed_point import SemiImplicit
from rglib.core.kept import Keep, Pool
from rglib.records.provenance import NetworkSize
from rglib.studies.fixed_points import Calls
from rglib.training.objectives.equilibrium import Equilibrium
from rglib.training.objectives.losses import Batch

SECTION = "equilibrium"
CALLS = 70  # of G to a fixed point, mean: results/published/acceleration_training.csv, DEQGD
KEEP = Keep(batches=4, visits=16)
CYCLE = 16  # updates, of which one is a first visit: batches x visits / batches


@dataclass
class KeptUpdates:
    """A cycle of updates with kept iterates, a first visit among them."""

    objective: Equilibrium
    networks: Mapping[str, nn.Module]
    x_hat: Tensor
    pool: Pool = field(default_factory=lambda: Pool(KEEP))
    step: int = 0

    def __call__(self) -> None:
        """Forward and backward, so many times."""
        for _ in range(CYCLE):
            drawn_at, x_hat, kept = self.pool.visit(self.step, lambda _: self.x_hat)
            for module in self.networks.values():
                module.zero_grad(set_to_none=True)
            batch = Batch(x_hat, drawn_at, 0, kept=kept)
            self.objective(self.networks, batch).total.backward()
            self.step += 1


def measure(setup: Setup) -> list[Row]:
    """For DEQGD, with both networks."""
    return [row for size in setup.networks for row in _measure(size, setup)]


def _measure(size: NetworkSize, setup: Setup) -> list[Row]:
    case = _case(size, setup)
    G = network("G", size, "bfloat16", setup.device)
    x_hat = case.images().to(setup.device)
    objective = replace(OBJECTIVES["DEQGD"], solver=SemiImplicit(), backward_map="semi_implicit")
    kept = KeptUpdates(objective, {"G": G}, x_hat)
    for _ in range(KEEP.batches):  # until one update in sixteen is a first visit
        kept()
    steps = round(CALLS - SemiImplicit().calls_before_first_step(*x_hat.shape[-2:]))
    works: dict[str, Work] = {
        "kept": kept,
        "semi_implicit to the fixed point": Step(of_length(objective, steps), {"G": G}, x_hat),
        **_deepinv(G, x_hat),
    }
    measured = in_turns(works, rounds=setup.rounds, least=setup.least, device=setup.device)
    row = Row(SECTION, "", f"DEQGD, {case}", str(size), "bfloat16")
    rows = replace(
        row, quantity="rglib, 16 updates with kept iterates", unit="seconds", note=_calls(kept)
    ).with_spread(measured, seconds("kept"))
    for other in [name for name in works if name != "kept"]:
        compared = replace(row, quantity=f"{other} / kept, an update", note=f"{CALLS} calls of G")
        rows += compared.with_spread(measured, ratio(seconds(other), _an_update))
    if len(works) == 2:
        rows.append(Row(SECTION, "deepinv / kept", str(case), str(size), note=NOT_INSTALLED))
    return rows


def _an_update(times: Mapping[str, float]) -> float:
    return times["kept"] / CYCLE


def _case(size: NetworkSize, setup: Setup) -> Case:
    if setup.quick:
        return Case(2, 32)
    return Case(4, 96) if size == shipped_size() else Case(1, 64)


def _deepinv(G: nn.Module, x_hat: Tensor) -> dict[str, Work]:
    if importlib.util.find_spec("deepinv") is None:
        return {}
    from benchmarks.with_deepinv import DeepinvStep

    equal = of_length(OBJECTIVES["DEQGD"], CALLS)
    return {"deepinv's GD and DEQ": DeepinvStep(equal, {"G": G}, x_hat)}


def _calls(kept: KeptUpdates) -> str:
    """How often an update of a cycle has G evaluated, in the mean."""
    calls = Calls(kept.networks["G"], batch=len(kept.x_hat))
    kept()
    return f"{calls.count / CYCLE:.1f} calls of G an update, in the mean"
