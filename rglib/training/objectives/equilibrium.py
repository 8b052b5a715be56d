"""Algorithm 1: MTDEQ, RG1, DEQGD and RERG, by back-propagation at fixed points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rglib import paper
from rglib.core.algorithms import start
from rglib.core.fixed_point import (
    Adam,
    KeepableSolver,
    Map,
    Outcome,
    Picard,
    SemiImplicit,
    SemiImplicitState,
    Solver,
    StoppingRule,
    back_propagated,
    solve,
)
from rglib.core.maps import (
    ForwardBackward,
    GradientStep,
    RegularizedGradient,
    SemiImplicitStep,
    link_residual,
)
from rglib.core.problems import (
    DataGradient,
    Observation,
    Randomness,
    TrainingDistribution,
    observe,
)
from rglib.plan.roles import EQUILIBRIUM
from rglib.training.objectives.losses import (
    Batch,
    Losses,
    Networks,
    Statistic,
    log_mean_square,
    mean_square,
)

LOSSES = {"mean_square": mean_square, "log_mean_square": log_mean_square}

# As in the paper's tests, completion from grey; the same but from interpolated pixels; A^T y.
STARTS: dict[str, Callable[[Observation], Tensor]] = {
    "test": lambda seen: seen.x0,
    "interpolated": lambda seen: start(seen, "interpolated"),
    "adjoint": lambda seen: seen.problem.A.adjoint(seen.y),
}


@dataclass(frozen=True)
class Equilibrium:
    r"""Algorithm 1: losses at the fixed points of f and g, by Jacobian-free back-propagation.

    With the weights ``link``, ``forward_backward`` and ``gradient_descent``, eqs. (15, 16, 28-30),

    .. math::
        w_1 L_\text{link}(x_f - \eta_\text{FB} D(x_f)) + w_2 \lVert f(x_f) - \hat x \rVert^2
        + w_3 \lVert g(x_g) - \hat x \rVert^2.

    A weight of None leaves the term
    out: MTDEQ is forward_backward alone, RG1 adds the link, DEQGD is gradient_descent alone, RERG
    has all three.

    Where the batch keeps its iterates (`rglib.core.kept`) these are taken a few steps further
    instead of to the stopping rule.

    Attributes:
        stop: the stopping rule of both fixed points.
        link_variance: "theorem" takes eta_FB sigma^2 (Theorem 1), "literal" sigma^2 as eq. (28).
        backward_terms: of the Neumann series in the backward pass; 0 is Jacobian-free. The point z
            at which L_link takes P is a constant whatever their number.
        backward_map: through which G is taught at x_g, "gradient" (g, as in the paper) or
            "semi_implicit" (`SemiImplicitStep`, with the same fixed points).
        loss: of each term, "mean_square" as in the paper or "log_mean_square", which is in dB.
        solver: finds x_g; the paper's is Adam with the rate eta_gd.
        x0: where both iterations start, see `STARTS`.
        distribution: the problems drawn, one per batch.
    """

    link: float | None = None
    forward_backward: float | None = None
    gradient_descent: float | None = None
    eta_fb: float = paper.ETA_FB
    eta_gd: float = paper.ETA_GD
    stop: StoppingRule = field(default_factory=StoppingRule)
    link_variance: Literal["theorem", "literal"] = "theorem"
    backward_terms: int = 0
    backward_map: Literal["gradient", "semi_implicit"] = "gradient"
    loss: Literal["mean_square", "log_mean_square"] = "mean_square"
    solver: Solver[Any] = field(default_factory=lambda: Adam(lr=paper.ETA_GD))
    x0: Literal["test", "interpolated", "adjoint"] = "test"
    distribution: TrainingDistribution = field(default_factory=TrainingDistribution)

    @property
    def learns(self) -> tuple[str, ...]:
        """P where f takes part, G where the link or g does."""
        return EQUILIBRIUM.learned(vars(self))

    uses: ClassVar = EQUILIBRIUM.uses

    @property
    def _needs_f(self) -> bool:
        return self.link is not None or self.forward_backward is not None

    @property
    def _needs_g(self) -> bool:
        return self.gradient_descent is not None

    def __call__(self, networks: Networks, batch: Batch) -> Losses:
        seen = drawn(self.distribution, batch.x_hat, batch.randomness, x0=self.x0)
        D = DataGradient(seen.problem.A, seen.y)
        losses = Losses({}, {"sigma": seen.problem.sigma})
        if self._needs_f:
            losses = losses.and_also(self._at_x_f(networks, seen, D, batch))
        if self._needs_g:
            losses = losses.and_also(self._at_x_g(networks, seen, D, batch))
        return losses

    def _at_x_f(
        self, networks: Networks, seen: Observation, D: DataGradient, batch: Batch
    ) -> Losses:
        """L_FB and L_link at the fixed point of f; one graded pass of P serves both."""
        sigma = seen.problem.sigma
        f = ForwardBackward(networks["P"], D, sigma, self.eta_fb)
        x_f, _, statistics = self._found("f", Picard(), f, seen.x0, batch)
        with torch.no_grad():
            z = f.forward_step(x_f)
        p = back_propagated(f.prox(z), f, x_f, terms=self.backward_terms)
        terms = {}
        if self.forward_backward is not None:
            terms["FB"] = self.forward_backward * self._size(p - seen.x_hat)
        if self.link is not None:
            eta = self.eta_fb if self.link_variance == "theorem" else 1.0
            residual = link_residual(networks["G"](p), z, p, variance=eta * sigma**2)
            terms["link"] = self.link * self._size(residual)
        return Losses(terms, statistics)

    def _at_x_g(
        self, networks: Networks, seen: Observation, D: DataGradient, batch: Batch
    ) -> Losses:
        """L_GD at a zero of D + sigma^2 G; then one step of the backward map with gradients."""
        gradient = RegularizedGradient(networks["G"], D, seen.problem.sigma)
        found, state, statistics = self._found("g", self.solver, gradient, seen.x0, batch)
        step = BACKWARD_MAPS[self.backward_map](gradient, found, state, self.eta_gd)
        x_g = back_propagated(step(found), step, found, terms=self.backward_terms)
        weight = self.gradient_descent or 0.0
        return Losses({"GD": weight * self._size(x_g - seen.x_hat)}, statistics)

    def _found(
        self, name: str, solver: Solver[Any], F: Map, x0: Tensor, batch: Batch
    ) -> tuple[Tensor, Any, dict[str, Statistic]]:
        """Where the iteration ends: x, the solver's state where it is kept, and what to report."""
        if batch.kept is None:
            found = solve(solver, F, x0, self.stop)
            shares = {f"{name}_{o.name.lower()}": found.share(o) for o in Outcome}
            return found.x, None, {f"{name}_iterations": found.iterations.float().mean(), **shares}
        if not isinstance(solver, KeepableSolver):
            raise TypeError(f"{type(solver).__name__} cannot keep its iterates: see KeepableSolver")
        x, state, lost = batch.kept.advance(name, solver, F, x0)
        return x, state, {f"{name}_restarted": lost.float().mean()}

    def _size(self, error: Tensor) -> Tensor:
        return LOSSES[self.loss](error)


def _semi_implicit_step(gradient: RegularizedGradient, x: Tensor, state: Any, _: float) -> Map:
    if not isinstance(state, SemiImplicitState):
        with torch.no_grad():
            state = SemiImplicit().init(gradient, x)
    return SemiImplicitStep(gradient, state.tau)


# By name, see `rglib.records.code_hash`: of the gradient, the fixed point, the solver's state and
# eta_gd.
BACKWARD_MAPS: dict[str, Callable[[RegularizedGradient, Tensor, Any, float], Map]] = {
    "gradient": lambda gradient, x, state, eta: GradientStep(gradient, eta),
    "semi_implicit": _semi_implicit_step,
}


def drawn(
    distribution: TrainingDistribution, x_hat: Tensor, randomness: Randomness, *, x0: str
) -> Observation:
    """A problem of the distribution on images x_hat (B, 3, H, W), on their device.

    ``x0`` is where the iterations start, see `STARTS`.
    """
    seen = observe(distribution.draw(randomness), x_hat, randomness)
    return replace(seen, x0=STARTS[x0](seen))
