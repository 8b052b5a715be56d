"""What all objectives share: losses with names, the link, and per-image random draws.

An objective is a frozen dataclass that turns a batch of ground truth into `Losses`. Norms are mean
reduced: this only rescales the paper's losses. Every random draw is a function of seed and step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from rglib.problems import Randomness

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

    def __call__(self, networks: Networks, x_hat: Tensor, step: int, seed: int) -> Losses:
        """Losses of a batch x_hat (B, 3, H, W) in [0, 1] at a training step (from 0)."""


def link_residual(G_p: Tensor, z: Tensor, p: Tensor, *, variance: float | Tensor) -> Tensor:
    """s^2 G(p) - (z - p) with p = P_{s^2}(z), whose square is the link loss, eq. (7)."""
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
