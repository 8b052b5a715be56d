"""A DRUNet's forward pass and training step, as shares of the machine's convolution rate.

The *best convolution* is the plain 3x3 convolution, bias-free, channels-last and of the same number
format, with the highest rate in FLOP/s among those of every width of the networks at the size and
batch at which it occurs there (forward, with frozen weights). A share is the rate of the network
over that rate. FLOP are those of convolutions, counted by PyTorch; sums and ReLUs count as none.

Beside it, what its own convolutions allow: the time that they take one by one, each alone on
tensors of its own shape, over the time of the network. What is missing to 1 is everything else.

*Training step*: forward and backward of a mean square error, without an optimiser.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.subjects import PRECISIONS, Case, Setup, frozen, network
from benchmarks.table import Row
from benchmarks.timing import Measured, Value, Work, in_turns, rate, ratio, seconds
from rglib.core.networks import DRUNet, channels_last
from rglib.records.provenance import PAPER_NETWORK, NetworkSize

SECTION = "convolutions"
Layer = nn.Conv2d | nn.ConvTranspose2d
FORWARD, TRAINING, MATRIX = "forward", "training step", "matrix product"


def cases(size: NetworkSize, setup: Setup) -> dict[str, Case]:
    """What passes through a network of this size forward and in training."""
    if setup.quick:
        return {FORWARD: Case(1, 32), TRAINING: Case(2, 16)}
    if setup.device.type == "cuda":
        return {FORWARD: Case(8, 256), TRAINING: Case(16, 128)}
    if size == PAPER_NETWORK:
        return {FORWARD: Case(1, 256), TRAINING: Case(2, 128)}
    return {FORWARD: Case(1, 256), TRAINING: Case(8, 64)}


def flops(work: Work) -> int:
    """Floating-point operations of the convolutions and matrix products of one call."""
    with FlopCounterMode(display=False) as counter:
        work()
    total: int = counter.get_total_flops()
    return total


def measure(setup: Setup) -> list[Row]:
    """For both networks and both number formats."""
    return [
        row
        for size, precision in setup.networks_in_all_precisions
        for row in _measure(size, precision, setup)
    ]


def _measure(size: NetworkSize, precision: str, setup: Setup) -> list[Row]:
    planned, device = cases(size, setup), setup.device
    inputs = {kind: case.images().to(device) for kind, case in planned.items()}
    G, learning = frozen("G", size, precision, device), network("G", size, precision, device)
    works = {
        FORWARD: forward(G, inputs[FORWARD]),
        TRAINING: training_step(learning, inputs[TRAINING]),
        MATRIX: matrix_product(precision, setup),
    }
    plain = plain_convolutions(size, precision, planned.values(), device)
    parts = {
        FORWARD: convolutions_of(G, inputs[FORWARD]),
        TRAINING: convolutions_of(learning, inputs[TRAINING]),
    }
    single = {part.name: part.work for of_kind in parts.values() for part in of_kind}
    measured = in_turns(
        {**works, **plain, **single}, rounds=setup.rounds, least=setup.least, device=device
    )
    counted = {name: flops(work) for name, work in {**works, **plain}.items()}
    best = measured.fastest({name: counted[name] for name in plain})
    rows = []
    for kind in (FORWARD, TRAINING):
        row = Row(SECTION, "", f"{kind}, {planned[kind]}", str(size), precision)
        rows += _shares(row, kind, measured, counted, best)
        own = replace(row, quantity="network's own convolutions alone / network")
        rows += own.with_spread(measured, ratio(together(parts[kind]), seconds(kind)))
    return rows


def _shares(
    row: Row, kind: str, measured: Measured, counted: Mapping[str, int], best: str
) -> list[Row]:
    of = {name: rate(name, work / 1e9) for name, work in counted.items()}
    gigaflops = replace(row, unit="GFLOP/s")
    return [
        *replace(row, quantity="network / best convolution", note=f"best: {best}").with_spread(
            measured, ratio(of[kind], of[best])
        ),
        *replace(row, quantity="network / matrix product").with_spread(
            measured, ratio(of[kind], of[MATRIX])
        ),
        *replace(gigaflops, quantity="network").with_spread(measured, of[kind]),
        *replace(gigaflops, quantity="best convolution").with_spread(measured, of[best]),
    ]


def forward(G: nn.Module, x: Tensor) -> Work:
    """One pass without gradients."""

    @torch.no_grad()
    def work() -> Tensor:
        y: Tensor = G(x)
        return y

    return work


def training_step(G: nn.Module, x: Tensor) -> Work:
    """Forward and backward of a mean square error."""

    def work() -> None:
        G.zero_grad(set_to_none=True)
        (G(x) - x).square().mean().backward()

    return work


def matrix_product(precision: str, setup: Setup) -> Work:
    """Of two square matrices, large enough for the device's full rate."""
    side = 8192 if setup.device.type == "cuda" else 256 if setup.quick else 2048
    a = torch.randn(side, side, device=setup.device).to(PRECISIONS[precision])
    return lambda: a @ a


def plain_convolutions(
    size: NetworkSize, precision: str, planned: Iterable[Case], device: torch.device
) -> dict[str, Work]:
    """A 3x3 convolution for every width, at the sizes at which the network has it."""
    works = {}
    for case in planned:
        for level, width in enumerate(size.widths):
            side = case.side >> level
            convolution = nn.Conv2d(width, width, 3, padding=1, bias=False)
            x = torch.randn(case.batch, width, side, side, device=device)
            name = f"{width} channels, {Case(case.batch, side)}"
            works[name] = alone(convolution, x, PRECISIONS[precision], backward=False)
    return works


@dataclass(frozen=True)
class Part:
    """A convolution that a network has ``count`` times, to be timed alone."""

    name: str
    count: int
    work: Work


def together(parts: Iterable[Part]) -> Value:
    """Seconds of all convolutions of a network, each alone."""
    return lambda s: sum(part.count * s[part.name] for part in parts)


def convolutions_of(network: DRUNet, x: Tensor) -> list[Part]:
    """Every distinct convolution of a network, with backward passes where it is trained."""
    met: Counter[tuple[object, ...]] = Counter()
    first: dict[tuple[object, ...], tuple[Layer, Tensor, torch.dtype]] = {}

    def meet(layer: nn.Module, inputs: tuple[Tensor]) -> None:
        assert isinstance(layer, Layer)
        z = inputs[0].detach().requires_grad_(inputs[0].requires_grad)
        dtype = torch.float32 if layer is network.m_tail else network.arithmetic
        key = (type(layer), layer.weight.shape, z.shape, z.requires_grad, dtype)
        met[key] += 1
        first.setdefault(key, (layer, z, dtype))

    layers = [module for module in network.modules() if isinstance(module, Layer)]
    hooks = [layer.register_forward_pre_hook(meet) for layer in layers]
    network(x)
    for hook in hooks:
        hook.remove()
    parts = []
    for n, (key, (layer, z, dtype)) in enumerate(first.items()):
        learning = layer.weight.requires_grad
        name = f"{'trained' if learning else 'frozen'} convolution {n}"
        parts.append(Part(name, met[key], alone(copy.deepcopy(layer), z, dtype, backward=learning)))
    return parts


def alone(convolution: Layer, x: Tensor, dtype: torch.dtype, *, backward: bool) -> Work:
    """A convolution of x, channels-last and in one number format, perhaps with its gradients."""
    convolution = convolution.to(x.device, dtype).requires_grad_(backward)
    channels_last(convolution)
    z = x.detach().to(dtype, memory_format=torch.channels_last)
    z.requires_grad_(backward and x.requires_grad)
    if not backward:
        return lambda: convolution(z)
    slope = torch.randn_like(convolution(z))

    def work() -> None:
        z.grad = convolution.weight.grad = None
        convolution(z).backward(slope)

    return work
