"""Images as tensors, and parts of them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_tensor(image: np.ndarray) -> Tensor:
    """Turn uint8 (H, W, 3) on 0..255 into float32 (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(image).permute(2, 0, 1)[None].contiguous().float() / 255


def to_uint8(image: Tensor) -> np.ndarray:
    """Turn a float tensor (1, 3, H, W), clamped to [0, 1] and rounded, into uint8 (H, W, 3).

    Raises ValueError for another shape and for values that are not finite.
    """
    if image.ndim != 4 or image.shape[:2] != (1, 3):
        raise ValueError(f"expected an image of shape (1, 3, H, W), got {tuple(image.shape)}")
    if not image.isfinite().all():
        raise ValueError("the image has values that are not finite")
    levels = image[0].detach().float().clamp(0, 1).mul(255).round()
    return levels.permute(1, 2, 0).byte().cpu().numpy()


def centre(x: Tensor, size: int) -> Tensor:
    """The square of ``size`` pixels in the middle of x (B, 3, H, W), or all of a shorter side."""
    top, left = (max(0, side - size) // 2 for side in x.shape[-2:])
    return x[..., top : top + size, left : left + size]
