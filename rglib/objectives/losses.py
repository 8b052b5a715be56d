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

from rglib.problems import Randomness, SeededStep
from rglib.processes import WHOLE, Share

Networks = Mapping[str, nn.Module]  # "P" and "G", as far as the objective needs them


@dataclass(frozen=True)
class Losses:
    """Scalar terms, each already times its weight, and numbers worth a log."""

    terms: dict[str, Tensor]
    statistics: dict[str, float] = field(default_factory=dict)

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

    def __call__(
        self, networks: Networks, x_hat: Tensor, step: int, seed: int, share: Share = WHOLE
    ) -> Losses:
        """Losses of a batch x_hat (B, 3, H, W) in [0, 1] at a training step (from 0).

        Of several processes each has its share of a larger batch, which is this x_hat.
        """


@dataclass(frozen=True)
class StepRandomness:
    """The random draws of a training step, of which one of several processes takes its share.

    Every process draws for the batches of all, so that they see together what one would see alone.
    A shape (B, ., ., .) is of images, of which each process has its own; any other, such as of what
    chooses the problem, is of the step, and all have the same.
    """

    source: Randomness
    share: Share = WHOLE

    @staticmethod
    def of(seed: int, step: int, share: Share) -> StepRandomness:
        """The draws of a step."""
        return StepRandomness(SeededStep(seed, step), share)

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


def link_residual(G_p: Tensor, z: Tensor, p: Tensor, *, variance: float | Tensor) -> Tensor:
    r""":math:`s^2 G(p) - (z - p)` with :math:`p = P_{s^2}(z)`: its square is the link loss (7)."""
    return variance * G_p - (z - p)


def mean_square(x: Tensor) -> Tensor:
    """||x||^2 over the number of entries."""
    return x.square().mean()


def uniform_per_image(randomness: Randomness, x: Tensor, upper: float) -> Tensor:
    """U[0, upper] for each image, (B, 1, 1, 1) on the device of x."""
    return upper * randomness.uniform((len(x), 1, 1, 1)).to(x.device)


def noise_like(randomness: Randomness, x: Tensor) -> Tensor:
    """N(0, 1) of the shape and on the device of x."""
    return randomness.normal(x.shape).to(x.device)
