"""PSNR and SSIM as the released scripts compute them: float, no clamp, no rounding, no border."""

from __future__ import annotations

import torch
from torch import Tensor

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
    product, squares = mean_x * mean_y, mean_x**2 + mean_y**2
    covariance = _window(x * x_hat) - product
    variances = _window(x * x + x_hat * x_hat) - squares  # their sum is all that is asked for
    luminance = (2 * product + SSIM_C1) / (squares + SSIM_C1)
    structure = (2 * covariance + SSIM_C2) / (variances + SSIM_C2)
    return (luminance * structure).flatten(1).mean(dim=1)


def _window(x: Tensor) -> Tensor:
    """Local Gaussian means over the valid area, channel by channel.

    As sums of shifted images, since PyTorch's convolutions of float64 are five times as slow.
    """
    offsets = torch.arange(SSIM_WINDOW, dtype=x.dtype) - SSIM_WINDOW // 2
    profile = torch.exp(-0.5 * (offsets / SSIM_STD).square())
    first, *rest = (profile / profile.sum()).tolist()
    for dim in (-2, -1):
        length = x.shape[dim] - SSIM_WINDOW + 1
        mean = first * x.narrow(dim, 0, length)
        for shift, weight in enumerate(rest, start=1):
            mean.add_(x.narrow(dim, shift, length), alpha=weight)
        x = mean
    return x
