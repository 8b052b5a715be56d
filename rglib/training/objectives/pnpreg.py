"""The joint loss of pnpReG over P and G."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rglib import paper
from rglib.core.maps import link_residual
from rglib.plan.roles import PNPREG
from rglib.training.objectives.losses import (
    Batch,
    Losses,
    Networks,
    mean_square,
    noise_like,
    uniform_per_image,
)


@dataclass(frozen=True)
class PnPReG:
    r"""The joint loss of pnpReG, with means over the entries as norms.

    .. math:: \delta\, \lVert p - \hat x \rVert_1 + \lambda\, \lVert s^2 G(p) - (z - p) \rVert^2

    z = x_hat + s0 n and p = P(z, s). Even steps (the first is 0) have s = s0 and delta = 1; odd
    ones draw s anew and have delta = 0. Nothing is detached: both terms reach both networks.

    Attributes:
        link: the weight lambda of the link, 0.004 in the released code.
        sigma_max: s and s0 are uniform on [0, sigma_max], per image.
        probe_noise: std of white noise added to p before G sees it. 0 in the paper; with a small
            network some noise keeps G from reading the faint traces that P leaves of n, which makes
            gradient descent explode.
    """

    link: float = 0.004
    sigma_max: float = paper.NOISE_MAX
    probe_noise: float = 0.0
    learns: ClassVar = PNPREG.learns
    uses: ClassVar = PNPREG.uses

    def __call__(self, networks: Networks, batch: Batch) -> Losses:
        x_hat, randomness = batch.x_hat, batch.randomness
        matched = batch.step % 2 == 0
        s0 = uniform_per_image(randomness, x_hat, self.sigma_max)
        s = s0 if matched else uniform_per_image(randomness, x_hat, self.sigma_max)
        z = x_hat + s0 * noise_like(randomness, x_hat)
        p = networks["P"](z, s.flatten())
        probe = p
        if self.probe_noise:
            scale = uniform_per_image(randomness, x_hat, self.probe_noise)
            probe = p + scale * noise_like(randomness, x_hat)
        residual = link_residual(networks["G"](probe), z, p, variance=s.square())
        terms = {"link": self.link * mean_square(residual)}
        if matched:
            terms["denoising"] = (p - x_hat).abs().mean()
        left = mean_square(residual.detach()) / mean_square((z - p).detach()).clamp_min(1e-12)
        return Losses(terms, {"link_over_residual": left})
