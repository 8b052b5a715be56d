"""A start for G that needs no P: the score of images at one noise level."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from rglib.core.problems import TrainingDistribution, observe
from rglib.plan.roles import SCORE_START
from rglib.training.objectives.losses import (
    Batch,
    Losses,
    Networks,
    StepRandomness,
    noise_like,
    uniform_per_image,
)


@dataclass(frozen=True)
class ScoreStart:
    r"""A start for G, not in the paper: s^2 G(x) regressed on x - x_hat, with s fixed.

    At x = x_hat + s n the regression has :math:`-\nabla \log p_s(x)` as G, p_s being the density of
    images with white noise of std s (Tweedie's formula). Taught there alone, G is free everywhere
    else that gradient descent comes through. So half of the noisy images have noise of
    another strength, up to ``noise_max``, and in the share ``degraded`` of the steps x lies on the
    way from a starting point of a training problem to the truth.

    The square error of an image is divided by that of G = 0 where this exceeds that of noise s, so
    that the strongly degraded ones do not outweigh the rest.
    """

    s: float = 14 / 255
    noise_max: float = 60 / 255
    degraded: float = 0.25
    distribution: TrainingDistribution = field(default_factory=TrainingDistribution)
    learns: ClassVar = SCORE_START.learns
    uses: ClassVar = SCORE_START.uses

    def __call__(self, networks: Networks, batch: Batch) -> Losses:
        x = self._inputs(batch.x_hat, batch.randomness)
        target = (x - batch.x_hat) / self.s
        error = (self.s * networks["G"](x) - target).square().mean(dim=(1, 2, 3))
        size = target.square().mean(dim=(1, 2, 3))
        missed = (error.detach() / size.clamp_min(1e-12)).mean()
        return Losses({"score": (error / size.clamp_min(1.0)).mean()}, {"missed_share": missed})

    def _inputs(self, x_hat: Tensor, randomness: StepRandomness) -> Tensor:
        if randomness.uniform((1,)).item() < self.degraded:
            start = observe(self.distribution.draw(randomness), x_hat, randomness).x0
            way = uniform_per_image(randomness, x_hat, 1.0)
            x_hat = x_hat + way * (start - x_hat)
            noise = uniform_per_image(randomness, x_hat, self.s)
        else:
            other = uniform_per_image(randomness, x_hat, self.noise_max)
            at_s = uniform_per_image(randomness, x_hat, 1.0) < 0.5
            noise = torch.where(at_s, self.s, other)
        return x_hat + noise * noise_like(randomness, x_hat)
