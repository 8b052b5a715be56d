"""What the kit computes on: a small image of its own, thirteen degradations, two tiny networks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from rglib.core.networks import build
from rglib.core.problems import PROBLEMS, Degradation, KernelBlur

HEIGHT, WIDTH = 34, 37  # no multiple of 2, 3, 8 or 16 on both sides: every crop and padding shows
WIDTHS, BLOCKS = (2, 2, 3, 3), 2  # of the DRUNets; with one block KAIR's has another name for it

# Those of the kit, the same for every case; the tables' settings are another matter.
S = 0.2  # G has the weight s^2; the tables' s would make it too small to be seen beside D
LR, STEPS = 0.01, 20  # of Adam on the image
RHO = 0.01  # of the prox

LOPSIDED = "deblur_lopsided"


@dataclass(frozen=True)
class Case:
    """One degradation of the kit, as an adapter is told of it.

    Attributes:
        name: the problem's id in the tables, or `LOPSIDED`.
        task: completion, deblurring or super_resolution.
        sigma: noise std on [0, 1].
        s: the weight of G is s^2; the kit's own, whatever sigma.
        factor: of super-resolution, else 1.
        height: of the image after the crop.
        width: likewise.
        mask: of completion, (1, 1, H, W) of ones where pixels are known; else None.
        kernel: of deblurring, (h, w), centred on its middle tap, a convolution; of
            super-resolution the taps (n,) with out[i] = sum_j k_j x[factor i + first + j] along
            both axes; else None.
        first: of super-resolution, the offset of the first tap; else 0.
    """

    name: str
    task: str
    sigma: float
    s: float
    factor: int
    height: int
    width: int
    mask: Tensor | None
    kernel: Tensor | None
    first: int


def lopsided_kernel() -> Tensor:
    """A blur kernel (5, 7) without any symmetry, sum 1, float64: the paper's are symmetric.

    A code that correlates instead of convolving shows with this one alone.
    """
    i, j = torch.meshgrid(torch.arange(5.0), torch.arange(7.0), indexing="ij")
    kernel = ((3 * i + 5 * j + i * j) % 7 + 1).double() / (1 + i + 2 * j)
    return kernel / kernel.sum()


DEGRADATIONS: dict[str, Degradation] = {
    **PROBLEMS,
    LOPSIDED: KernelBlur(lopsided_kernel(), sigma=0.01),
}


def drawn_image() -> Tensor:
    """The image of the kit, (1, 3, 34, 37) of multiples of 1/255: waves, a disc and an edge."""
    i, j = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    disc = (i - 14) ** 2 + (j - 22) ** 2 < 64
    channels = []
    for k in range(3):
        waves = 120 + 70 * np.sin(i / (3 + k) + j / (5 - k)) + 2 * j
        channels.append(np.where(disc, 230 - 60 * k, np.where(i + 2 * j < 24, 40 + 50 * k, waves)))
    levels = np.stack(channels).round().clip(0, 255)
    return torch.from_numpy(levels[None] / 255).float()


def drawn_weights(role: str) -> dict[str, Tensor]:
    """Weights of the kit's P or G, from NumPy's legacy generator: the same on every machine."""
    state = np.random.RandomState({"P": 1, "G": 2}[role])
    network = build(role, widths=WIDTHS, blocks=BLOCKS)
    weights = {}
    for name, weight in network.state_dict().items():
        fan_in = weight[0].numel()
        drawn = state.normal(size=tuple(weight.shape)) / np.sqrt(fan_in)
        weights[name] = torch.from_numpy(drawn).float()
    return weights


def network_of(role: str, weights: dict[str, Tensor]) -> nn.Module:
    """The kit's P or G, with these weights."""
    network = build(role, widths=WIDTHS, blocks=BLOCKS)
    network.load_state_dict(weights)
    return network
