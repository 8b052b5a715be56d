"""Theorem 1: what the link loss says about the distance from x_g to the truth."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from rglib.core.maps import ForwardBackward, Gradient, link_residual


def link_loss(f: ForwardBackward, G: Gradient, x_f: Tensor) -> Tensor:
    r"""L_link at x~ = x_f - eta D(x_f) with variance eta sigma^2, eq. (7), a sum per image (B,).

    At a fixed point x_f (B, 3, H, W) of f, P(x~) = x_f, and L_link is, eq. (20),

    .. math::
        \lVert \eta\sigma^2 G(x_f) + \eta D(x_f) \rVert^2 = \lVert g(x_f) - x_f \rVert^2.
    """
    z = f.forward_step(x_f)
    p = f.prox(z)
    residual = link_residual(G(p), z, p, variance=f.eta * f.sigma**2)
    return residual.square().flatten(1).sum(dim=1)


@dataclass(frozen=True)
class Sides:
    """Both sides of Theorem 1, eqs. (18) and (25), for one image; norms are sums.

    Where L_g >= 1 the theorem says nothing: the right sides are nan, and it is None whether the
    inequalities hold. So it is where a measured number is nan.

    Attributes:
        distance_g: ||x_g - x_hat||.
        distance_f: ||x_f - x_hat||.
        link: L_link at x_f - eta D(x_f), as `link_loss`.
        contraction: L_g, the Lipschitz constant of g.
    """

    distance_g: float
    distance_f: float
    link: float
    contraction: float

    @property
    def assumption_holds(self) -> bool | None:
        """L_g < 1."""
        return None if math.isnan(self.contraction) else self.contraction < 1

    @property
    def bound_18(self) -> float:
        """sqrt(L_link) / (1 - L_g) + ||x_f - x_hat||, the right side of (18)."""
        return math.sqrt(self.link) / self._gap + self.distance_f

    @property
    def holds_18(self) -> bool | None:
        """||x_g - x_hat|| is at most `bound_18`."""
        return _at_most(self.distance_g, self.bound_18)

    @property
    def tightness_18(self) -> float:
        """`bound_18` over ||x_g - x_hat||: at least 1, and 1 where the theorem is an equality."""
        return self.bound_18 / self.distance_g if self.distance_g else math.inf

    @property
    def left_25(self) -> float:
        """1/2 ||x_g - x_hat||^2."""
        return self.distance_g**2 / 2

    @property
    def right_25(self) -> float:
        """L_link / (1 - L_g)^2 + ||x_f - x_hat||^2."""
        return self.link / self._gap**2 + self.distance_f**2

    @property
    def holds_25(self) -> bool | None:
        """`left_25` is at most `right_25`."""
        return _at_most(self.left_25, self.right_25)

    @property
    def _gap(self) -> float:
        return 1 - self.contraction if self.assumption_holds else math.nan


def _at_most(left: float, right: float) -> bool | None:
    return None if math.isnan(left) or math.isnan(right) else left <= right
