"""Figures 1 and 2 of the paper, from our results.

PDF and PNG are the same bytes whenever they are drawn from the same numbers. Each figure says at
its foot, and in the metadata of its files, what made it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType
from PIL import Image

from rglib.files import replacing
from rglib.provenance import Provenance, write_record
from rglib.results import ResultsError, problem_title

FIGURE_1_PROBLEMS = ("sr3_gaussian_n0.01", "completion90", "deblur_s2.0")
FIGURE_1_IMAGE = "butterfly"
FIGURE_1_CROP = 96  # pixels
FIGURE_2_PROBLEM = "completion90"
DEEPEST_DB = 3.0  # under the start; a curve that diverges leaves the axes instead of flattening all

# Okabe and Ito's colours, apart for colour-blind readers and dark enough on white; the dashes tell
# the curves apart in grey.
CURVE_STYLES = (
    ("#0072B2", (0, (1, 1.2))),
    ("#E69F00", (0, (5, 1.5, 1, 1.5))),
    ("#009E73", (0, (5, 2))),
    ("#D55E00", "solid"),
    ("#CC79A7", (0, (3, 1, 1, 1, 1, 1))),
    ("#56B4E9", (0, (8, 2))),
    ("#000000", (0, (2, 3))),
)

STYLE: dict[RcKeyType, Any] = {
    "font.size": 9,
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same letters on every machine
    "pdf.fonttype": 42,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
FOOT_SIZE = 6.5  # points


@dataclass(frozen=True)
class View:
    """A square crop of an image of the test set, in pixels of the ground truth.

    ``top`` and ``left`` are that of the centred crop where they are None.
    """

    image: str
    top: int | None = None
    left: int | None = None
    size: int = FIGURE_1_CROP

    def cut(self, pixels: np.ndarray) -> np.ndarray:
        """Crop an image (H, W, 3).

        Raises:
            ResultsError: the crop does not lie within the image.
        """
        height, width = pixels.shape[:2]
        top = (height - self.size) // 2 if self.top is None else self.top
        left = (width - self.size) // 2 if self.left is None else self.left
        if not (0 <= top <= height - self.size and 0 <= left <= width - self.size):
            raise ResultsError(
                f"crop of {self.size} pixels at ({top}, {left}) is not within image {self.image} "
                f"of {height}x{width}"
            )
        return pixels[top : top + self.size, left : left + self.size]


def fig2(
    convergence: pd.DataFrame,
    *,
    labels: Mapping[str, str],
    provenance: Provenance,
    problem: str = FIGURE_2_PROBLEM,
) -> Figure:
    """Draw the mean PSNR over the iterations of gradient descent.

    The axes end `DEEPEST_DB` under the starting point: a curve that diverges leaves them there.

    Args:
        convergence: what `rglib.results.convergence` returns.
        labels: readable names of the methods to draw, by id, in the order of the legend.
        provenance: what made the numbers; goes to the foot.
        problem: id of the problem.

    Raises:
        ResultsError: there is no curve of these methods on the problem.
    """
    curves = convergence[convergence["problem_id"] == problem]
    drawn = [method for method in labels if method in set(curves["method"])]
    if not drawn:
        raise ResultsError(
            f"no curve of {', '.join(labels) or 'any method'} on {problem}; figure 2 needs a "
            "method with `algorithm: gradient_descent` and this problem"
        )
    if len(drawn) > len(CURVE_STYLES):
        raise ResultsError(f"{len(drawn)} curves; figure 2 can tell {len(CURVE_STYLES)} apart")
    with matplotlib.rc_context(STYLE):
        figure = new_figure(5.4, 3.9)
        axes = figure.add_axes((0.11, 0.21, 0.86, 0.7))
        for method, (colour, dashes) in zip(drawn, CURVE_STYLES, strict=False):
            curve = curves[curves["method"] == method]
            axes.plot(
                curve["iteration"],
                curve["psnr_db"],
                color=colour,
                linestyle=dashes,
                linewidth=1.8,
                label=labels[method],
            )
        axes.set_xlabel("iteration of gradient descent")
        axes.set_ylabel("mean PSNR (dB)")
        axes.set_title(problem_title(problem), loc="left", fontsize=9)
        axes.margins(x=0.01)
        floor = curves.loc[curves["iteration"] == 0, "psnr_db"].max() - DEEPEST_DB
        axes.set_ylim(bottom=max(floor, axes.get_ylim()[0]))
        axes.grid(color="0.9", linewidth=0.6)
        axes.legend(frameon=False, loc="lower right", handlelength=3.5)
        write_foot(figure, provenance.short(), width=100)
    return figure


def fig1(
    results: pd.DataFrame,
    *,
    images: Path,
    labels: Mapping[str, str],
    provenance: Provenance,
    problems: Sequence[str] = FIGURE_1_PROBLEMS,
    views: Mapping[str, View] | None = None,
) -> Figure:
    """Draw crops of the restored images, one row per problem.

    The columns are the ground truth, the starting point and the methods; beneath each is the PSNR
    of the whole image. Of several seeds the first is shown.

    Args:
        results: what `rglib.results.read_results` returns.
        images: the folder of the evaluations, with ``observations/{problem_id}/{image}_truth.png``,
            ``..._start.png`` and ``{method}_images/{problem_id}/{image}.png``.
        labels: readable names of the methods to draw, by id, in the order of the columns.
        provenance: what made the images; goes to the foot.
        problems: ids of the problems; those without results are left out.
        views: crops by problem id. By default the centre of `FIGURE_1_IMAGE`, or of the first
            image where the test set has none of that name.

    Raises:
        ResultsError: none of the problems has results, or an image is missing or too small.
    """
    drawn = [problem for problem in problems if problem in set(results["problem_id"])]
    if not drawn:
        raise ResultsError(f"no result on {', '.join(problems)}: figure 1 has nothing to show")
    default = _default_view(results)
    columns = 2 + len(labels)
    panel, gap, foot = 1.25, 0.26, 0.36  # inches; the gap holds the PSNR
    width, height = columns * panel + 0.35, len(drawn) * (panel + gap) + 0.25 + foot
    with matplotlib.rc_context(STYLE):
        figure = new_figure(width, height)
        for row, problem in enumerate(drawn):
            view = (views or {}).get(problem, default)
            bottom = height - 0.25 - panel - row * (panel + gap)
            panels = _panels(results, images, problem, view.image, labels)
            for column, (title, path, caption) in enumerate(panels):
                left = 0.3 + column * panel
                size = panel * 0.96
                axes = figure.add_axes((left / width, bottom / height, size / width, size / height))
                _show(axes, view.cut(_read_image(path)))
                axes.set_xlabel(caption, fontsize=8, labelpad=2)
                if row == 0:
                    axes.set_title(title, fontsize=9, pad=3)
                if column == 0:
                    axes.set_ylabel(problem_title(problem), fontsize=7, labelpad=3)
        write_foot(
            figure,
            f"PSNR of the whole image \N{MIDDLE DOT} {provenance.short()}",
            width=int(19.5 * width),
        )
    return figure


def save(figure: Figure, path: Path, *, title: str, provenance: Provenance) -> None:
    """Write a figure as PDF or PNG, by the suffix, whole or not at all, and its record; no date.

    Args:
        figure: what `fig1` or `fig2` returns.
        path: ends in ``.pdf`` or ``.png``.
        title: for the metadata of the file and the record.
        provenance: for the same, in full.

    Raises:
        ValueError: another suffix.
    """
    about = "\n".join(provenance.lines())
    metadata = {
        ".pdf": {"Title": title, "Subject": about, "CreationDate": None},
        ".png": {"Title": title, "Description": about},
    }
    suffix = Path(path).suffix
    if suffix not in metadata:
        raise ValueError(f"{path}: figures are written as {' or '.join(metadata)}")
    with replacing(path) as beside, matplotlib.rc_context(STYLE):
        figure.savefig(beside, dpi=200, metadata=metadata[suffix])
    write_record(Path(path), title=title, provenance=provenance)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, free of matplotlib's global state."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def write_foot(figure: Figure, text: str, *, width: int) -> None:
    """Write text at the foot, wrapped to lines of ``width`` characters at most."""
    lines = [""]
    for part in text.split(" \N{MIDDLE DOT} "):
        joined = f"{lines[-1]} \N{MIDDLE DOT} {part}" if lines[-1] else part
        if len(joined) > width and lines[-1]:
            lines.append(part)
        else:
            lines[-1] = joined
    figure.text(0.01, 0.012, "\n".join(lines), fontsize=FOOT_SIZE, color="0.3", va="bottom")


def _default_view(results: pd.DataFrame) -> View:
    names = list(dict.fromkeys(results["image"]))
    image = FIGURE_1_IMAGE if FIGURE_1_IMAGE in names else names[0]
    sizes = results.loc[results["image"] == image, ["height", "width"]]
    return View(image, size=min(FIGURE_1_CROP, int(sizes.min().min())))


def _panels(
    results: pd.DataFrame, images: Path, problem: str, image: str, labels: Mapping[str, str]
) -> list[tuple[str, Path, str]]:
    """Title, file and caption of each panel of a row."""
    found = results[(results["problem_id"] == problem) & (results["image"] == image)]
    of_method = found.drop_duplicates("method").set_index("method")  # the first seed's
    missing = [method for method in labels if method not in of_method.index]
    if missing:
        raise ResultsError(f"no result of {', '.join(missing)} on {problem}, image {image}")
    observed = Path(images, "observations", problem)
    start = of_method["psnr_start_db"].iloc[0]
    return [
        ("ground truth", observed / f"{image}_truth.png", ""),
        ("start", observed / f"{image}_start.png", f"{start:.2f} dB"),
        *(
            (
                label,
                Path(images, f"{method}_images", problem, f"{image}.png"),
                _caption(of_method["psnr_db"][method], of_method["outcome"][method]),
            )
            for method, label in labels.items()
        ),
    ]


def _caption(psnr_db: float, outcome: str) -> str:
    return f"{psnr_db:.2f} dB" if outcome == "finished" else "diverged"


def _read_image(path: Path) -> np.ndarray:
    if not path.is_file():
        raise ResultsError(f"{path}: no such image; run the evaluation that writes it")
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _show(axes: Axes, pixels: np.ndarray) -> None:
    axes.imshow(pixels, interpolation="none")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
