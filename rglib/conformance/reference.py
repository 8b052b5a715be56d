"""The protocol by rglib itself, as an adapter: it fills the kit, and has every method of one.

Any class with some of these methods is an adapter. Images are float32 tensors (1, 3, H, W),
nominally on [0, 1]; what an adapter returns may also be a NumPy array or a number.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rglib.conformance.cases import DEGRADATIONS, Case, network_of
from rglib.core import metrics
from rglib.core.algorithms import GradientDescent
from rglib.core.fixed_point import Adam
from rglib.core.maps import (
    Denoiser,
    ForwardBackward,
    Gradient,
    GradientStep,
    RegularizedGradient,
    link_residual,
)
from rglib.core.operators import BLUR_SIZE, Mask, Operator, downsampling_taps, gaussian_kernel
from rglib.core.problems import (
    DataGradient,
    Deblurring,
    KernelBlur,
    Observation,
    Problem,
    SeededImage,
    SuperResolution,
    observe,
)
from rglib.training.objectives.losses import mean_square


class Reference:
    """The twelve problems, the maps, the losses and the metrics as rglib computes them."""

    def crop(self, case: Case, image: Tensor) -> Tensor:
        """The part of the image that the problem is posed on."""
        return DEGRADATIONS[case.name].crop(image)

    def mask(self, case: Case) -> Tensor:
        """Of completion, (1, 1, H, W): 1 where U(0, 1), drawn with seed 0, is over 1 - keep."""
        operator = self._operator(case)
        assert isinstance(operator, Mask)
        return operator.mask

    def kernel(self, case: Case) -> Tensor:
        """Of deblurring (h, w), of super-resolution the taps (n,), see `Case`."""
        degradation = DEGRADATIONS[case.name]
        if isinstance(degradation, SuperResolution):
            return downsampling_taps(degradation.factor, kernel=degradation.kernel)[0]
        if isinstance(degradation, Deblurring):
            return gaussian_kernel(degradation.sigma_b, size=BLUR_SIZE)
        assert isinstance(degradation, KernelBlur)  # completion has no kernel
        return degradation.kernel

    def forward(self, case: Case, x: Tensor) -> Tensor:
        """A x."""
        return self._operator(case)(x)

    def adjoint(self, case: Case, y: Tensor) -> Tensor:
        """A^T y."""
        return self._operator(case).adjoint(y)

    def observe(self, case: Case, x_hat: Tensor) -> Tensor:
        """Y = A x_hat + noise, mask and noise drawn with seed 0, neither clipped nor rounded."""
        return observe(DEGRADATIONS[case.name], x_hat, SeededImage(0)).y

    def start(self, case: Case, y: Tensor) -> Tensor:
        """x0, where the iterations start."""
        shape = torch.Size((1, 3, case.height, case.width))
        return DEGRADATIONS[case.name].start(y, self._operator(case), shape)

    def data_gradient(self, case: Case, x: Tensor, y: Tensor) -> Tensor:
        """D(x) = A^T (A x - y), eq. (13)."""
        return DataGradient(self._operator(case), y)(x)

    def prox(self, case: Case, u: Tensor, y: Tensor, rho: float) -> Tensor:
        """argmin_v 1/2 ||A v - y||^2 + rho/2 ||v - u||^2."""
        return self._operator(case).prox(u, y, rho)

    def proximal_operator(self, weights: dict[str, Tensor], z: Tensor, sigma: float) -> Tensor:
        """P(z, sigma): a DRUNet of widths 2-2-3-3 and one block, with KAIR's names of weights."""
        p: Tensor = network_of("P", weights)(z, sigma)
        return p

    def regularizing_gradient(self, weights: dict[str, Tensor], x: Tensor) -> Tensor:
        """G(x), likewise."""
        g: Tensor = network_of("G", weights)(x)
        return g

    def forward_backward(self, case: Case, P: Denoiser, x: Tensor, y: Tensor, eta: float) -> Tensor:
        """f(x) = P(x - eta D(x), sqrt(eta) s), eq. (12)."""
        return self._f(case, P, y, eta)(x)

    def gradient_step(self, case: Case, G: Gradient, x: Tensor, y: Tensor, eta: float) -> Tensor:
        """g(x) = x - eta (D(x) + s^2 G(x)), eq. (14)."""
        return self._g(case, G, y, eta)(x)

    def descend(
        self, case: Case, G: Gradient, x0: Tensor, y: Tensor, lr: float, steps: int
    ) -> Tensor:
        """The iterates (steps, 3, H, W) after x0 of Adam along D + s^2 T^-1 G(T x).

        T is number i % 8 of the eight transforms at step i, from 0.
        """
        method = GradientDescent(G, solver=Adam(lr), s=case.s, iterations=steps + 1)
        shown: list[Tensor] = []
        problem = Problem(self._operator(case), case.sigma)
        method.restore(Observation(problem, x0, y, x0), shown.append)
        return torch.cat(shown[1:])

    def psnr(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """DB, over channels and pixels, neither clamped nor rounded, peak value 1."""
        return metrics.psnr(x, x_hat)

    def ssim(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """Mean over the channels; 11x11 Gaussian window of std 1.5, valid area."""
        return metrics.ssim(x, x_hat)

    def loss_link(
        self, case: Case, P: Denoiser, G: Gradient, x: Tensor, y: Tensor, eta: float
    ) -> Tensor:
        """L_link, eq. (7), of z = x - eta D(x) with variance eta s^2: a mean, z a constant."""
        f = self._f(case, P, y, eta)
        z = f.forward_step(x).detach()
        p = f.prox(z)
        return mean_square(link_residual(G(p), z, p, variance=eta * case.s**2))

    def loss_fb(
        self, case: Case, P: Denoiser, x: Tensor, y: Tensor, x_hat: Tensor, eta: float
    ) -> Tensor:
        """L_FB, eq. (15): the mean of (f(x) - x_hat)^2, x a constant."""
        return mean_square(self.forward_backward(case, P, x, y, eta) - x_hat)

    def loss_gd(
        self, case: Case, G: Gradient, x: Tensor, y: Tensor, x_hat: Tensor, eta: float
    ) -> Tensor:
        """L_GD, eq. (16): the mean of (g(x) - x_hat)^2, x a constant."""
        return mean_square(self.gradient_step(case, G, x, y, eta) - x_hat)

    def _operator(self, case: Case) -> Operator:
        shape = torch.Size((1, 3, case.height, case.width))
        return DEGRADATIONS[case.name].operator(shape, SeededImage(0))

    def _f(self, case: Case, P: Denoiser, y: Tensor, eta: float) -> ForwardBackward:
        return ForwardBackward(P, DataGradient(self._operator(case), y), case.s, eta)

    def _g(self, case: Case, G: Gradient, y: Tensor, eta: float) -> GradientStep:
        D = DataGradient(self._operator(case), y)
        return GradientStep(RegularizedGradient(G, D, case.s), eta)
