"""Algorithm 1: MTDEQ, RG1, DEQGD and RERG, by back-propagation at fixed points."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from rglib.fixed_point import (
    Adam,
    Outcome,
    Picard,
    Solution,
    Solver,
    StoppingRule,
    back_propagated,
    solve,
)
from rglib.iterations import ForwardBackward, GradientStep, RegularizedGradient
from rglib.objectives.losses import Losses, Networks, StepRandomness, link_residual, mean_square
from rglib.problems import (
    DataGradient,
    Observation,
    Randomness,
    TrainingDistribution,
    observe,
)
from rglib.processes import WHOLE, Share


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

    Attributes:
        stop: the stopping rule of both fixed points.
        link_variance: "theorem" takes eta_FB sigma^2 (Theorem 1), "literal" sigma^2 as eq. (28).
        backward_terms: of the Neumann series in the backward pass; 0 is Jacobian-free. The point z
            at which L_link takes P is a constant whatever their number.
        solver: finds x_g; the paper's is Adam with the rate eta_gd.
        x0: where both iterations start, "test" as at test time, "adjoint" at A^T y.
        distribution: the problems drawn, one per batch.
    """

    link: float | None = None
    forward_backward: float | None = None
    gradient_descent: float | None = None
    eta_fb: float = 0.49
    eta_gd: float = 0.05
    stop: StoppingRule = field(default_factory=StoppingRule)
    link_variance: Literal["theorem", "literal"] = "theorem"
    backward_terms: int = 0
    solver: Solver[Any] = field(default_factory=lambda: Adam(lr=0.05))
    x0: Literal["test", "adjoint"] = "test"
    distribution: TrainingDistribution = field(default_factory=TrainingDistribution)

    @property
    def learns(self) -> tuple[str, ...]:
        """P where f takes part, G where the link or g does."""
        roles = {"P": self._needs_f, "G": self.link is not None or self._needs_g}
        return tuple(role for role, needed in roles.items() if needed)

    uses: tuple[str, ...] = ()

    @property
    def _needs_f(self) -> bool:
        return self.link is not None or self.forward_backward is not None

    @property
    def _needs_g(self) -> bool:
        return self.gradient_descent is not None

    def __call__(
        self, networks: Networks, x_hat: Tensor, step: int, seed: int, share: Share = WHOLE
    ) -> Losses:
        randomness = StepRandomness.of(seed, step, share)
        seen = drawn(self.distribution, x_hat, randomness, x0=self.x0)
        D = DataGradient(seen.problem.A, seen.y)
        terms: dict[str, Tensor] = {}
        statistics = {"sigma": seen.problem.sigma}
        if self._needs_f:
            terms |= self._at_x_f(networks, seen, D, statistics)
        if self.gradient_descent is not None:
            terms |= self._at_x_g(networks, seen, D, statistics, self.gradient_descent)
        return Losses(terms, statistics)

    def _at_x_f(
        self, networks: Networks, seen: Observation, D: DataGradient, statistics: dict[str, float]
    ) -> dict[str, Tensor]:
        """L_FB and L_link at the fixed point of f; one graded pass of P serves both."""
        sigma = seen.problem.sigma
        f = ForwardBackward(networks["P"], D, sigma, self.eta_fb)
        found = solve(Picard(), f, seen.x0, self.stop)
        statistics |= _report("f", found)
        with torch.no_grad():
            z = f.forward_step(found.x)
        p = back_propagated(f.prox(z), f, found.x, terms=self.backward_terms)
        terms = {}
        if self.forward_backward is not None:
            terms["FB"] = self.forward_backward * mean_square(p - seen.x_hat)
        if self.link is not None:
            eta = self.eta_fb if self.link_variance == "theorem" else 1.0
            residual = link_residual(networks["G"](p), z, p, variance=eta * sigma**2)
            terms["link"] = self.link * mean_square(residual)
        return terms

    def _at_x_g(
        self,
        networks: Networks,
        seen: Observation,
        D: DataGradient,
        statistics: dict[str, float],
        weight: float,
    ) -> dict[str, Tensor]:
        """L_GD at a zero of D + sigma^2 G; then one plain step g with gradients."""
        gradient = RegularizedGradient(networks["G"], D, seen.problem.sigma)
        found = solve(self.solver, gradient, seen.x0, self.stop)
        statistics |= _report("g", found)
        g = GradientStep(gradient, self.eta_gd)
        x_g = back_propagated(g(found.x), g, found.x, terms=self.backward_terms)
        return {"GD": weight * mean_square(x_g - seen.x_hat)}


def drawn(
    distribution: TrainingDistribution, x_hat: Tensor, randomness: Randomness, *, x0: str
) -> Observation:
    """A problem of the distribution on images x_hat (B, 3, H, W), on their device.

    ``x0`` is where the iterations start, see `Equilibrium`.
    """
    seen = observe(distribution.draw(randomness), x_hat.cpu(), randomness).to(x_hat.device)
    return replace(seen, x0=seen.problem.A.adjoint(seen.y)) if x0 == "adjoint" else seen


def _report(name: str, found: Solution) -> dict[str, float]:
    shares = {f"{name}_{o.name.lower()}": found.share(o) for o in Outcome}
    return {f"{name}_iterations": found.iterations.float().mean().item(), **shares}
