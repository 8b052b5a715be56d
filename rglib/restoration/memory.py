"""How large an image may be for the memory that is free, found out before the work or after it."""

from __future__ import annotations

import math
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch
from torch import nn

from rglib.core.networks import DRUNet

# bytes for a pixel of the result in float32, measured on a CPU with networks of width 16: of y, x,
# the operator and the solver, and of the network for each channel of its first width
OF_IMAGES = 320
OF_CHANNEL = 16
IN_PARTS = "cut it into parts"
SIGNS = ("can't allocate memory", "not enough memory", "bad_alloc", "emory allocation")


class TooLargeError(ValueError):
    """An image that the memory is too small for; the message names it and a size that fits."""


@contextmanager
def enough_for(path: Path, *, advice: str) -> Iterator[None]:
    """Turn what NumPy, Pillow and PyTorch raise without memory into one error with the file's name.

    ``advice`` is what can be done, for the message.

    Raises:
        TooLargeError: the memory was too small.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        known = MemoryError, torch.OutOfMemoryError
        if not (isinstance(error, known) or any(sign in str(error) for sign in SIGNS)):
            raise
        raise TooLargeError(f"the memory is too small for {path}: {advice}") from error


def check_memory(
    path: Path,
    size: torch.Size,
    network: nn.Module,
    device: torch.device,
    *,
    tile_above: int | None,
    advice: str,
) -> None:
    """Find out before the work whether the memory suffices to restore an image.

    Args:
        path: of the image, for the message.
        size: (..., H, W) of the result.
        network: G or P; of your own, what it needs is not known, and nothing is checked.
        device: where it computes.
        tile_above: pixels above which it is applied to parts.
        advice: what else can be done, for the message.

    Raises:
        TooLargeError: it does not.
    """
    height, width = size[-2:]
    pixels = height * width
    if fits(pixels, network, device, tile_above=tile_above) or not isinstance(network, DRUNet):
        return
    of_network = OF_CHANNEL * network.m_head.out_channels
    free = free_memory(device)
    most = free / (OF_IMAGES + of_network)
    if tile_above is not None:
        most = max(most, (free - of_network * tile_above) / OF_IMAGES)
    scale = math.sqrt(most / pixels)
    raise TooLargeError(
        f"the memory is too small for {path}: of the {width}x{height} pixels of its result about "
        f"{int(scale * width)}x{int(scale * height)} would fit into the {free / 2**30:.1f} GiB "
        f"that are free; {advice}"
    )


def fits(pixels: int, network: nn.Module, device: torch.device, *, tile_above: int | None) -> bool:
    """Whether the memory suffices for a result of so many pixels, as far as is known."""
    if not isinstance(network, DRUNet):
        return True
    at_once = pixels if tile_above is None else min(pixels, tile_above)
    of_network = OF_CHANNEL * network.m_head.out_channels
    return OF_IMAGES * pixels + of_network * at_once <= free_memory(device)


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device: on a CPU also by the limit of this process."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = psutil.virtual_memory().available + psutil.swap_memory().free
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        free = min(free, limit - psutil.Process().memory_info().vms)
    return max(int(free), 0)
