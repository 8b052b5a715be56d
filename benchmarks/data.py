"""Crops per second from the image store, beside the images per second of a training step.

The store holds the embedded default's training photographs; one process draws crops as that default
has them. The step is the project's fastest: forward and backward of the embedded denoiser.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.subjects import PRECISIONS, Case, Setup, network, shipped_size
from benchmarks.table import Row
from benchmarks.timing import Work, in_turns, rate, ratio
from rglib.data.datasets import resolve
from rglib.data.images import CropSampler, PatchStore, build_store
from rglib.training.objectives.denoising import Denoising
from rglib.training.objectives.losses import Batch

SECTION = "data"
DATASET = "embedded_train"
CASE = Case(8, 64)


def measure(setup: Setup) -> list[Row]:
    """Both in turns."""
    with tempfile.TemporaryDirectory() as folder:
        sampler = _sampler(Path(folder))
        works: dict[str, Work] = {"crops": _drawing(sampler)}
        for precision in PRECISIONS:
            works[precision] = _training(precision, setup)
        measured = in_turns(works, rounds=setup.rounds, least=setup.least, device=setup.device)
    row = Row(SECTION, "crops", str(CASE), unit="crops per second")
    rows = row.with_spread(measured, rate("crops", CASE.batch))
    for precision in PRECISIONS:
        of_step = Row(
            SECTION, "crops / images of a training step", str(CASE), str(shipped_size()), precision
        )
        rows += of_step.with_spread(measured, ratio(rate("crops"), rate(precision)))
    return rows


def _sampler(folder: Path) -> CropSampler:
    manifest = resolve(DATASET, mirrors=[], data_dir=folder / "data", offline=True)
    build_store([manifest], folder / "store", min_size=CASE.side)
    store = PatchStore.open(folder / "store")
    return CropSampler(store=store, crop=CASE.side, batch=CASE.batch, seed=0)


def _drawing(sampler: CropSampler) -> Work:
    """Batches of successive steps."""
    steps = iter(range(10**9))
    return lambda: sampler.crops(next(steps))


def _training(precision: str, setup: Setup) -> Work:
    P = network("P", shipped_size(), precision, setup.device)
    x_hat = CASE.images().to(setup.device)

    def work() -> None:
        P.zero_grad(set_to_none=True)
        Denoising()({"P": P}, Batch(x_hat, 0, 0)).total.backward()

    return work
