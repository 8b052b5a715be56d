"""What takes the steps in training: Adam, and for the inner convolutions perhaps Muon.

`step_if` takes a step only if all is finite. On a GPU that is decided there: the host, which would
have to wait for the answer, goes on to the next update.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

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
        # on a GPU one kernel for all, which counts the steps there; on a CPU None is the default
        found["adam"] = torch.optim.Adam(rest, lr=lr, fused=rest[0].is_cuda or None)
    if muon is not None and inner:
        found["muon"] = Muon(inner, lr=muon)
    return found


@torch.no_grad()
def step_if(
    finite: Tensor,
    optimisers: Mapping[str, torch.optim.Optimizer],
    parameters: Sequence[Tensor],
    averaged: Sequence[Tensor],
    move: Callable[[], None],
    *,
    ask: bool,
) -> None:
    """Move, or leave the parameters, the optimisers' memory and ``averaged`` as they were.

    Args:
        finite: one bool, on the device of the parameters.
        optimisers: that ``move`` has take a step.
        parameters: that they teach; their gradients become zeros where the flag is not set.
        averaged: what else ``move`` changes.
        move: changes nothing else.
        ask: look at the flag first, which is right where a look is free; otherwise the move is made
            in any case, and taken back on the device.
    """
    if ask:
        if finite:
            move()
        return
    for parameter in parameters:
        if parameter.grad is not None:  # so that all that follows is finite
            parameter.grad = torch.where(finite, parameter.grad, 0.0)
    changed = [*(p.detach() for p in parameters), *averaged]
    remembered = _memory(optimisers)
    copies = [torch.empty_like(tensor) for tensor in (*changed, *remembered.values())]
    torch._foreach_copy_(copies, [*changed, *remembered.values()])
    move()
    began = [t for key, t in _memory(optimisers).items() if key not in remembered]
    now = [*changed, *_memory(optimisers, remembered).values(), *began]
    before = [*copies, *(torch.zeros_like(tensor) for tensor in began)]
    torch._foreach_mul_(now, finite.float())
    torch._foreach_mul_(before, 1 - finite.float())
    torch._foreach_add_(now, before)


Place = tuple[str, int, str]  # in the optimisers' memory: which one's, of which parameter, what


def _memory(
    optimisers: Mapping[str, torch.optim.Optimizer], places: Iterable[Place] | None = None
) -> dict[Place, Tensor]:
    """The tensors that optimisers remember, at all places or at some."""
    found = {
        (name, i, key): value
        for name, optimiser in optimisers.items()
        for i, p in enumerate(p for group in optimiser.param_groups for p in group["params"])
        for key, value in optimiser.state.get(p, {}).items()
        if isinstance(value, Tensor)
    }
    return found if places is None else {place: found[place] for place in places}


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
