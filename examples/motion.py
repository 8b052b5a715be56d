"""Horizontal motion blur: a problem that is not in the paper."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rglib.core.operators import Blur, Operator
from rglib.core.problems import Randomness


@dataclass(frozen=True)
class MotionBlur:
    """The mean of ``length`` pixels of a row, an odd number, and noise of std sigma."""

    length: int
    sigma: float
    task: str = "deblurring"  # whose schedule PnP-ADMM has for it

    @property
    def smallest(self) -> int:
        """The kernel must fit the image."""
        return self.length

    def crop(self, x: Tensor) -> Tensor:
        """All of the image."""
        return x

    def operator(self, shape: torch.Size, randomness: Randomness) -> Operator:
        """The same blur for every image; ``randomness`` is for operators that are drawn."""
        kernel = torch.full((1, self.length), 1 / self.length)
        return Blur.from_kernel(kernel, height=shape[-2], width=shape[-1])

    def start(self, y: Tensor, A: Operator, shape: torch.Size) -> Tensor:
        """The observation itself."""
        return y
