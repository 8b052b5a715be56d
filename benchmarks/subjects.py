"""What is measured: networks of two sizes, a photograph and random crops of it."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from skimage import data
from torch import Tensor

from rglib.core.networks import DRUNet, build, for_inference, load_into
from rglib.core.tensors import to_tensor
from rglib.records.provenance import PAPER_NETWORK, NetworkSize
from rglib.restoration.weights_folder import Models

METHODS = {"P": "mtdeq", "G": "rerg"}  # whose shipped networks are used, where they are of the size
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Setup:
    """How to measure.

    Attributes:
        device: where.
        rounds: in each of which all that is compared is timed once.
        least: seconds that each timing takes at least.
        quick: small sizes and few iterations, to see that everything runs.
    """

    device: torch.device
    rounds: int
    least: float
    quick: bool

    @property
    def networks(self) -> tuple[NetworkSize, ...]:
        """The sizes: the paper's and the embedded default's."""
        return (shipped_size(),) if self.quick else (PAPER_NETWORK, shipped_size())

    @property
    def networks_in_all_precisions(self) -> list[tuple[NetworkSize, str]]:
        """Each size with each number format."""
        return [(size, precision) for size in self.networks for precision in PRECISIONS]


@functools.cache
def shipped_size() -> NetworkSize:
    """The size of the networks that come with rglib, the embedded default's."""
    size = Models.open().card(METHODS["G"]).network
    return NetworkSize(widths=tuple(size["widths"]), blocks=size["blocks"])


def network(role: str, size: NetworkSize, precision: str, device: torch.device) -> DRUNet:
    """A P or G to be trained: the shipped weights where they fit, else PyTorch's random ones."""
    torch.manual_seed(0)
    made = build(role, widths=size.widths, blocks=size.blocks, arithmetic=PRECISIONS[precision])
    assert isinstance(made, DRUNet)
    if size == shipped_size():
        load_into(made, Models.open().weights(METHODS[role]))
    return made.to(device)


def frozen(role: str, size: NetworkSize, precision: str, device: torch.device) -> DRUNet:
    """The same as it is used in tests and in evaluation."""
    made = network(role, size, precision, device)
    for_inference(made, device)  # in place
    return made


@functools.cache
def photograph() -> np.ndarray:
    """The astronaut of scikit-image, uint8 (512, 512, 3)."""
    image: np.ndarray = data.astronaut()
    return image


def middle(side: int) -> Tensor:
    """The middle of the photograph, (1, 3, side, side) in [0, 1]."""
    first = (len(photograph()) - side) // 2
    return to_tensor(photograph()[first : first + side, first : first + side].copy())


@dataclass(frozen=True)
class PhotographCrops:
    """Random crops of the photograph, as a function of the step."""

    batch: int
    crop: int

    def crops(self, step: int) -> np.ndarray:
        """uint8 (batch, 3, crop, crop)."""
        image, rng = photograph().transpose(2, 0, 1), np.random.default_rng(step)
        corners = rng.integers(
            0, np.array(image.shape[1:]) - self.crop, (self.batch, 2), endpoint=True
        )
        return np.stack([image[:, y : y + self.crop, x : x + self.crop] for y, x in corners])


@dataclass(frozen=True)
class Case:
    """A batch of square crops of the photograph."""

    batch: int
    side: int

    @property
    def pixels(self) -> int:
        """Of all its images."""
        return self.batch * self.side**2

    def images(self) -> Tensor:
        """Random crops, (batch, 3, side, side) in [0, 1]."""
        return torch.from_numpy(PhotographCrops(self.batch, self.side).crops(0)).float() / 255

    def __str__(self) -> str:
        return f"{self.batch} x {self.side}x{self.side}"
