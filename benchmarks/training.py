"""One training step of RG1, DEQGD and RERG, rglib's beside one with deepinv's optimisers.

*deepinv* is `benchmarks.with_deepinv`: its ``PGD`` for f and its ``GD`` for g, each with
``DEQConfig(jacobian_free=True)``, around `benchmarks.plain.PlainDRUNet`. *rglib* is
`rglib.training.objectives.equilibrium.Equilibrium`. Both start from the same point, take the same
number of iterations with the same operator, and end with the backward pass of the same losses: the
same gradients up to rounding (``tests/test_benchmarks.py``). deepinv has no Adam on the image, so
that both descend with the plain step of eq. (14); no image rests, and no optimiser takes a step.

One row has deepinv around rglib's network: what the loop alone costs. The last rows add what else
rglib may do: bfloat16, images that rest once they have converged, and the solver semi_implicit.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from benchmarks.plain import PlainDRUNet
from benchmarks.subjects import Case, Setup, network
from benchmarks.table import Row
from benchmarks.timing import Work, in_turns, ratio, seconds
from rglib import paper
from rglib.core.fixed_point import Adam, Map, SemiImplicit, StoppingRule
from rglib.core.problems import Deblurring, Degradation, Randomness, TrainingDistribution
from rglib.records.provenance import PAPER_NETWORK, NetworkSize
from rglib.training.objectives.equilibrium import Equilibrium
from rglib.training.objectives.losses import Batch, Statistic

SECTION = "training"
NOT_INSTALLED = "not measured: deepinv is not installed"


@dataclass(frozen=True)
class Descent:
    """x <- x - eta F(x): eq. (14), as deepinv's GD has it."""

    eta: float

    def init(self, F: Map, x0: Tensor) -> None:
        """Nothing to remember."""

    def step(self, F: Map, x: Tensor, state: None) -> tuple[Tensor, None]:
        """One step."""
        return x - self.eta * F(x), None

    def select(self, state: None, indices: Tensor) -> None:
        """Nothing to select."""


@dataclass(frozen=True)
class OneProblem(TrainingDistribution):
    """The same problem in every batch."""

    degradation: Degradation = field(default_factory=lambda: Deblurring(sigma_b=1.6, sigma=0.05))

    def draw(self, randomness: Randomness) -> Degradation:
        """That one."""
        return self.degradation


_COMMON = Equilibrium(eta_gd=paper.ETA_GD, solver=Descent(paper.ETA_GD), distribution=OneProblem())
OBJECTIVES = {
    "RG1": replace(_COMMON, link=0.1, forward_backward=1.0),
    "DEQGD": replace(_COMMON, gradient_descent=1.0),
    "RERG": replace(_COMMON, link=0.1, forward_backward=1.0, gradient_descent=0.1),
}


def of_length(objective: Equilibrium, iterations: int) -> Equilibrium:
    """The objective with so many iterations for each fixed point, whatever happens."""
    endless = StoppingRule(max_iterations=iterations, tolerance=0.0, guard=float("inf"))
    return replace(objective, stop=endless)


@dataclass(frozen=True)
class Step:
    """An objective with its networks, on one batch."""

    objective: Equilibrium
    networks: Mapping[str, nn.Module]
    x_hat: Tensor

    def __call__(self) -> Mapping[str, Statistic]:
        """Forward and backward; the objective's statistics."""
        for module in self.networks.values():
            module.zero_grad(set_to_none=True)
        losses = self.objective(self.networks, Batch(self.x_hat, 0, 0))
        losses.total.backward()
        return losses.statistics


def measure(setup: Setup) -> list[Row]:
    """For both networks and the three objectives."""
    return [
        row
        for size in setup.networks
        for name, objective in OBJECTIVES.items()
        for row in _measure(name, objective, size, setup)
    ]


def _extent(size: NetworkSize, setup: Setup) -> tuple[Case, int]:
    """The batch, and the iterations of a fixed point."""
    if setup.quick:
        return Case(2, 32), 3
    return (Case(1, 64), 10) if size == PAPER_NETWORK else (Case(8, 64), 50)


def _measure(name: str, objective: Equilibrium, size: NetworkSize, setup: Setup) -> list[Row]:
    case, iterations = _extent(size, setup)
    x_hat = case.images().to(setup.device)
    equal = of_length(objective, iterations)
    exact = {role: network(role, size, "float32", setup.device) for role in "PG"}
    low = {role: network(role, size, "bfloat16", setup.device) for role in "PG"}
    resting = StoppingRule(max_iterations=iterations)
    own = {
        "float32": Step(equal, exact, x_hat),
        "bfloat16": Step(equal, low, x_hat),
        "bfloat16, Adam, freezing": Step(
            replace(objective, stop=resting, solver=Adam(lr=paper.ETA_GD)), low, x_hat
        ),
        "bfloat16, semi_implicit, freezing": Step(
            replace(objective, stop=resting, solver=SemiImplicit()), low, x_hat
        ),
    }
    works: dict[str, Work] = {**_theirs(equal, exact, x_hat), **own}
    measured = in_turns(works, rounds=setup.rounds, least=setup.least, device=setup.device)
    where = f"{name}, {case}, {iterations} iterations"
    rows = []
    for words, step in own.items():
        precision, _, how = words.partition(", ")
        row = Row(SECTION, "", where, str(size), precision, note=_iterations(step()))
        alone = replace(row, quantity=f"rglib {how}".strip(), unit="seconds")
        rows += alone.with_spread(measured, seconds(words))
        for other in [name for name in works if name not in own]:
            compared = replace(row, quantity=f"{other} / rglib {how}".strip())
            rows += compared.with_spread(measured, ratio(seconds(other), seconds(words)))
    if len(works) == len(own):
        rows.append(Row(SECTION, "deepinv / rglib", where, str(size), note=NOT_INSTALLED))
    return rows


def _theirs(
    objective: Equilibrium, networks: Mapping[str, nn.Module], x_hat: Tensor
) -> dict[str, Work]:
    if importlib.util.find_spec("deepinv") is None:
        return {}
    from benchmarks.with_deepinv import DeepinvStep

    plain = {role: PlainDRUNet(module).to(x_hat.device) for role, module in networks.items()}
    return {
        "deepinv": DeepinvStep(objective, plain, x_hat),
        "deepinv with rglib's network": DeepinvStep(objective, networks, x_hat),
    }


def _iterations(statistics: Mapping[str, Statistic]) -> str:
    """How many iterations the fixed points took, means over the batch."""
    said = [
        f"{f}: {statistics[f'{f}_iterations']:.0f}" for f in "fg" if f"{f}_iterations" in statistics
    ]
    return f"iterations of {', of '.join(said)}"
