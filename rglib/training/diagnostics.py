"""Is gradient descent with G stable? What to watch while G learns; a falling link proves nothing.

`rglib.core.spectrum` says what its numbers mean; the PSNR after gradient descent on validation
images is what counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rglib.core.algorithms import GradientDescent
from rglib.core.fixed_point import Adam
from rglib.core.metrics import psnr
from rglib.core.problems import Completion, Deblurring, Observation, SeededStep, observe
from rglib.core.spectrum import extreme_eigenvalues, rayleigh_quotient


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
