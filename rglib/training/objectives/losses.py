"""What all objectives share: losses with names, the link, and per-image random draws.

An objective is a frozen dataclass that turns a batch of ground truth into `Losses`. Norms are mean
reduced: this only rescales the paper's losses. Every random draw is a function of seed and step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from rglib.core.kept import KeptIterates
from rglib.core.problems import Randomness, SeededStep
from rglib.training.processes import WHOLE, Share

LEAST_ERROR = 1e-10  # 100 dB: below it there is nothing to learn
Statistic = float | Tensor
Networks = Mapping[str, nn.Module]  # "P" and "G", as far as the objective needs them


@dataclass(frozen=True)
class Batch:
    """What an objective is given at a step, and what all its random draws are a function of.

    Attributes:
        x_hat: ground truth (B, 3, H, W) in [0, 1]; of several processes each has its share.
        step: of training (from 0) at which the batch was drawn.
        seed: of the training.
        share: the part of a larger batch that this is.
        kept: iterates that live across updates; None where a batch is visited once.
    """

    x_hat: Tensor
    step: int
    seed: int
    share: Share = WHOLE
    kept: KeptIterates | None = None

    @property
    def randomness(self) -> StepRandomness:
        """The random draws of this batch, from the first one on."""
        return StepRandomness(SeededStep(self.seed, self.step, self.x_hat.device), self.share)


@dataclass(frozen=True)
class Losses:
    """Scalar terms, each already times its weight, and numbers worth a log.

    Statistics may be tensors of one number, which nobody waits for unless they are logged.
    """

    terms: dict[str, Tensor]
    statistics: dict[str, Statistic] = field(default_factory=dict)

    def and_also(self, other: Losses) -> Losses:
        """The terms and statistics of both."""
        return Losses(self.terms | other.terms, self.statistics | other.statistics)

    @property
    def total(self) -> Tensor:
        """The sum of the terms."""
        return torch.stack(list(self.terms.values())).sum()


class Objective(Protocol):
    """What a stage minimises, and over which networks."""

    @property
    def learns(self) -> tuple[str, ...]:
        """The roles trained, of "P" and "G"."""

    @property
    def uses(self) -> tuple[str, ...]:
        """The roles needed but left as they are."""

    def __call__(self, networks: Networks, batch: Batch) -> Losses:
        """Losses of a batch; what it keeps may be changed."""


@dataclass(frozen=True)
class StepRandomness:
    """The random draws of a training step, of which one of several processes takes its share.

    Every process draws for the batches of all, so that they see together what one would see alone.
    A shape (B, ., ., .) is of images, of which each process has its own; any other, such as of what
    chooses the problem, is of the step, and all have the same.
    """

    source: Randomness
    share: Share = WHOLE

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """U[0, 1)."""
        return self._own(self.source.uniform, shape)

    def normal(self, shape: Sequence[int]) -> Tensor:
        """N(0, 1)."""
        return self._own(self.source.normal, shape)

    def _own(self, draw: Callable[[Sequence[int]], Tensor], shape: Sequence[int]) -> Tensor:
        if len(shape) != 4:
            return draw(shape)
        return self.share.of(draw((shape[0] * self.share.count, *shape[1:])))


def mean_square(x: Tensor) -> Tensor:
    """||x||^2 over the number of entries."""
    return x.square().mean()


def log_mean_square(x: Tensor) -> Tensor:
    """The mean over the images (B, 3, H, W) of the logarithm of each one's `mean_square`.

    Of an error on [0, 1] it is -ln(10) / 10 times the mean PSNR in dB, as tables average it.
    """
    return x.square().mean(dim=(1, 2, 3)).clamp_min(LEAST_ERROR).log().mean()


def uniform_per_image(randomness: Randomness, x: Tensor, upper: float) -> Tensor:
    """U[0, upper] for each image, (B, 1, 1, 1) on the device of x."""
    return upper * randomness.uniform((len(x), 1, 1, 1)).to(x.device)


def noise_like(randomness: Randomness, x: Tensor) -> Tensor:
    """N(0, 1) of the shape and on the device of x."""
    return randomness.normal(x.shape).to(x.device)
