"""PSNR and SSIM as the released scripts compute them: float, no clamp, no rounding, no border."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SSIM_WINDOW = 11
SSIM_STD = 1.5
SSIM_C1 = 0.01**2  # (0.01 * 255)^2 on the 255 scale
SSIM_C2 = 0.03**2


def psnr(x: Tensor, x_hat: Tensor) -> Tensor:
    """-10 log10 of the mean square error over channels and pixels, dB, (B,), peak value 1."""
    return -10 * torch.log10((x - x_hat).square().flatten(1).mean(dim=1))


def ssim(x: Tensor, x_hat: Tensor) -> Tensor:
    """Mean structural similarity (B,): 11x11 Gaussian window of std 1.5, valid area, float64.

    Raises:
        ValueError: a side is shorter than the window.
    """
    if min(x.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs images of at least 11x11 pixels, got {tuple(x.shape[-2:])}")
    x, x_hat = x.double(), x_hat.double()
    mean_x, mean_y = _window(x), _window(x_hat)
    var_x = _window(x * x) - mean_x**2
    var_y = _window(x_hat * x_hat) - mean_y**2
    covariance = _window(x * x_hat) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + SSIM_C1) / (mean_x**2 + mean_y**2 + SSIM_C1)
    structure = (2 * covariance + SSIM_C2) / (var_x + var_y + SSIM_C2)
    return (luminance * structure).flatten(1).mean(dim=1)


def _window(x: Tensor) -> Tensor:
    """Local Gaussian means over the valid area, channel by channel."""
    offsets = torch.arange(SSIM_WINDOW, dtype=x.dtype, device=x.device) - SSIM_WINDOW // 2
    profile = torch.exp(-0.5 * (offsets / SSIM_STD).square())
    profile = profile / profile.sum()
    planes = x.flatten(0, 1).unsqueeze(1)
    planes = functional.conv2d(planes, profile.view(1, 1, -1, 1))
    planes = functional.conv2d(planes, profile.view(1, 1, 1, -1))
    return planes.view(*x.shape[:2], *planes.shape[-2:])
