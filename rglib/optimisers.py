"""What takes the steps in training: Adam, and for the inner convolutions perhaps Muon."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

FEWEST_CHANNELS = 16  # in and out, of a convolution that Muon teaches


class Muon(torch.optim.Muon):
    """Muon for convolutions: a weight (out, in, k, k) is one matrix of out rows.

    Its step is the nearest orthogonal matrix to the momentum, times sqrt(max(1, rows / columns)):
    K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024. There is no
    weight decay. PyTorch's class takes matrices only, so it is given views of the weights.
    """

    def __init__(self, weights: Iterable[Tensor], *, lr: float) -> None:
        self._weights = list(weights)
        matrices = [_outputs_first(w.detach(), w).view(len(w), -1) for w in self._weights]
        super().__init__(matrices, lr=lr, weight_decay=0.0)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step along the gradients of the weights."""
        for weight, matrix in zip(self._weights, self.param_groups[0]["params"], strict=True):
            matrix.grad = None
            if weight.grad is not None:
                matrix.grad = _outputs_first(weight.grad, weight).reshape(matrix.shape)
        loss: float | None = super().step(closure)  # type: ignore[no-untyped-call]
        return loss


def optimisers(
    networks: Sequence[nn.Module], *, lr: float, muon: float | None
) -> dict[str, torch.optim.Optimizer]:
    """By name, with their learning rates: "adam" for what "muon" does not teach.

    Args:
        networks: whose parameters are taught.
        lr: Adam's learning rate.
        muon: the learning rate of `Muon` for every convolution of at least 16 channels in and out;
            None has Adam teach these too.
    """
    parameters = [p for network in networks for p in network.parameters()]
    inner = [] if muon is None else [p for network in networks for p in _inner(network)]
    ids = {id(p) for p in inner}
    rest = [p for p in parameters if id(p) not in ids]
    found: dict[str, torch.optim.Optimizer] = {}
    if rest:
        found["adam"] = torch.optim.Adam(rest, lr=lr)
    if muon is not None and inner:
        found["muon"] = Muon(inner, lr=muon)
    return found


def _inner(network: nn.Module) -> list[Tensor]:
    return [
        module.weight
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
        and min(module.in_channels, module.out_channels) >= FEWEST_CHANNELS
    ]


def _outputs_first(tensor: Tensor, weight: Tensor) -> Tensor:
    """A weight (out, in, k, k), or its gradient, in the order that the weight has in memory."""
    return tensor if weight.is_contiguous() else tensor.permute(0, 2, 3, 1)
