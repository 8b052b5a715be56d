"""Crops cut on a GPU, from images that lie in its memory as bytes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from rglib.core.devices import sent
from rglib.data.images import CropSampler

SHARE = 0.25  # of a GPU's free memory, that the pixels of a store may take


@dataclass(frozen=True, eq=False)
class ResidentCrops:
    """The crops of a sampler, cut where all pixels of its store are.

    Attributes:
        sampler: which crops.
        pixels: those of its store, uint8 and flat, on the device.
    """

    sampler: CropSampler
    pixels: Tensor

    @staticmethod
    def on(device: torch.device, sampler: CropSampler) -> ResidentCrops:
        """Copy the store's pixels to the device."""
        return ResidentCrops(sampler, torch.from_numpy(np.array(sampler.store.pixels)).to(device))

    def crops(self, step: int) -> Tensor:
        """The crops of a step (from 0), uint8 (batch, 3, crop, crop), on the device."""
        images, corners = self.sampler.places(step)
        offsets, heights, widths = self._layout[images].T
        first = offsets + corners[:, 0] * widths + corners[:, 1]
        where = sent(torch.from_numpy(np.stack([first, heights * widths, widths])), self.device)
        first_pixel, plane, row = where.view(3, -1, 1, 1, 1)
        side = torch.arange(self.sampler.crop, device=self.device)
        channels = torch.arange(3, device=self.device).view(3, 1, 1)
        index = first_pixel + plane * channels + row * side.view(-1, 1) + side
        return self.pixels.take(index)

    @property
    def device(self) -> torch.device:
        """Where the pixels are."""
        return self.pixels.device

    @cached_property
    def _layout(self) -> np.ndarray:
        entries = self.sampler.store.entries
        return np.array([(e.offset, e.height, e.width) for e in entries], np.int64)


def cut_where_they_fit(sampler: CropSampler, device: torch.device) -> CropSampler | ResidentCrops:
    """The same crops, cut on a GPU if it has plenty of room for the store, else on the CPU."""
    if device.type != "cuda":
        return sampler
    free, _ = torch.cuda.mem_get_info(device)
    return (
        ResidentCrops.on(device, sampler) if sampler.store.pixels.size <= SHARE * free else sampler
    )
