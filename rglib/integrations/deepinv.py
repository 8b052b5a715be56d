"""Regularizing gradients, P and the twelve problems as deepinv's priors, denoisers and physics.

Needs deepinv, and with it a torchvision for the PyTorch that is installed: ``rglib[deepinv]``.

deepinv minimises f(x) + lambda g(x) with f = 1/2 ||A x - y||^2 (`deepinv.optim.L2`). With a
`GradientPrior` in the place of g, lambda is s^2, and where its iterations arrive D + s^2 G is zero:
the fixed points of the paper's g, eq. (14).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deepinv.models.base import Denoiser as DeepinvDenoiser
from deepinv.optim import Prior as DeepinvPrior
from deepinv.physics import LinearPhysics, NoiseModel
from torch import Tensor, nn

from rglib.core.operators import Operator
from rglib.core.problems import PROBLEMS, Degradation, SeededImage, observe_image
from rglib.plan.roles import ROLE
from rglib.restoration import prior as priors


class GradientPrior(DeepinvPrior):  # type: ignore[misc]  # deepinv has no types
    """The prior whose gradient is G, for deepinv's `GD`, `PGD(g_first=True)`, `FISTA` and others.

    Like their RED it has no cost and no proximal operator of its own.
    """

    def __init__(self, G: nn.Module) -> None:
        super().__init__()
        self.G = G
        self.explicit_prior = False

    def grad(self, x: Tensor, *_: object, **__: object) -> Tensor:
        """G(x), of the shape of x (B, 3, H, W); G is not told any noise level."""
        g: Tensor = self.G(x)
        return g


class Denoiser(DeepinvDenoiser):  # type: ignore[misc]  # deepinv has no types
    """P as a denoiser of deepinv's, for `PnP`, `RED`, `DPIR` and others."""

    def __init__(self, P: nn.Module) -> None:
        super().__init__()
        self.P = P

    def forward(self, x: Tensor, sigma: float | Tensor, **_: object) -> Tensor:
        """P(x, sigma) for x (B, 3, H, W) and the noise std on [0, 1], one or (B,)."""
        p: Tensor = self.P(x, sigma)
        return p


class SeededNoise(NoiseModel):  # type: ignore[misc]  # deepinv has no types
    """The noise of the tables: the same for every image and every call, in the order C, H, W."""

    def __init__(self, sigma: float, *, seed: int = 0) -> None:
        super().__init__()
        self.sigma = sigma
        self.seed = seed

    def forward(self, x: Tensor, **_: object) -> Tensor:
        """X (B, C, h, w) + sigma n, never clipped."""
        if self.sigma == 0:
            return x
        n = SeededImage(self.seed).normal((1, *x.shape[1:]))
        return x + self.sigma * n.to(x)


class OperatorPhysics(LinearPhysics):  # type: ignore[misc]  # deepinv has no types
    """An operator of rglib's as physics of deepinv's, with its exact proximal step."""

    def __init__(self, operator: Operator, *, sigma: float = 0.0, seed: int = 0) -> None:
        super().__init__(
            A=lambda x, **_: operator(x),
            A_adjoint=lambda y, **_: operator.adjoint(y),
            noise_model=SeededNoise(sigma, seed=seed),
        )
        self.operator = operator

    def prox_l2(
        self, z: Tensor, y: Tensor, gamma: float | Tensor, *_: object, **__: object
    ) -> Tensor:
        """argmin_x gamma/2 ||A x - y||^2 + 1/2 ||x - z||^2, whatever solver is asked for."""
        return self.operator.prox(z, y, 1 / gamma)


@dataclass(frozen=True)
class PosedProblem:
    """A problem of the tables on an image, in deepinv's terms.

    Attributes:
        physics: ``physics(x_hat)`` is y, every time.
        x_hat: the ground truth (1, 3, H, W), cropped as the problem does.
        y: the observation.
        x0: where the tables start from: ``model(y, physics, init=x0)``.
    """

    physics: OperatorPhysics
    x_hat: Tensor
    y: Tensor
    x0: Tensor


def posed(problem: str | Degradation, image: Tensor, *, seed: int = 0) -> PosedProblem:
    """One of the twelve problems, or a degradation of your own, on an image (1, 3, H, W).

    Masks and noise are those of the tables, whose seed is 0.

    Raises:
        ValueError: the problem is unknown, or image is not one image (1, 3, H, W).
    """
    if isinstance(problem, str) and problem not in PROBLEMS:
        raise ValueError(f"unknown problem {problem!r}; there are {', '.join(PROBLEMS)}")
    if image.ndim != 4 or image.shape[:2] != (1, 3):
        raise ValueError(f"image must be (1, 3, H, W), got {tuple(image.shape)}")
    degradation = PROBLEMS[problem] if isinstance(problem, str) else problem
    seen = observe_image(degradation, image, seed=seed)
    physics = OperatorPhysics(seen.problem.A, sigma=seen.problem.sigma, seed=seed)
    return PosedProblem(physics, seen.x_hat, seen.y, seen.x0)


def prior(
    method: str,
    *,
    models: Path | str | None = None,
    device: str = "auto",
    precision: str = "float32",
) -> GradientPrior:
    """The regularizing gradient of a method, ``rerg`` for example; arguments as `rglib.load`.

    Raises:
        ValueError: the method has a P and no G; and as `rglib.load`.
    """
    found = priors.load(method, models=models, device=device, precision=precision)
    return GradientPrior(_network(found, "G"))


def denoiser(
    method: str,
    *,
    models: Path | str | None = None,
    device: str = "auto",
    precision: str = "float32",
) -> Denoiser:
    """The proximal operator of a method, ``mtdeq`` for example; arguments as `rglib.load`.

    Raises:
        ValueError: the method has a G and no P; and as `rglib.load`.
    """
    found = priors.load(method, models=models, device=device, precision=precision)
    return Denoiser(_network(found, "P"))


def _network(found: priors.Prior, role: str) -> nn.Module:
    if ROLE[found.algorithm] != role:
        other = {"G": "denoiser", "P": "prior"}[role]
        raise ValueError(f"{found.name} restores with a {ROLE[found.algorithm]}: use {other}()")
    return found.network
