"""Borders of photographs, for operators that wrap around."""

from __future__ import annotations

import torch
from torch import Tensor


def continued(y: Tensor, margin: int) -> Tensor:
    """Continue images (..., h, w) to the right and below so that they wrap around without a seam.

    The blurs and downsamplings of the tables are circular: the last column is beside the first one.
    The borders of a photograph do not fit together so, and restoring it as it is makes ringing
    along them. Here a margin is added in which the image mirrored at its end fades into the image
    mirrored at its beginning; cropping the restored image drops it again. (As the "smooth tiles" of
    Liu and Jia, ICIP 2008, with mirror images for their minimal surfaces.)

    Args:
        y: the observation.
        margin: pixels; at most the shorter side is added.

    Returns:
        (..., h + margin, w + margin), the image itself at the top left.
    """
    margin = min(margin, *y.shape[-2:])
    return _continued_right(_continued_right(y, margin).mT, margin).mT


def _continued_right(y: Tensor, margin: int) -> Tensor:
    after_end = y[..., y.shape[-1] - margin :].flip(-1)
    before_beginning = y[..., :margin].flip(-1)
    fade = (torch.arange(margin, dtype=y.dtype, device=y.device) + 0.5) / margin
    return torch.cat((y, after_end.lerp(before_beginning, fade)), dim=-1)
