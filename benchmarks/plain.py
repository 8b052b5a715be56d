"""What rglib is compared with, written as one would at first: PyTorch's defaults throughout.

`PlainDRUNet` is KAIR's network in float32 and PyTorch's layout, `descend` the loop of PnP-ReG's
script: Adam on the image with the rotating ensemble, and metrics of every iterate by scikit-image.
Both compute the same numbers as rglib, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor, nn
from torch.nn import functional

from rglib.core.algorithms import DIHEDRAL
from rglib.core.problems import Observation

Metric = Callable[[Tensor, Tensor], float]  # of an iterate and the ground truth, (1, 3, H, W)


class PlainDRUNet(nn.Module):
    """DRUNet with the weights of one of rglib's; sides must be multiples of 8."""

    def __init__(self, like: nn.Module) -> None:
        super().__init__()
        weights = {name: tensor.float() for name, tensor in like.state_dict().items()}
        self.blocks = sum(name.startswith("m_body.") for name in weights) // 2
        self.weights = nn.ParameterDict(
            {
                name.replace(".", "/"): nn.Parameter(tensor.detach().contiguous().clone())
                for name, tensor in weights.items()
            }
        )

    def forward(self, x: Tensor, sigma: float | None = None) -> Tensor:
        """(B, 3, H, W) -> the same shape; with sigma as P, without as G."""
        if sigma is not None:
            x = torch.cat((x, x.new_full((len(x), 1, *x.shape[-2:]), sigma)), dim=1)
        skips = [functional.conv2d(x, self._of("m_head"), padding=1)]
        for level in (1, 2, 3):
            x = self._residual(skips[-1], f"m_down{level}", first=0)
            skips.append(functional.conv2d(x, self._of(f"m_down{level}.{self.blocks}"), stride=2))
        x = self._residual(skips[-1], "m_body", first=0)
        for level in (3, 2, 1):
            x = functional.conv_transpose2d(x + skips.pop(), self._of(f"m_up{level}.0"), stride=2)
            x = self._residual(x, f"m_up{level}", first=1)
        return functional.conv2d(x + skips.pop(), self._of("m_tail"), padding=1)

    def _residual(self, x: Tensor, part: str, *, first: int) -> Tensor:
        for i in range(first, first + self.blocks):
            y = functional.relu(functional.conv2d(x, self._of(f"{part}.{i}.res.0"), padding=1))
            x = x + functional.conv2d(y, self._of(f"{part}.{i}.res.2"), padding=1)
        return x

    def _of(self, name: str) -> Tensor:
        weight: Tensor = self.weights[f"{name}.weight".replace(".", "/")]
        return weight


def psnr(x: Tensor, x_hat: Tensor) -> float:
    """PSNR in dB by scikit-image."""
    return float(peak_signal_noise_ratio(_array(x_hat), _array(x), data_range=1))


def ssim(x: Tensor, x_hat: Tensor) -> float:
    """SSIM by scikit-image, set to the window and constants of the released script."""
    return float(
        structural_similarity(
            _array(x_hat),
            _array(x),
            data_range=1,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def _array(x: Tensor) -> np.ndarray:
    return x[0].permute(1, 2, 0).double().cpu().numpy()


@torch.no_grad()
def descend(
    G: nn.Module,
    seen: Observation,
    *,
    lr: float,
    s: float,
    iterations: int,
    metrics: Sequence[Metric],
) -> tuple[Tensor, list[list[float]]]:
    """Adam on the image from x0: the last of so many iterates, and the metrics of each."""
    A, y, x_hat = seen.problem.A, seen.y, seen.x_hat
    x = nn.Parameter(seen.x0.clone())
    adam = torch.optim.Adam([x], lr=lr)
    curve = []
    for i in range(iterations):
        curve.append([metric(x, x_hat) for metric in metrics])
        if i == iterations - 1:
            break
        transform = DIHEDRAL[i % 8]
        x.grad = A.adjoint(A(x) - y) + s**2 * transform.inverse(G(transform(x)))
        adam.step()
    return x.detach(), curve
