"""What JFB through each backward map makes of the gradient that G should learn from.

The true gradient of a loss at x_g is the implicit one: with F = D + sigma^2 G and its Jacobian J,
w = -(J^T)^-1 dL/dx is pulled back through sigma^2 G to the weights. JFB pulls back dL/dx itself,
through eta sigma^2 G for the gradient step g and through the semi-implicit step for the other map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from rglib.core.fixed_point import Map, SemiImplicit, StoppingRule, back_propagated, solve
from rglib.core.maps import GradientStep, RegularizedGradient, SemiImplicitStep
from rglib.core.problems import (
    Completion,
    DataGradient,
    Deblurring,
    Degradation,
    SeededImage,
    observe,
)
from rglib.progress import progress
from rglib.restoration.evaluation import GroundTruth
from rglib.training.objectives.losses import mean_square

Config = Mapping[str, Any]

COLUMNS = {
    "problem": "what is restored",
    "sigma_255": "noise level, on the 0..255 scale",
    "map": "what is back-propagated through; implicit: the true gradient",
    "terms": "of the Neumann series beyond the first",
    "norm": "of the gradient of ||x_g - x_hat||^2 / n with respect to the weights of G, mean",
    "cosine": "with the true one, mean over the crops",
}
TERMS = 5
SIGMAS_255 = (1.0, 2.55, 10.0, 30.0)  # the tests are at the first two
PROBLEMS: dict[str, Degradation] = {
    f"{name}, {sigma:g}/255": make(sigma / 255)
    for name, make in (
        ("completion, 80 % missing", lambda sigma: Completion(keep=0.2, sigma=sigma)),
        ("deblurring, 2.0 pixels", lambda sigma: Deblurring(sigma_b=2.0, sigma=sigma)),
    )
    for sigma in SIGMAS_255
}
TO_THE_ZERO = StoppingRule(max_iterations=3000, tolerance=1e-14)


@dataclass(frozen=True)
class At:
    """A zero x_g of D + sigma^2 G for an observation of x_hat, (1, 3, H, W)."""

    F: RegularizedGradient
    x_g: Tensor
    x_hat: Tensor
    weights: tuple[nn.Parameter, ...]

    def implicit(self) -> Tensor:
        """The true gradient with respect to the weights, as one vector, by a dense Jacobian."""
        x = self.x_g.detach().requires_grad_()
        (pull,) = torch.autograd.grad(mean_square(x - self.x_hat), x)
        jacobian = torch.autograd.functional.jacobian(self.F, self.x_g, vectorize=False)
        n = self.x_g.numel()
        w = torch.linalg.solve(jacobian.reshape(n, n).T.double(), -pull.flatten().double())
        value = self.F(self.x_g.detach())
        return self._vector((value * w.view_as(value).float()).sum())

    def through(self, step: Map, *, terms: int) -> Tensor:
        """The gradient by back-propagation through a map whose fixed point x_g is."""
        value = back_propagated(step(self.x_g), step, self.x_g, terms=terms)
        return self._vector(mean_square(value - self.x_hat))

    def _vector(self, loss: Tensor) -> Tensor:
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, self.weights)])


def compare_gradients(
    G: nn.Module,
    images: Sequence[GroundTruth],
    *,
    eta_gd: float,
    problems: Mapping[str, Degradation] = PROBLEMS,
) -> pd.DataFrame:
    """Norm and cosine of each gradient, for each problem on each image.

    Args:
        G: in float32, with trainable weights.
        images: small crops (1, 3, H, W): the Jacobian has (3 H W)^2 entries.
        eta_gd: the step of g.
        problems: by name.

    Returns:
        A row for each problem and gradient, with `COLUMNS`.
    """
    weights = tuple(G.parameters())
    rows = []
    with progress("gradients", total=len(problems) * len(images), unit="crop") as advance:
        for name, degradation in problems.items():
            for i, image in enumerate(images):
                at, tau = _zero(G, degradation, image.pixels, weights, seed=i)
                rows += [
                    {"problem": name, "sigma_255": round(degradation.sigma * 255, 6), **row}
                    for row in _compared(at, tau, eta_gd)
                ]
                advance()
    table = pd.DataFrame(rows)
    keys = ["problem", "sigma_255", "map", "terms"]
    return table.groupby(keys, sort=False)[["norm", "cosine"]].mean().reset_index()


def _zero(
    G: nn.Module,
    degradation: Degradation,
    x_hat: Tensor,
    weights: tuple[nn.Parameter, ...],
    *,
    seed: int,
) -> tuple[At, Tensor]:
    seen = observe(degradation, x_hat, SeededImage(seed))
    F = RegularizedGradient(G, DataGradient(seen.problem.A, seen.y), degradation.sigma)
    solver = SemiImplicit()
    with torch.no_grad():
        tau = solver.init(F, seen.x0).tau
    return At(F, solve(solver, F, seen.x0, TO_THE_ZERO).x, x_hat, weights), tau


def _compared(at: At, tau: Tensor, eta_gd: float) -> list[dict[str, Any]]:
    true = at.implicit()
    found = {("implicit", 0): true}
    for name, step in (
        ("gradient", GradientStep(at.F, eta_gd)),
        ("semi_implicit", SemiImplicitStep(at.F, tau)),
    ):
        for terms in (0, TERMS):
            found[name, terms] = at.through(step, terms=terms)
    return [
        {
            "map": name,
            "terms": terms,
            "norm": gradient.norm().item(),
            "cosine": torch.cosine_similarity(gradient.double(), true.double(), dim=0).item(),
        }
        for (name, terms), gradient in found.items()
    ]
