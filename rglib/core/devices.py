"""From the host to a device without waiting for what the device still does."""

from __future__ import annotations

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on a device; from the CPU to a GPU by pinned memory, which needs no wait."""
    if tensor.device.type == "cpu" and torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def device_named(name: str) -> torch.device:
    """The device for auto, cpu or cuda.

    Raises:
        ValueError: cuda is asked for and there is none.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ValueError("device: cuda is configured, but PyTorch sees no GPU; use auto or cpu")
    return torch.device("cuda" if available and name != "cpu" else "cpu")
