"""Iterations per second of gradient descent with metrics, rglib's beside a plain loop's.

*rglib* is `rglib.core.algorithms.GradientDescent` with Adam, the network as `for_inference` makes
it, PSNR of every iterate and SSIM of the first and the last, as `rglib.restoration.evaluation`
records them. *plain* is `benchmarks.plain.descend`: what PnP-ReG's script does, with PSNR and SSIM
of every iterate; also with PSNR alone, so that the price of the metrics shows. The script computes
its metrics with OpenCV, which is none of the dependencies: here scikit-image computes the same.

Both do the same iterations, one of each of the eight transforms, of the same problem, and reach the
same image, up to rounding (``tests/test_benchmarks.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from torch import Tensor, nn

from benchmarks import plain
from benchmarks.convolutions import flops, matrix_product
from benchmarks.subjects import PRECISIONS, Setup, frozen, middle
from benchmarks.table import Row
from benchmarks.timing import Value, Work, in_turns, rate, ratio, seconds
from rglib.core.algorithms import GradientDescent
from rglib.core.fixed_point import Adam
from rglib.core.metrics import ssim
from rglib.core.networks import inference_only
from rglib.core.problems import Observation, observe_test_image
from rglib.records.provenance import NetworkSize
from rglib.restoration.evaluation import Curves

SECTION = "evaluation"
PROBLEM = "deblur_s1.6"
LR, S = 0.004, 2.55 / 255  # the released ones for it; they move no time
ITERATES = 9  # eight steps, one of each transform
BOTH, PSNR = "plain, PSNR and SSIM", "plain, PSNR"
MATRIX = "matrix product"


def measure(setup: Setup) -> list[Row]:
    """For both networks."""
    return [row for size in setup.networks for row in _measure(size, setup)]


def _measure(size: NetworkSize, setup: Setup) -> list[Row]:
    side = 32 if setup.quick else 256
    seen = observe_test_image(PROBLEM, middle(side)).to(setup.device)
    simple = plain.PlainDRUNet(frozen("G", size, "float32", setup.device)).to(setup.device)
    works: dict[str, Work] = {
        BOTH: plain_loop(simple, seen, [plain.psnr, plain.ssim]),
        PSNR: plain_loop(simple, seen, [plain.psnr]),
    }
    for precision in PRECISIONS:
        works[precision] = own_loop(frozen("G", size, precision, setup.device), seen)
        works[f"{MATRIX}, {precision}"] = matrix_product(precision, setup)
    measured = in_turns(works, rounds=setup.rounds, least=setup.least, device=setup.device)
    case = f"{PROBLEM}, {side}x{side}, {ITERATES - 1} iterations"
    rows = []
    for precision in PRECISIONS:
        row = Row(SECTION, "", case, str(size), precision)
        for loop in (BOTH, PSNR):
            quantity = f"rglib / ({loop}), iterations per second"
            rows += replace(row, quantity=quantity).with_spread(
                measured, ratio(seconds(loop), seconds(precision))
            )
        speed = replace(row, quantity="rglib", unit="iterations per second")
        rows += speed.with_spread(measured, rate(precision, ITERATES - 1))
        rows += replace(row, quantity="rglib's FLOP/s / matrix product's").with_spread(
            measured, _share(works, precision)
        )
    row = Row(SECTION, BOTH, case, str(size), "float32", unit="iterations per second")
    return rows + row.with_spread(measured, rate(BOTH, ITERATES - 1))


def _share(works: Mapping[str, Work], precision: str) -> Value:
    matrix = f"{MATRIX}, {precision}"
    own, product = (rate(name, flops(works[name])) for name in (precision, matrix))
    return ratio(own, product)


def plain_loop(
    G: nn.Module, seen: Observation, metrics: list[plain.Metric]
) -> Callable[[], tuple[Tensor, list[list[float]]]]:
    """The plain loop with these metrics."""
    return lambda: plain.descend(G, seen, lr=LR, s=S, iterations=ITERATES, metrics=metrics)


def own_loop(G: nn.Module, seen: Observation) -> Callable[[], tuple[Tensor, list[float]]]:
    """rglib's loop, as an evaluation runs it."""
    method = GradientDescent(inference_only(G), solver=Adam(lr=LR), s=S, iterations=ITERATES)

    def work() -> tuple[Tensor, list[float]]:
        curves = Curves(seen.x_hat, length=method.recorded)
        x = method.restore(seen, curves.add)
        ssim(seen.x0, seen.x_hat), ssim(x, seen.x_hat)
        return x, curves.psnr_db[0].tolist()

    return work
