"""A start for G from which gradient descent is stable."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from rglib.core.problems import TrainingDistribution, observe
from rglib.plan.roles import RESIDUAL_START
from rglib.training.objectives.losses import (
    Batch,
    Losses,
    Networks,
    StepRandomness,
    mean_square,
    noise_like,
    uniform_per_image,
)


@dataclass(frozen=True)
class ResidualStart:
    """A stable start for G, not in the paper: s^2 G(x) regressed on x - P(x, s), s fixed, P frozen.

    Gradient descent with x - P(x, s) itself is stable on all twelve problems for s of about 20/255
    (and leaves completion for s of 10/255 and below), where a G that started at random and met the
    link loss is not. The inputs x are what gradient descent meets: noisy images and, in the share
    ``degraded`` of the steps, starting points of the training problems on their way to the truth;
    half of the images are partly denoised. The residual is divided by s, to be of order one.
    """

    s: float = 20 / 255
    noise_max: float = 60 / 255
    degraded: float = 0.5
    distribution: TrainingDistribution = field(default_factory=TrainingDistribution)
    learns: ClassVar = RESIDUAL_START.learns
    uses: ClassVar = RESIDUAL_START.uses

    def __call__(self, networks: Networks, batch: Batch) -> Losses:
        P = networks["P"]
        with torch.no_grad():
            x = self._inputs(P, batch.x_hat, batch.randomness)
            target = (x - P(x, self.s)) / self.s
        residual = self.s * networks["G"](x) - target
        missed = mean_square(residual.detach()) / mean_square(target).clamp_min(1e-12)
        return Losses({"residual": mean_square(residual)}, {"missed_share": missed})

    def _inputs(self, P: nn.Module, x_hat: Tensor, randomness: StepRandomness) -> Tensor:
        x, noise_max = x_hat, self.noise_max
        if randomness.uniform((1,)).item() < self.degraded:
            start = observe(self.distribution.draw(randomness), x_hat, randomness).x0
            x = x_hat + uniform_per_image(randomness, x_hat, 1.0) * (start - x_hat)
            noise_max = self.noise_max / 5
        x = x + uniform_per_image(randomness, x_hat, noise_max) * noise_like(randomness, x_hat)
        sigma = uniform_per_image(randomness, x_hat, self.noise_max)
        amount = (2 * uniform_per_image(randomness, x_hat, 1.0) - 1).clamp_min(0)
        denoised: Tensor = P(x, sigma.flatten())
        return x + amount * (denoised - x)
