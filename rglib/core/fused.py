"""Convolutions on a CPU with what follows them done in the same pass over the image.

They save a seventh of a network's time. The operators are PyTorch's, and those that torch.compile
would take, with a C++ compiler and half a minute. They have no derivatives, and without inference
mode (`rglib.core.networks.InferenceOnly`) they would say that these are zero.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_CONVOLUTION: Any = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)  # only with oneDNN
_SAME_SIZE = ([1, 1], [1, 1], [1, 1], 1)  # of 3x3: padding, stride, dilation, groups


def possible(x: Tensor, weight: Tensor) -> bool:
    """Whether the convolution of x (B, C, H, W) may be done here: on a CPU, in inference mode."""
    return (
        _CONVOLUTION is not None
        and torch.is_inference_mode_enabled()
        and not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype == weight.dtype
    )


def conv3_relu(x: Tensor, weight: Tensor) -> Tensor:
    """ReLU(conv(x)), 3x3, padded by zeros."""
    y: Tensor = _CONVOLUTION(x, weight, None, *_SAME_SIZE, "relu", [], "")
    return y


def conv3_plus(x: Tensor, weight: Tensor, y: Tensor) -> Tensor:
    """conv(x) + y, 3x3, padded by zeros."""
    z: Tensor = _CONVOLUTION.binary(x, y, weight, None, *_SAME_SIZE, "add", 1.0, None, [], "")
    return z
