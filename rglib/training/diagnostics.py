"""Is gradient descent with G stable? What to watch while G learns; a falling link proves nothing.

* the Rayleigh quotient of G along white noise, <G(x + n) - G(x), n> / ||n||^2, is to be positive;
* a negative eigenvalue of G's symmetrised Jacobian means that gradient descent leaves;
* the PSNR after gradient descent on validation images is what counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rglib.core.algorithms import GradientDescent
from rglib.core.fixed_point import Adam
from rglib.core.maps import Gradient
from rglib.core.metrics import psnr
from rglib.core.problems import Completion, Deblurring, Observation, SeededStep, observe


def rayleigh_quotient(G: Gradient, x: Tensor, n: Tensor) -> float:
    """<G(x + n) - G(x), n> / ||n||^2 over a batch x (B, 3, H, W)."""
    with torch.no_grad():
        return ((G(x + n) - G(x)) * n).sum().item() / n.square().sum().item()


def extreme_eigenvalues(
    G: Gradient, x: Tensor, *, iterations: int = 20, seed: int = 0
) -> tuple[float, float]:
    """Extreme eigenvalues (lowest, highest) of (J + J^T) / 2, J the Jacobian of G at x.

    By power iteration, which converges from within: the true extremes are at least as far out.
    """
    start = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(x.device)

    def symmetrised(v: Tensor, shift: float) -> Tensor:
        forward = torch.func.jvp(G, (x,), (v,))[1]
        pull_back = torch.func.vjp(G, x)[1]
        product: Tensor = (forward + pull_back(v)[0]) / 2
        return product - shift * v

    def dominant(shift: float) -> float:
        v, value = start / start.norm(), 0.0
        for _ in range(iterations):
            image = symmetrised(v, shift)
            value = (image * v).sum().item()
            v = image / image.norm().clamp_min(1e-30)
        return value + shift

    first = dominant(0.0)
    second = dominant(first)  # shifted by the dominant one, the other end dominates
    return min(first, second), max(first, second)


def lipschitz(
    F: Callable[[Tensor], Tensor], x: Tensor, *, iterations: int = 40, seed: int = 0
) -> float:
    """Largest singular value of the Jacobian J of F at x (1, 3, H, W).

    This is the local Lipschitz constant, a lower bound of the global one; and as power iteration
    converges from within, it is itself estimated from below. A value >= 1 therefore proves that F
    is no contraction, a value < 1 does not prove that it is one.

    Power iteration on J^T J, with the best value over all of its iterates' span (Lanczos) instead
    of the last iterate's: the singular values of g crowd just under 1, where the last one alone
    would need thousands of steps.
    """
    pull_back = torch.func.vjp(F, x)[1]
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(x)
    basis = x.new_zeros(0, x.numel())
    images: list[Tensor] = []
    for _ in range(min(iterations, x.numel())):
        rounding = 10 * torch.finfo(v.dtype).eps * v.norm()
        for _ in range(2):  # twice, as rounding leaves a remainder
            v = v - (basis.T @ (basis @ v.flatten())).view_as(v)
        if v.norm() <= rounding:  # the span is invariant: nothing is left to find
            break
        v = v / v.norm()
        basis = torch.cat((basis, v.flatten()[None]))
        image = torch.func.jvp(F, (x,), (v,))[1]
        images.append(image.flatten())
        (v,) = pull_back(image)
    return float(torch.linalg.matrix_norm(torch.stack(images), 2))


@dataclass(frozen=True)
class Health:
    """A monitor for training: denoising PSNR of P, stability and restorations of G.

    Its pictures are of the first image: what the network is given, what it makes of it, and x_hat.

    Attributes:
        x_hat: validation images (B, 3, H, W) in [0, 1].
        sigma: noise std at which P is judged.
        steps: gradient-descent steps of the restorations.
    """

    x_hat: Tensor
    sigma: float = 25 / 255
    steps: int = 100

    def __call__(self, networks: Mapping[str, nn.Module]) -> dict[str, float | Tensor]:
        """Numbers, and pictures (3, H, 3 W) in [0, 1]; the networks are left as they were."""
        report: dict[str, float | Tensor] = {}
        if "P" in networks:
            report |= self._of_P(networks["P"])
        if "G" in networks:
            report |= self._of_G(networks["G"])
        return report

    def _of_P(self, P: nn.Module) -> dict[str, float | Tensor]:
        noise = SeededStep(0, 0).normal(self.x_hat.shape).to(self.x_hat.device)
        noisy = self.x_hat + self.sigma * noise
        with torch.no_grad():
            p = P(noisy, self.sigma)
        return {
            "psnr_denoised": psnr(p, self.x_hat).mean().item(),
            "denoised": _side_by_side(noisy, p, self.x_hat),
        }

    def _of_G(self, G: nn.Module) -> dict[str, float | Tensor]:
        n = SeededStep(0, 1).normal(self.x_hat.shape).to(self.x_hat.device) / 255
        lowest, highest = extreme_eigenvalues(G, self.x_hat[:2])
        report: dict[str, float | Tensor] = {
            "rayleigh_clean": rayleigh_quotient(G, self.x_hat, n),
            "rayleigh_noisy": rayleigh_quotient(G, self.x_hat + 10 * n, n),
            "eigenvalue_min": lowest,
            "eigenvalue_max": highest,
        }
        for name, seen, lr, s in self._restorations():
            method = GradientDescent(G, solver=Adam(lr), s=s, iterations=self.steps)
            x = method.restore(seen, lambda _: None)
            report[f"psnr_{name}"] = psnr(x, self.x_hat).mean().item()
            report[name] = _side_by_side(seen.x0, x, self.x_hat)
        return report

    def _restorations(self) -> list[tuple[str, Observation, float, float]]:
        completion = Completion(keep=0.2)
        blur = Deblurring(sigma_b=1.6, sigma=0.01)
        device = self.x_hat.device
        return [
            (name, observe(kind, self.x_hat.cpu(), SeededStep(0, 2)).to(device), lr, s)
            for name, kind, lr, s in (
                ("completed", completion, 0.01, 1 / 255),
                ("deblurred", blur, 0.004, 0.01),
            )
        ]


def _side_by_side(*images: Tensor) -> Tensor:
    """The first of each batch in one picture; what is not finite is black or white."""
    row = torch.cat([image[0].float() for image in images], dim=-1)
    return row.nan_to_num(nan=0.0).clamp(0, 1).cpu()
