"""The degradation operators A of the paper: Identity, Mask, Blur and Downsample.

Every operator is immutable, acts on float images (B, C, H, W) channel by channel and offers

* ``A(x)`` and ``A.adjoint(y)`` with <Ax, y> = <x, A^T y>,
* ``A.prox(u, y, rho)`` = argmin_v 1/2 ||Av - y||^2 + rho/2 ||v - u||^2, exactly,
* ``A.squared_norm`` = ||A||^2, the largest eigenvalue of A^T A,
* ``A.select(indices)``: the same operator for some images of the batch,
* ``A.to(device)``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from rglib.core.devices import sent

BLUR_SIZE = 25  # taps per side of the sampled Gaussian blur
NO_BLUR_BELOW = 0.1  # a Gaussian narrower than this (in pixels) is the identity on the pixel grid


class Operator(ABC):
    """A linear degradation A."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """A x, of an image x (B, C, H, W)."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y, of an observation y."""

    @abstractmethod
    def prox(self, u: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        """argmin_v 1/2 ||Av - y||^2 + rho/2 ||v - u||^2 for u (B, C, H, W) and rho > 0.

        rho is one for all images, or (B, 1, 1, 1).

        Written as u + A^T (A A^T + rho I)^-1 (y - A u): unlike (A^T A + rho I)^-1 (A^T y + rho u)
        this never divides the null space of A by a small rho. A^T (A A^T + rho I)^-1 is one map, of
        norm at most 1 / (2 sqrt(rho)): the inverse alone, of norm 1 / rho, would drown the rest in
        rounding errors of float32.
        """

    @property
    @abstractmethod
    def squared_norm(self) -> float:
        """||A||^2."""

    def select(self, indices: Tensor) -> Operator:
        """The operator for the images at these indices of the batch."""
        return self

    @abstractmethod
    def to(self, device: torch.device | str) -> Operator:
        """The same operator on another device."""


@dataclass(frozen=True)
class Identity(Operator):
    """A = I: plain denoising, and super-resolution by a factor of 1."""

    def __call__(self, x: Tensor) -> Tensor:
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        return y

    def prox(self, u: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        return u + (y - u) / (1 + rho)

    @property
    def squared_norm(self) -> float:
        return 1.0

    def to(self, device: torch.device | str) -> Identity:
        return self


@dataclass(frozen=True)
class Mask(Operator):
    """Completion: A x = m x with a mask m of zeros and ones, (B or 1, 1 or C, H, W)."""

    mask: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return self.mask * x

    def adjoint(self, y: Tensor) -> Tensor:
        return self.mask * y

    def prox(self, u: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        return u + self.mask * (y - u) / (1 + rho)

    @property
    def squared_norm(self) -> float:
        return float(self.mask.max())

    def select(self, indices: Tensor) -> Mask:
        return self if len(self.mask) == 1 else Mask(self.mask[indices])

    def to(self, device: torch.device | str) -> Mask:
        return Mask(sent(self.mask, device))


@dataclass(frozen=True)
class Blur(Operator):
    """Circular convolution, by the transfer function otf (H, W // 2 + 1), complex."""

    otf: Tensor
    width: int

    @staticmethod
    def from_kernel(kernel: Tensor, *, height: int, width: int) -> Blur:
        """Blur with a kernel (odd, odd) centred on its middle tap.

        Raises:
            ValueError: the kernel's sides are even, or it is larger than the image.
        """
        kh, kw = kernel.shape
        if kh % 2 == 0 or kw % 2 == 0:
            raise ValueError(f"a blur kernel needs odd sides, got {kh}x{kw}")
        if kh > height or kw > width:
            raise ValueError(f"a {kh}x{kw} blur kernel does not fit an image of {height}x{width}")
        canvas = torch.zeros(height, width, dtype=torch.float64)
        canvas[:kh, :kw] = kernel.double()
        centred = canvas.roll((-(kh // 2), -(kw // 2)), dims=(0, 1))
        return Blur(torch.fft.rfft2(centred).to(torch.complex64), width)

    @staticmethod
    def gaussian(sigma_b: float, *, height: int, width: int) -> Operator:
        """Gaussian blur of std sigma_b pixels, 25x25 taps that sum to 1, circular boundary."""
        if sigma_b < NO_BLUR_BELOW:
            return Identity()
        kernel = gaussian_kernel(sigma_b, size=BLUR_SIZE)
        return Blur.from_kernel(kernel, height=height, width=width)

    def __call__(self, x: Tensor) -> Tensor:
        return self._filter(x, self.otf)

    def adjoint(self, y: Tensor) -> Tensor:
        return self._filter(y, self.otf.conj())

    def prox(self, u: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        return u + self._filter(y - self(u), self.otf.conj() / (self._power + rho))

    @property
    def squared_norm(self) -> float:
        return float(self._power.max())

    def to(self, device: torch.device | str) -> Blur:
        return Blur(sent(self.otf, device), self.width)

    @cached_property
    def _power(self) -> Tensor:
        return self.otf.abs().square()

    def _filter(self, x: Tensor, response: Tensor) -> Tensor:
        size = (response.shape[-2], self.width)
        filtered: Tensor = torch.fft.irfft2(torch.fft.rfft2(x) * response, s=size)
        return filtered


@dataclass(frozen=True, eq=False)
class Downsample(Operator):
    """Separable circular filter and stride: A x = R x C^T, rows R (h, H) and columns C (w, W).

    With the two factors as matrices every size works, divisible by the factor or not, and the exact
    prox follows from their singular value decompositions.
    """

    rows: Tensor
    columns: Tensor

    @staticmethod
    def by(factor: int, *, kernel: str, height: int, width: int) -> Operator:
        """Downsampling by an integer factor with the "bicubic" or "gaussian" kernel.

        Raises:
            ValueError: factor < 1, or an unknown kernel.
        """
        if factor < 1:
            raise ValueError(f"the super-resolution factor must be at least 1, got {factor}")
        return _downsample(factor, kernel, height, width)

    def __call__(self, x: Tensor) -> Tensor:
        return self.rows @ x @ self.columns.T

    def adjoint(self, y: Tensor) -> Tensor:
        return self.rows.T @ y @ self.columns

    def prox(self, u: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        (U, s, W), (V, t, Z) = self._svd
        values = s[:, None] * t
        return u + W @ ((U.T @ (y - self(u)) @ V) * (values / (values.square() + rho))) @ Z.T

    @property
    def squared_norm(self) -> float:
        return math.prod(float(values.max()) ** 2 for _, values, _ in self._svd)

    def to(self, device: torch.device | str) -> Downsample:
        return self if self.rows.device == torch.device(device) else _on(self, str(device))

    @cached_property
    def _svd(self) -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
        return tuple(_svd(matrix) for matrix in (self.rows, self.columns))


# Training draws the same few again and again, and each is decomposed once on each device.
@lru_cache(maxsize=64)
def _downsample(factor: int, kernel: str, height: int, width: int) -> Operator:
    taps, first = downsampling_taps(factor, kernel=kernel)
    if factor == 1:
        return Identity()
    matrices = (strided_filter(taps, first, stride=factor, size=n) for n in (height, width))
    return Downsample(*matrices)


@lru_cache(maxsize=64)
def _on(operator: Downsample, device: str) -> Downsample:
    moved = Downsample(sent(operator.rows, device), sent(operator.columns, device))
    # sent along: a GPU would be waited for to find it
    vars(moved)["_svd"] = tuple(tuple(sent(t, device) for t in svd) for svd in operator._svd)
    return moved


def _svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U, s and W with M = U diag(s) W^T, found in float64."""
    U, s, Wh = torch.linalg.svd(matrix.double(), full_matrices=False)
    return U.to(matrix.dtype), s.to(matrix.dtype), Wh.T.contiguous().to(matrix.dtype)


def gaussian_kernel(sigma_b: float, *, size: int) -> Tensor:
    """Sampled 2-D Gaussian of std sigma_b pixels, (size, size), float64, sum 1; size is odd."""
    offsets = torch.arange(size, dtype=torch.float64) - size // 2
    profile = torch.exp(-0.5 * (offsets / sigma_b).square())
    kernel = profile[:, None] * profile
    return kernel / kernel.sum()


def keys_cubic(x: float, *, a: float = -0.75) -> float:
    """Keys' cubic convolution kernel h(x), zero for \\|x\\| >= 2; a = -0.75 as in OpenCV."""
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    if x < 2:
        return a * (x**3 - 5 * x**2 + 8 * x - 4)
    return 0.0


def gaussian_profile(x: float, *, sigma_b: float = 0.5) -> float:
    """exp(-x^2 / (2 sigma_b^2)) with x and sigma_b in low-resolution pixels."""
    return math.exp(-0.5 * (x / sigma_b) ** 2)


DOWNSAMPLING_KERNELS: dict[str, Callable[[float], float]] = {
    "bicubic": keys_cubic,
    "gaussian": gaussian_profile,
}


def downsampling_taps(factor: int, *, kernel: str) -> tuple[Tensor, int]:
    """Taps k_j ~ h(x / f), float64, sum 1, and the offset of the first one.

    out[i] = sum_j k_j x[f i + first + j]; the kernel is centred on (f - 1) / 2 and zero for a
    distance of 2 f or more.

    Raises:
        ValueError: an unknown kernel.
    """
    if kernel not in DOWNSAMPLING_KERNELS:
        allowed = ", ".join(DOWNSAMPLING_KERNELS)
        raise ValueError(f"unknown downsampling kernel {kernel!r}; allowed: {allowed}")
    centre = (factor - 1) / 2
    first = math.floor(centre - 2 * factor) + 1
    last = math.ceil(centre + 2 * factor) - 1
    profile = DOWNSAMPLING_KERNELS[kernel]
    taps = [profile((offset - centre) / factor) for offset in range(first, last + 1)]
    weights = torch.tensor(taps, dtype=torch.float64)
    return weights / weights.sum(), first


def strided_filter(taps: Tensor, first: int, *, stride: int, size: int) -> Tensor:
    """Circular filter and stride as a matrix (ceil(size / stride), size), float32."""
    starts = torch.arange(0, size, stride)
    positions = starts[:, None] + first + torch.arange(len(taps))
    matrix = torch.zeros(len(starts), size, dtype=torch.float64)
    # scatter_add_, not assignment: on a small image a kernel wraps onto itself
    matrix.scatter_add_(1, positions % size, taps.expand(len(starts), -1).contiguous())
    return matrix.float()
