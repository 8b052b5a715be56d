"""The Jacobian of a map without ever writing it down: what says whether iterations settle.

* the Rayleigh quotient of G along white noise, <G(x + n) - G(x), n> / ||n||^2, is to be positive;
* a negative eigenvalue of G's symmetrised Jacobian means that gradient descent leaves;
* the Lipschitz constant of g says whether g is a contraction.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rglib.core.maps import Gradient


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
