"""Unknown pixels between known ones: a start of completion that costs no call of a network."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SWEEPS = 8  # of relaxation at each scale


def interpolated(y: Tensor, known: Tensor, *, otherwise: float) -> Tensor:
    """Fill the unknown pixels of images smoothly in, from coarse to fine; known ones stay.

    At each scale what is not known is taken from the scale of half the size, whose pixels are the
    means of the known ones among their four, and relaxed towards a solution of Laplace's equation:
    each unknown pixel becomes the mean of its four neighbours. (The pyramid is push-pull: Gortler
    et al., "The lumigraph", SIGGRAPH 1996.)

    Args:
        y: images (B, C, H, W), whose unknown pixels do not count.
        known: ones where a pixel is known and zeros elsewhere, (B or 1, C or 1, H, W).
        otherwise: the value of a channel of which no pixel is known.

    Returns:
        Images of the shape of y.
    """
    known = known.bool().expand_as(y)
    return _filled(torch.where(known, y, 0.0), known, otherwise)


def _filled(y: Tensor, known: Tensor, otherwise: float) -> Tensor:
    height, width = y.shape[-2:]
    if max(height, width) == 1:
        return torch.where(known, y, otherwise)
    share = functional.avg_pool2d(known.to(y.dtype), 2, ceil_mode=True)
    means = functional.avg_pool2d(y, 2, ceil_mode=True) / share.clamp_min(0.25)  # y is 0 elsewhere
    coarse = _filled(means, share > 0, otherwise)
    x = functional.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
    x = torch.where(known, y, x[..., :height, :width])
    for _ in range(SWEEPS):
        x = torch.where(known, y, _mean_of_neighbours(x))
    return x


def _mean_of_neighbours(x: Tensor) -> Tensor:
    """The mean of the four neighbours of each pixel; beyond the border lies the pixel itself."""
    x = functional.pad(x, (1, 1, 1, 1), mode="replicate")
    middle = slice(1, -1)
    beside = x[..., middle, :-2] + x[..., middle, 2:]
    return (beside + x[..., :-2, middle] + x[..., 2:, middle]) / 4
