"""Draw a photograph before and after restoration: ``python docs/before_after.py -o FILE.png``.

By default a photograph of the validation set that comes with the packages, made small as in the
tables, and what `rglib restore` makes of it, beside the truth, with the PSNR of each.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from rglib.commands.arguments import DEFAULT_METHOD
from rglib.core.metrics import psnr
from rglib.core.problems import PROBLEMS, observe_image
from rglib.core.tensors import centre, to_tensor, to_uint8
from rglib.data.datasets import resolve
from rglib.data.images import read_image, read_listed
from rglib.files import replacing
from rglib.report.evaluations import problem_title
from rglib.report.figures import CM, STYLE, TEXT_WIDTH, new_figure
from rglib.restoration.prior import load

DATASET = "embedded_validation"
SAID = "{}, restored by {}; the networks that come with rglib"


def pictures(pixels: np.ndarray, *, problem_id: str, method: str) -> dict[str, np.ndarray]:
    """Before, after and the truth, (H, W, 3) uint8, by their titles.

    Args:
        pixels: the photograph, (H, W, 3) uint8.
        problem_id: one of the tables'.
        method: by which it is restored.
    """
    seen = observe_image(PROBLEMS[problem_id], to_tensor(pixels))
    x = load(method).restore(seen.y, seen.problem, like=problem_id)
    shown = {"before": seen.x0, "after": x, "truth": seen.x_hat}
    return {
        name if name == "truth" else f"{name}, {psnr(image, seen.x_hat).item():.2f} dB": to_uint8(
            image
        )
        for name, image in shown.items()
    }


def drawn(shown: dict[str, np.ndarray], *, said: str) -> Figure:
    """The pictures side by side, each under its title."""
    height, width = next(iter(shown.values())).shape[:2]
    with matplotlib.rc_context(STYLE):
        side = TEXT_WIDTH / len(shown)
        figure = new_figure(TEXT_WIDTH, side * height / width + 0.5 * CM, foot=said, of_images=True)
        panels = figure.subplots(1, len(shown))
        for axes, (name, image) in zip(panels, shown.items(), strict=True):
            axes.imshow(image, interpolation="none")
            axes.set_axis_off()
            axes.set_title(name, pad=3)
    return figure


def main(arguments: list[str] | None = None) -> None:
    """Restore and draw."""
    options = _parser().parse_args(arguments)
    if options.photograph:
        pixels = read_image(options.photograph)
    else:
        with TemporaryDirectory() as folder:
            listed = resolve(DATASET, mirrors=[], data_dir=Path(folder), offline=True)
            whole = to_tensor(read_listed(listed.images[0]))
        pixels = to_uint8(centre(whole, options.side))
    shown = pictures(pixels, problem_id=options.problem, method=options.method)
    said = SAID.format(problem_title(options.problem), options.method)
    with replacing(options.output) as partial:
        drawn(shown, said=said).savefig(partial, dpi=200)


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python docs/before_after.py", description=__doc__)
    made.add_argument("-o", "--output", type=Path, required=True)
    made.add_argument("--photograph", type=Path, help="another one; whole")
    made.add_argument("--side", type=int, default=256, help="of the middle of the default's")
    made.add_argument("--problem", choices=PROBLEMS, default="sr2_bicubic_n0.01")
    made.add_argument("--method", default=DEFAULT_METHOD)
    return made


if __name__ == "__main__":
    main()
