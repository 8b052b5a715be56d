"""The maps of the paper: f (forward-backward, 12), g (gradient step, 14), and D + sigma^2 G.

Each is a function of the iterate z (B, 3, H, W) alone; ``select`` restricts it to some images of
the batch, so that a solver can let converged images rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from rglib import paper
from rglib.core.problems import DataGradient, SideBySide

Denoiser = Callable[[Tensor, float], Tensor]  # P(z, sigma): image and noise std -> image
Gradient = Callable[[Tensor], Tensor]  # G(x): image -> gradient of the regularizer


@dataclass(frozen=True)
class ForwardBackward:
    r""":math:`f(z) = P_{\eta\sigma^2}(z - \eta D(z))`, eq. (12)."""

    P: Denoiser
    D: DataGradient
    sigma: float
    eta: float = paper.ETA_FB

    def forward_step(self, z: Tensor) -> Tensor:
        r""":math:`z - \eta D(z)`, what P is applied to."""
        return z - self.eta * self.D(z)

    def prox(self, z: Tensor) -> Tensor:
        r""":math:`P_{\eta\sigma^2}(z)`: this variance is a noise std of :math:`\sqrt\eta\sigma`."""
        return self.P(z, math.sqrt(self.eta) * self.sigma)

    def __call__(self, z: Tensor) -> Tensor:
        return self.prox(self.forward_step(z))

    def select(self, indices: Tensor) -> ForwardBackward:
        """The map f for the images at these indices."""
        return replace(self, D=self.D.select(indices))


@dataclass(frozen=True)
class RegularizedGradient:
    r""":math:`D(z) + \sigma^2 G(z)`, whose zeros are the fixed points of g.

    The gradient of the MAP objective. sigma is one for all images or (B, 1, 1, 1).
    """

    G: Gradient
    D: DataGradient | SideBySide
    sigma: float | Tensor

    def __call__(self, z: Tensor) -> Tensor:
        return self.D(z) + self.sigma**2 * self.G(z)

    def semi_implicit(self, z: Tensor, tau: Tensor) -> Tensor:
        """The x with x = z - tau (D(x) / sigma^2 + G(z)), by the exact prox; tau is (B, 1, 1, 1).

        Raises:
            ValueError: sigma is 0, of one image or of all.
        """
        absent = self.sigma == 0  # a number in training, where a GPU must not be waited for
        if absent.any() if isinstance(absent, Tensor) else absent:
            raise ValueError(
                "semi_implicit divides the data term by s^2: with s = 0 take the solver adam"
            )
        return self.D.prox(z - tau * self.G(z), self.sigma**2 / tau)

    def select(self, indices: Tensor) -> RegularizedGradient:
        """The same for the images at these indices."""
        sigma = self.sigma[indices] if isinstance(self.sigma, Tensor) else self.sigma
        return replace(self, D=self.D.select(indices), sigma=sigma)


@dataclass(frozen=True)
class SemiImplicitStep:
    r""":math:`h(z) = \mathrm{prox}_{\tau D / \sigma^2}(z - \tau G(z))`, not in the paper.

    Its fixed points are those of g. Back-propagation through it is scaled alike for every sigma,
    where g multiplies by :math:`\eta\sigma^2` what G learns.
    """

    gradient: RegularizedGradient
    tau: Tensor  # (B, 1, 1, 1)

    def __call__(self, z: Tensor) -> Tensor:
        return self.gradient.semi_implicit(z, self.tau)

    def select(self, indices: Tensor) -> SemiImplicitStep:
        """The same for the images at these indices."""
        return replace(self, gradient=self.gradient.select(indices), tau=self.tau[indices])


@dataclass(frozen=True)
class GradientStep:
    r""":math:`g(z) = z - \eta (D(z) + \sigma^2 G(z))`, eq. (14)."""

    gradient: RegularizedGradient
    eta: float = paper.ETA_GD

    def __call__(self, z: Tensor) -> Tensor:
        return z - self.eta * self.gradient(z)

    def select(self, indices: Tensor) -> GradientStep:
        """The map g for the images at these indices."""
        return replace(self, gradient=self.gradient.select(indices))


def link_residual(G_p: Tensor, z: Tensor, p: Tensor, *, variance: float | Tensor) -> Tensor:
    r""":math:`s^2 G(p) - (z - p)` with :math:`p = P_{s^2}(z)`: its square is the link loss (7)."""
    return variance * G_p - (z - p)
