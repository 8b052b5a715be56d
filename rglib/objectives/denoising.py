"""The Gaussian denoiser P."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rglib.objectives.losses import (
    Losses,
    Networks,
    StepRandomness,
    noise_like,
    uniform_per_image,
)
from rglib.processes import WHOLE, Share


@dataclass(frozen=True)
class Denoising:
    """The Gaussian denoiser, as in KAIR: L1 of P(x_hat + s n, s) - x_hat, s ~ U[0, sigma_max]."""

    sigma_max: float = 50 / 255
    learns: tuple[str, ...] = ("P",)
    uses: tuple[str, ...] = ()

    def __call__(
        self, networks: Networks, x_hat: Tensor, step: int, seed: int, share: Share = WHOLE
    ) -> Losses:
        randomness = StepRandomness.of(seed, step, share)
        s = uniform_per_image(randomness, x_hat, self.sigma_max)
        z = x_hat + s * noise_like(randomness, x_hat)
        p = networks["P"](z, s.flatten())
        return Losses({"denoising": (p - x_hat).abs().mean()})
