"""The noise level of a photograph that has none given: an estimate, and said to be one."""

from __future__ import annotations

from skimage.restoration import estimate_sigma
from torch import Tensor


def estimated_noise(y: Tensor) -> float:
    """The std of white noise in an image y (1, 3, H, W) on [0, 1], as scikit-image estimates it.

    From the median of the finest wavelet coefficients (Donoho and Johnstone, "Ideal spatial
    adaptation by wavelet shrinkage", 1994), averaged over the channels. What an image itself has of
    fine detail counts as noise: right to some per cent for a blurred image, up to 0.01 too much for
    a sharp one. Noise of a JPEG, which is not white, is underestimated.
    """
    image = y[0].permute(1, 2, 0).cpu().numpy()
    return float(estimate_sigma(image, channel_axis=-1, average_sigmas=True))
