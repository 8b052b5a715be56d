"""Updates of training and what evaluates, as shares of a matrix product's rate in the same run.

The network is that of ``config/gpu_quarter.yaml``, with random weights. *Forward* is a pass without
gradients, *evaluation* gradient descent with metrics as in `benchmarks.evaluation`. An *update* is
what `rglib.training.trainer.Trainer` does: draws, forward, backward, optimiser and the average of
the weights; at fixed points with kept iterates, over their visits. In a *compiled update*
torch.compile has fused the networks, which is tried on a GPU alone. FLOP are those of convolutions
and matrix products, Muon's among them, as PyTorch counts them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from benchmarks.convolutions import FORWARD, flops, forward, matrix_product
from benchmarks.evaluation import ITERATES, PROBLEM, own_loop
from benchmarks.subjects import Case, PhotographCrops, Setup, frozen, middle
from benchmarks.table import Row
from benchmarks.timing import Work, in_turns, rate, ratio, seconds
from rglib.core.fixed_point import SemiImplicit
from rglib.core.kept import Keep
from rglib.core.networks import build
from rglib.core.problems import observe_test_image
from rglib.records.provenance import NetworkSize
from rglib.training.objectives.denoising import Denoising
from rglib.training.objectives.equilibrium import Equilibrium
from rglib.training.objectives.losses import Objective
from rglib.training.objectives.score_start import ScoreStart
from rglib.training.trainer import Cosine, Recipe, Trainer

SECTION = "updates"
NETWORK = NetworkSize(widths=(64, 128, 256, 512), blocks=1)
QUICK = NetworkSize(widths=(16, 16, 16, 16), blocks=1)
MATRIX = "matrix product"
PLAIN, COMPILED = "update", "compiled update"
EVALUATION = "evaluation"
GAIN = f"{PLAIN} / {COMPILED}, seconds"
TO_COMPILE = ("denoiser", "deqgd")

_AT_FIXED_POINTS = Equilibrium(
    solver=SemiImplicit(), backward_map="semi_implicit", loss="log_mean_square"
)
OBJECTIVES: Mapping[
    str, tuple[Objective, int, bool]
] = {  # with the batch, and whether Muon takes part
    "denoiser": (Denoising(), 64, True),
    "score": (ScoreStart(), 64, True),
    "deqgd": (replace(_AT_FIXED_POINTS, gradient_descent=1.0), 16, False),
    "rerg": (
        replace(_AT_FIXED_POINTS, link=0.1, forward_backward=1.0, gradient_descent=0.1),
        16,
        False,
    ),
}


@dataclass(frozen=True)
class Updates:
    """So many updates of a training, one after the other, as one work."""

    run: Trainer
    count: int

    def __call__(self) -> None:
        """Take them."""
        for _ in range(self.count):
            self.run.update(self.run.batch())


def measure(setup: Setup) -> Iterator[Row]:
    """In bfloat16; what torch.compile makes of it comes last, as it takes its time."""
    torch.backends.cudnn.benchmark = True  # as in training on a GPU for minutes
    yield from _passes(setup)
    with tempfile.TemporaryDirectory() as folder:
        for name in OBJECTIVES:
            yield from _measure(name, setup, Path(folder))
        if setup.device.type == "cuda":
            for name in TO_COMPILE:
                yield from _compared(name, setup, Path(folder))


def _passes(setup: Setup) -> list[Row]:
    """Forward and evaluation, of one network."""
    size, side = (QUICK, 32) if setup.quick else (NETWORK, 256)
    case, G = Case(8, side), frozen("G", size, "bfloat16", setup.device)
    seen = observe_test_image(PROBLEM, middle(side)).to(setup.device)
    works: dict[str, Work] = {
        FORWARD: forward(G, case.images().to(setup.device)),
        EVALUATION: own_loop(G, seen),
        MATRIX: matrix_product("bfloat16", setup),
    }
    counted = {name: flops(work) for name, work in works.items()}
    measured = in_turns(works, rounds=setup.rounds, least=setup.least, device=setup.device)
    where = {
        FORWARD: f"forward, {case}",
        EVALUATION: f"{PROBLEM}, {side}x{side}, {ITERATES - 1} iterations",
    }
    rows = []
    for name, extent in where.items():
        row = Row(SECTION, f"{name} / {MATRIX}, FLOP/s", extent, str(size), "bfloat16")
        shares = ratio(rate(name, counted[name]), rate(MATRIX, counted[MATRIX]))
        rows += row.with_spread(measured, shares)
    return rows


def _measure(name: str, setup: Setup, folder: Path) -> list[Row]:
    update = Updates(trainer(name, setup, folder / name), _updates(name, setup))
    matrix = matrix_product("bfloat16", setup)
    work, product = flops(update), flops(matrix)
    works: dict[str, Work] = {PLAIN: update, MATRIX: matrix}
    measured = in_turns(works, rounds=setup.rounds, least=setup.least, device=setup.device)
    row = _row(name, setup, note=f"{work / update.count / 1e12:.3g} TFLOP")
    share = replace(row, quantity=f"{PLAIN} / {MATRIX}, FLOP/s")
    return [
        *replace(row, quantity=PLAIN, unit="seconds").with_spread(
            measured, lambda s: s[PLAIN] / update.count
        ),
        *share.with_spread(measured, ratio(rate(PLAIN, work), rate(MATRIX, product))),
    ]


def _compared(name: str, setup: Setup, folder: Path) -> list[Row]:
    """A plain update over a compiled one, or why there is none."""
    row = _row(name, setup, quantity=GAIN)
    works: dict[str, Work] = {
        way: Updates(trainer(name, setup, folder / way, compiled=way == COMPILED), 16)
        for way in (PLAIN, COMPILED)
    }
    try:
        works[COMPILED]()
    except Exception as error:  # whatever a compiler that is not there provokes
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        return [replace(row, note=f"not measured: {said}")]
    measured = in_turns(works, rounds=setup.rounds, least=setup.least, device=setup.device)
    return row.with_spread(measured, ratio(seconds(PLAIN), seconds(COMPILED)))


def _row(name: str, setup: Setup, *, quantity: str = "", note: str = "") -> Row:
    size, case = _extent(name, setup)
    where = f"{name}, {case}"
    return Row(SECTION, quantity, where, str(size), "bfloat16", note=note)


def _extent(name: str, setup: Setup) -> tuple[NetworkSize, Case]:
    _, batch, _ = OBJECTIVES[name]
    return (QUICK, Case(2, 32)) if setup.quick else (NETWORK, Case(batch, 128))


def _keep(name: str, setup: Setup) -> Keep | None:
    if not isinstance(OBJECTIVES[name][0], Equilibrium):
        return None
    if setup.quick:
        return Keep(batches=2, visits=2, first_steps=2, steps=1)
    return Keep(batches=4, visits=16)


def _updates(name: str, setup: Setup) -> int:
    """As many as see batches of all ages, as in training."""
    keep = _keep(name, setup)
    return keep.batches * keep.visits if keep else 1


def trainer(name: str, setup: Setup, folder: Path, *, compiled: bool = False) -> Trainer:
    """The trainer of a stage, on random weights and crops of a photograph."""
    objective, _, with_muon = OBJECTIVES[name]
    size, case = _extent(name, setup)
    torch.manual_seed(0)
    networks: dict[str, nn.Module] = {
        role: build(role, widths=size.widths, blocks=size.blocks, arithmetic=torch.bfloat16)
        for role in objective.learns
    }
    if compiled:
        for network in networks.values():
            network.compile(dynamic=False)
    recipe = Recipe(
        objective=objective,
        steps=10**9,
        lr=1e-5,
        schedule=Cosine(),
        muon=1e-5 if with_muon else None,
        clip=0.1,
        ema=0.999,
        keep=_keep(name, setup),
        log_every=10**9,
    )
    run = Trainer(
        recipe,
        networks,
        PhotographCrops(case.batch, case.side),
        folder=folder,
        fingerprint="benchmark",
        device=setup.device,
    )
    run.step = 1  # the first is logged
    return run
