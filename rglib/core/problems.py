"""Restoration problems: the twelve of the tables, and the distribution drawn from in training.

A *degradation* (Completion, Deblurring, SuperResolution) says how a kind of observation is made; a
`Problem` is one operator A with its noise level; an `Observation` is what a method is given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rglib import paper
from rglib.core.operators import BLUR_SIZE, Blur, Downsample, Mask, Operator
from rglib.core.units import on_unit_scale
from rglib.extensions import make

UNKNOWN_PIXEL = 0.5  # where completion starts from
CROP_MULTIPLE = {2: 32, 3: 3}  # ground-truth crop of the released scripts, by factor


class Randomness(Protocol):
    """A source of random numbers for masks and noise, float32 tensors, on the CPU or a device."""

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Independent U[0, 1)."""

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Independent standard Gaussians."""


class SeededImage:
    """NumPy's legacy generator, seeded anew for one image, as in the released test scripts."""

    def __init__(self, seed: int = 0) -> None:
        self._state = np.random.RandomState(seed)

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """U[0, 1) in C order, as numpy.random.uniform after numpy.random.seed."""
        return torch.from_numpy(self._state.uniform(size=tuple(shape))).float()

    def normal(self, shape: Sequence[int]) -> Tensor:
        """N(0, 1) in C order: (1, C, H, W) equals the scripts' CHW order."""
        return torch.from_numpy(self._state.normal(size=tuple(shape))).float()


class SeededStep:
    """PyTorch's generator, seeded by the run's seed and the step: resuming needs no state.

    What is of images, with a shape (B, ., ., .), is drawn on the device, by a generator of its own
    where that is a GPU. Anything else, such as what chooses the problem, is drawn on the CPU, where
    it can be looked at without waiting for the device. A GPU's numbers are others than the CPU's.
    """

    def __init__(self, seed: int, step: int, device: torch.device | str = "cpu") -> None:
        entropy = np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0]
        number = int(entropy >> np.uint64(1))
        self._of_step = torch.Generator().manual_seed(number)
        on_cpu = torch.device(device).type == "cpu"
        self._of_images = self._of_step if on_cpu else torch.Generator(device).manual_seed(number)

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """U[0, 1)."""
        generator = self._of(shape)
        return torch.rand(tuple(shape), generator=generator, device=generator.device)

    def normal(self, shape: Sequence[int]) -> Tensor:
        """N(0, 1)."""
        generator = self._of(shape)
        return torch.randn(tuple(shape), generator=generator, device=generator.device)

    def _of(self, shape: Sequence[int]) -> torch.Generator:
        return self._of_images if len(shape) == 4 else self._of_step


@dataclass(frozen=True)
class Problem:
    r"""Restore x from :math:`y = A x + n` with noise n of std sigma on [0, 1]."""

    A: Operator
    sigma: float


@dataclass(frozen=True)
class DataGradient:
    r""":math:`D(z) = A^\top(Az - y)`, eq. (13), for the observation y.

    The residual comes first: A^T then damps its rounding errors, half of those of A^T A z - A^T y,
    which Adam scales up to full steps where the gradient is small.
    """

    A: Operator
    y: Tensor

    def __call__(self, z: Tensor) -> Tensor:
        return self.A.adjoint(self.A(z) - self.y)

    def prox(self, u: Tensor, rho: float | Tensor) -> Tensor:
        """The x with x = u - D(x) / rho, as `Operator.prox`."""
        return self.A.prox(u, self.y, rho)

    def select(self, indices: Tensor) -> DataGradient:
        """D for the images at these indices of the batch."""
        return DataGradient(self.A.select(indices), self.y[indices])


@dataclass(frozen=True)
class SideBySide:
    """D of a batch whose images have an observation each, of whatever problems."""

    parts: tuple[DataGradient, ...]

    def __call__(self, z: Tensor) -> Tensor:
        return torch.cat([D(image) for D, image in zip(self.parts, z.split(1), strict=True)])

    def prox(self, u: Tensor, rho: Tensor) -> Tensor:
        """As `DataGradient.prox`, with rho (B, 1, 1, 1)."""
        images = zip(self.parts, u.split(1), rho.split(1), strict=True)
        return torch.cat([D.prox(image, weight) for D, image, weight in images])

    def select(self, indices: Tensor) -> SideBySide:
        """D for the images at these indices of the batch."""
        return SideBySide(tuple(self.parts[i] for i in indices.tolist()))


@dataclass(frozen=True)
class Observation:
    """A problem with its data: ground truth x_hat, observation y, start x0 (B, 3, ., .)."""

    problem: Problem
    x_hat: Tensor
    y: Tensor
    x0: Tensor

    def to(self, device: torch.device | str) -> Observation:
        """The same on another device."""
        problem = Problem(self.problem.A.to(device), self.problem.sigma)
        return Observation(problem, self.x_hat.to(device), self.y.to(device), self.x0.to(device))


class Degradation(Protocol):
    """How observations of one kind are made."""

    @property
    def task(self) -> str:
        """completion, deblurring or super_resolution: the schedule that PnP-ADMM has for it."""

    @property
    def sigma(self) -> float:
        """Noise std on [0, 1]."""

    @property
    def smallest(self) -> int:
        """The shortest side, after the crop, that it can be applied to."""

    def crop(self, x: Tensor) -> Tensor:
        """The part of the ground truth that the released scripts use."""

    def operator(self, shape: torch.Size, randomness: Randomness) -> Operator:
        """A for images of this shape (B, C, H, W)."""

    def start(self, y: Tensor, A: Operator, shape: torch.Size) -> Tensor:
        """The starting point x0 of the released scripts, of this shape."""


@dataclass(frozen=True)
class Completion:
    """A share ``keep`` of the pixels is known; shared: the same ones in the three channels."""

    keep: float
    sigma: float = 0.0
    shared: bool = True
    task: str = "completion"
    smallest: int = 1

    def crop(self, x: Tensor) -> Tensor:
        """All of the image."""
        return x

    def operator(self, shape: torch.Size, randomness: Randomness) -> Mask:
        """m = U(0, 1) > 1 - keep, one mask per image."""
        batch, channels, height, width = shape
        drawn = randomness.uniform((batch, 1 if self.shared else channels, height, width))
        return Mask((drawn > 1 - self.keep).float())

    def start(self, y: Tensor, A: Operator, shape: torch.Size) -> Tensor:
        """Y where known, 0.5 elsewhere."""
        known = A(torch.ones_like(y)).bool()
        return torch.where(known, y, UNKNOWN_PIXEL)


@dataclass(frozen=True)
class Deblurring:
    """Circular Gaussian blur of std sigma_b pixels."""

    sigma_b: float
    sigma: float
    task: str = "deblurring"
    smallest: int = BLUR_SIZE

    def crop(self, x: Tensor) -> Tensor:
        """Top-left, to multiples of 8."""
        return _crop_top_left(x, multiple=8)

    def operator(self, shape: torch.Size, randomness: Randomness) -> Operator:
        """The same blur for the whole batch."""
        return Blur.gaussian(self.sigma_b, height=shape[-2], width=shape[-1])

    def start(self, y: Tensor, A: Operator, shape: torch.Size) -> Tensor:
        """Y itself."""
        return y


@dataclass(frozen=True)
class SuperResolution:
    """Downsampling by a factor with a "bicubic" or "gaussian" kernel."""

    factor: int
    kernel: str
    sigma: float
    task: str = "super_resolution"
    smallest: int = 1

    def crop(self, x: Tensor) -> Tensor:
        """x2: centre, to multiples of 32. Otherwise top-left, to multiples of 3 or the factor."""
        multiple = CROP_MULTIPLE.get(self.factor, self.factor)
        return _crop_centre(x, multiple) if self.factor == 2 else _crop_top_left(x, multiple)

    def operator(self, shape: torch.Size, randomness: Randomness) -> Operator:
        """The same downsampling for the whole batch."""
        height, width = shape[-2:]
        return Downsample.by(self.factor, kernel=self.kernel, height=height, width=width)

    def start(self, y: Tensor, A: Operator, shape: torch.Size) -> Tensor:
        """Cubic resize (a = -0.75, half-pixel centres) of y clipped to [0, 1]; y for a factor 1."""
        if self.factor == 1:
            return y
        size = tuple(shape[-2:])
        return functional.interpolate(y.clamp(0, 1), size=size, mode="bicubic", align_corners=False)


@dataclass(frozen=True)
class KernelBlur:
    """Circular blur with a kernel of your own (odd, odd), centred on its middle tap."""

    kernel: Tensor
    sigma: float
    task: str = "deblurring"

    @property
    def smallest(self) -> int:
        """The kernel must fit."""
        return max(self.kernel.shape)

    def crop(self, x: Tensor) -> Tensor:
        """All of the image."""
        return x

    def operator(self, shape: torch.Size, randomness: Randomness) -> Blur:
        """The same blur for the whole batch."""
        return Blur.from_kernel(self.kernel, height=shape[-2], width=shape[-1])

    def start(self, y: Tensor, A: Operator, shape: torch.Size) -> Tensor:
        """Y itself."""
        return y


@dataclass(frozen=True)
class KnownPixels:
    """Completion with a mask of your own, (1, 1, H, W) of ones where pixels are known."""

    mask: Tensor
    sigma: float = 0.0
    task: str = "completion"
    smallest: int = 1

    def crop(self, x: Tensor) -> Tensor:
        """All of the image."""
        return x

    def operator(self, shape: torch.Size, randomness: Randomness) -> Mask:
        """The same mask for the whole batch."""
        return Mask(self.mask)

    def start(self, y: Tensor, A: Operator, shape: torch.Size) -> Tensor:
        """Y where known, 0.5 elsewhere."""
        return torch.where(self.mask.bool(), y, UNKNOWN_PIXEL)


PROBLEMS: dict[str, Degradation] = {
    "completion80": Completion(keep=0.2),
    "completion90": Completion(keep=0.1),
    "deblur_s1.6": Deblurring(sigma_b=1.6, sigma=0.01),
    "deblur_s2.0": Deblurring(sigma_b=2.0, sigma=0.01),
    **{
        f"sr{factor}_{kernel}_n{sigma:g}": SuperResolution(factor, kernel, sigma)
        for factor in (2, 3)
        for kernel in ("bicubic", "gaussian")
        for sigma in (0.0, 0.01)
    },
}


def observe(degradation: Degradation, x_hat: Tensor, randomness: Randomness) -> Observation:
    """Degrade images x_hat (B, 3, H, W) in [0, 1], cropped already; noise is never clipped.

    All of it is on the device of x_hat.
    """
    A = degradation.operator(x_hat.shape, randomness).to(x_hat.device)
    y = A(x_hat)
    if degradation.sigma:
        y = y + degradation.sigma * randomness.normal(y.shape).to(y.device)
    x0 = degradation.start(y, A, x_hat.shape)
    return Observation(Problem(A, degradation.sigma), x_hat, y, x0)


def observe_image(degradation: Degradation, image: Tensor, *, seed: int = 0) -> Observation:
    """The observation of one image (1, 3, H, W) at test time, cropped as the degradation says."""
    return observe(degradation, degradation.crop(image), SeededImage(seed))


def observe_test_image(problem_id: str, image: Tensor, *, seed: int = 0) -> Observation:
    """The observation of one image (1, 3, H, W) for one of the twelve problems."""
    return observe_image(PROBLEMS[problem_id], image, seed=seed)


def degradations(problems: Mapping[str, Mapping[str, Any]]) -> dict[str, Degradation]:
    """The degradations of problems by id, from their entries in the configuration.

    An entry with ``degradation`` is of your own, made with its ``options``; the others are the
    paper's.

    Raises:
        ExtensionError: yours cannot be made.
    """
    return {
        problem_id: make(entry["degradation"], entry.get("options", {}), given={})
        if "degradation" in entry
        else PROBLEMS[problem_id]
        for problem_id, entry in problems.items()
    }


@dataclass(frozen=True)
class TrainingDistribution:
    """The degradations trained on, a third each; one (A, sigma) per batch.

    Gaussian deblurring with sigma_b ~ U[0, 4], super-resolution by 1, 2 or 4 (bicubic), completion
    with a share U[0, 0.99] of the pixels dropped; noise std ~ U[sigma_min, sigma_max], or with a
    uniform logarithm. With several kernels each pair of a kernel and a factor is as likely as
    another.

    Raises:
        ValueError: sigma_min exceeds sigma_max, or is 0 where the logarithm is drawn.
    """

    sigma_max: float = paper.NOISE_MAX
    sigma_min: float = 0.0
    noise: Literal["uniform", "log_uniform"] = "uniform"
    sigma_b_max: float = 4.0
    factors: tuple[int, ...] = (1, 2, 4)
    kernels: tuple[str, ...] = ("bicubic",)
    drop_max: float = 0.99
    shared_masks: bool = True

    def __post_init__(self) -> None:
        lowest = 0.0 if self.noise == "uniform" else math.ulp(0.0)
        if not lowest <= self.sigma_min <= self.sigma_max:
            raise ValueError(
                f"sigma_min must be at most sigma_max, {self.sigma_max:g}, and over 0 with "
                f"log_uniform noise; got {self.sigma_min:g}"
            )

    @staticmethod
    def of(training_problems: Mapping[str, Any]) -> TrainingDistribution:
        """From the section ``training_problems`` of the configuration."""
        section = on_unit_scale(training_problems)
        return TrainingDistribution(
            sigma_max=section["sigma_max"],
            sigma_min=section["sigma_min"],
            noise=section["noise"],
            sigma_b_max=section["sigma_b_max"],
            factors=tuple(section["factors"]),
            kernels=tuple(section["kernels"]),
            drop_max=section["drop_max"],
            shared_masks=section["shared_masks"],
        )

    def draw(self, randomness: Randomness) -> Degradation:
        """One degradation."""
        kind, level, noise = randomness.uniform((3,)).tolist()
        sigma = self._sigma(noise)
        if kind < 1 / 3:
            return Deblurring(sigma_b=self.sigma_b_max * level, sigma=sigma)
        if kind < 2 / 3:
            pairs = list(product(self.kernels, self.factors))
            kernel, factor = pairs[int(level * len(pairs))]
            return SuperResolution(factor, kernel, sigma)
        return Completion(keep=1 - self.drop_max * level, sigma=sigma, shared=self.shared_masks)

    def _sigma(self, u: float) -> float:
        if self.noise == "log_uniform":
            return self.sigma_min * math.exp(u * math.log(self.sigma_max / self.sigma_min))
        return self.sigma_min + (self.sigma_max - self.sigma_min) * u


def _crop_top_left(x: Tensor, multiple: int) -> Tensor:
    height, width = x.shape[-2:]
    return x[..., : height - height % multiple, : width - width % multiple]


def _crop_centre(x: Tensor, multiple: int) -> Tensor:
    # half a pixel goes to the even side, as Pillow's crop in the released scripts has it
    top, left = (round(side % multiple / 2) for side in x.shape[-2:])
    return _crop_top_left(x[..., top:, left:], multiple)
