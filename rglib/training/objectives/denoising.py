"""The Gaussian denoiser P."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rglib import paper
from rglib.plan.roles import DENOISING
from rglib.training.objectives.losses import (
    Batch,
    Losses,
    Networks,
    noise_like,
    uniform_per_image,
)


@dataclass(frozen=True)
class Denoising:
    """The Gaussian denoiser, as in KAIR: L1 of P(x_hat + s n, s) - x_hat, s ~ U[0, sigma_max]."""

    sigma_max: float = paper.NOISE_MAX
    learns: ClassVar = DENOISING.learns
    uses: ClassVar = DENOISING.uses

    def __call__(self, networks: Networks, batch: Batch) -> Losses:
        x_hat, randomness = batch.x_hat, batch.randomness
        s = uniform_per_image(randomness, x_hat, self.sigma_max)
        z = x_hat + s * noise_like(randomness, x_hat)
        p = networks["P"](z, s.flatten())
        return Losses({"denoising": (p - x_hat).abs().mean()})
