"""Figures 1 and 2 of the paper, from our results, as they are to be printed.

They are as wide as a column or the text of the proceedings (SCITEPRESS: A4, margins of 2.6 cm), in
letters of 8 and 9 points, so that they need no scaling. PDF and PNG are the same bytes whenever
they are drawn from the same numbers. Each figure says at its foot, and in the metadata of its
files, what made it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from matplotlib.typing import RcKeyType
from PIL import Image

from rglib import paper
from rglib.files import replacing
from rglib.records.provenance import Provenance, write_record
from rglib.report.evaluations import ResultsError, problem_title
from rglib.report.job import Job
from rglib.report.results import results_of

FIGURE_1_CROP = 96  # pixels
DEEPEST_DB = 3.0  # under the start; a curve that diverges leaves the axes instead of flattening all

CM = 1 / 2.54  # inches
COLUMN_WIDTH = 7.5 * CM
TEXT_WIDTH = 15.8 * CM
FOOT_SIZE = 7  # points; the axes have 8 and 9
PAD = 0.03  # inches, around everything


@dataclass(frozen=True)
class CurveStyle:
    """How a curve is drawn: its colour, its dashes in units of the line's width, its marker."""

    colour: str
    dashes: tuple[float, ...]
    marker: str


# The colours are P. Tol's "medium-contrast" scheme, and black: apart for colour-blind readers, and
# of lightnesses that stay apart in grey (SRON/EPS/TN/09-002, https://sronpersonalpages.nl/~pault).
CURVE_STYLES = (
    CurveStyle("#6699CC", (1, 1.2), "o"),
    CurveStyle("#997700", (5, 1.5, 1, 1.5), "s"),
    CurveStyle("#994455", (5, 2), "^"),
    CurveStyle("#004488", (), "D"),
    CurveStyle("#EE99AA", (3, 1, 1, 1, 1, 1), "v"),
    CurveStyle("#000000", (2, 3), "P"),
    CurveStyle("#EECC66", (8, 2), "X"),
)
MARKERS = 7  # on each curve

STYLE: dict[RcKeyType, Any] = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "font.family": "STIXGeneral",  # Times, as the paper; ships with matplotlib: the same everywhere
    "mathtext.fontset": "stix",
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "pdf.fonttype": 42,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "0.9",
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "legend.columnspacing": 1.5,
}


@dataclass(frozen=True)
class Crop:
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
    problem: str = paper.FIGURE_2_PROBLEM,
) -> Figure:
    """Draw the mean PSNR over the iterations of gradient descent.

    The axes end `DEEPEST_DB` under the starting point: a curve that diverges leaves them there.

    Args:
        convergence: what `rglib.report.evaluations.convergence` returns.
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
        figure = new_figure(COLUMN_WIDTH, 5.6 * CM, foot=provenance.short())
        axes = figure.subplots()
        for number, (method, style) in enumerate(zip(drawn, CURVE_STYLES, strict=False)):
            curve = curves[curves["method"] == method]
            apart = max(1, len(curve) // MARKERS)
            axes.plot(
                curve["iteration"],
                curve["psnr_db"],
                color=style.colour,
                linestyle=(0, style.dashes or (1, 0)),
                linewidth=1.3,
                marker=style.marker,
                markersize=3.5,
                markevery=(apart * (number + 1) // (len(drawn) + 1), apart),
                label=labels[method],
            )
        axes.set_xlabel("iteration of gradient descent", labelpad=2)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel("mean PSNR (dB)", labelpad=2)
        axes.set_title(f"{problem_title(problem)}, ours", loc="left", pad=4)
        axes.margins(x=0.025)
        floor = curves.loc[curves["iteration"] == 0, "psnr_db"].max() - DEEPEST_DB
        axes.set_ylim(bottom=max(floor, axes.get_ylim()[0]))
        axes.grid()
        axes.legend(loc="best", handlelength=3.2, labelspacing=0.25)
    return figure


def fig1(
    results: pd.DataFrame,
    *,
    images: Path,
    labels: Mapping[str, str],
    provenance: Provenance,
    problems: Sequence[str] = paper.FIGURE_1_PROBLEMS,
    views: Mapping[str, Crop] | None = None,
) -> Figure:
    """Draw crops of the restored images, one row per problem.

    The columns are the ground truth, the starting point and the methods; beneath each is the PSNR
    of the whole image. Of several seeds the first is shown.

    Args:
        results: what `rglib.report.evaluations.read_results` returns.
        images: the folder of the evaluations, with ``observations/{problem_id}/{image}_truth.png``,
            ``..._start.png`` and ``{method}_images/{problem_id}/{image}.png``.
        labels: readable names of the methods to draw, by id, in the order of the columns.
        provenance: what made the images; goes to the foot.
        problems: ids of the problems; those without results are left out.
        views: crops by problem id. By default the centre of `rglib.paper.FIGURE_1_IMAGE`, or of
            the first image where the test set has none of that name.

    Raises:
        ResultsError: none of the problems has results, or an image is missing or too small.
    """
    drawn = [problem for problem in problems if problem in set(results["problem_id"])]
    if not drawn:
        raise ResultsError(f"no result on {', '.join(problems)}: figure 1 has nothing to show")
    default = _default_crop(results)
    columns, rows = 2 + len(labels), len(drawn)
    side, top, gap = 0.95 * CM, 0.6 * CM, 0.5 * CM  # of names, titles, and the PSNR
    height = top + rows * ((TEXT_WIDTH - side) / columns - 2 * PAD + gap)
    foot = f"Ours; PSNR of the whole image \N{MIDDLE DOT} {provenance.short()}"
    with matplotlib.rc_context(STYLE):
        figure = new_figure(TEXT_WIDTH, height, foot=foot, of_images=True)
        grid = figure.subplots(rows, columns, squeeze=False)
        for row, problem in enumerate(drawn):
            view = (views or {}).get(problem, default)
            panels = _panels(results, images, problem, view.image, labels)
            for column, (title, path, caption) in enumerate(panels):
                axes = grid[row, column]
                _show(axes, view.cut(_read_image(path)))
                axes.set_xlabel(caption, fontsize=8, labelpad=2)
                if row == 0:
                    axes.set_title(title, pad=3)
                if column == 0:
                    name = problem_title(problem).replace(", ", ",\n")  # a panel is 2.5 cm high
                    axes.set_ylabel(name, fontsize=8, labelpad=2)
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
        figure.savefig(beside, dpi=300, metadata=metadata[suffix])
    write_record(Path(path), title=title, provenance=provenance)


def save_both(figure: Figure, job: Job, *, title: str, provenance: Provenance) -> None:
    """`save` a figure as the outputs ``pdf`` and ``png`` of a job."""
    for path in (job.outputs.pdf, job.outputs.png):
        save(figure, path, title=title, provenance=provenance)


def write_fig1(job: Job) -> None:
    """Figure 1, of the images in the folder ``folder``."""
    figure = fig1(
        results_of(job),
        images=Path(job.params.folder),
        labels=job.labels(job.params.methods),
        provenance=job.provenance,
    )
    title = "Figure 1: crops of the restored images"
    save_both(figure, job, title=title, provenance=job.provenance)


def write_fig2(job: Job) -> None:
    """Figure 2, of ``convergence.csv``."""
    labels = job.labels(job.params.methods)
    figure = fig2(job.table("convergence"), labels=labels, provenance=job.provenance)
    title = "Figure 2: PSNR over the iterations"
    save_both(figure, job, title=title, provenance=job.provenance)


def new_figure(width: float, height: float, *, foot: str, of_images: bool = False) -> Figure:
    """An empty figure with text at its foot, free of matplotlib's global state.

    Labels, ticks and legends make the panels smaller and cover nothing: its layout is matplotlib's
    "constrained", above the foot.

    Args:
        width: in inches.
        height: in inches, without the foot.
        foot: is broken at its middle dots into lines that fit.
        of_images: whether the panels have the sides of images, and lie close to one another.
    """
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    text = figure.text(
        PAD, PAD, "", fontsize=FOOT_SIZE, color="0.3", va="bottom", transform=figure.dpi_scale_trans
    )
    _break_at_dots(text, foot, most=0.98 * (width - 2 * PAD) * figure.dpi)
    reserved = text.get_window_extent().height / figure.dpi + 2 * PAD
    figure.set_size_inches(width, height + reserved)
    share = reserved / (height + reserved)
    figure.set_layout_engine(
        ConstrainedLayoutEngine(
            w_pad=PAD, h_pad=PAD, rect=(0, share, 1, 1 - share), compress=of_images
        )
    )
    return figure


def _break_at_dots(text: Text, content: str, *, most: float) -> None:
    """Fill a text with lines of at most so many pixels, broken at middle dots, else at blanks."""

    def fits(line: str) -> bool:
        text.set_text(line)
        return bool(text.get_window_extent().width <= most)

    lines: list[str] = []
    for part in content.split(" \N{MIDDLE DOT} "):
        if lines and fits(joined := f"{lines[-1]} \N{MIDDLE DOT} {part}"):
            lines[-1] = joined
            continue
        lines.append("")
        for word in part.split(" "):
            if lines[-1] and not fits(f"{lines[-1]} {word}"):
                lines.append("")
            lines[-1] = f"{lines[-1]} {word}".lstrip()
    text.set_text("\n".join(lines))


def legend_below(figure: Figure, handles: Sequence[Artist], *, columns: int) -> None:
    """A legend between the panels and the foot of a figure of `new_figure`."""
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    left, bottom, width, height = engine.get()["rect"]
    legend = figure.legend(
        handles=handles,
        loc="lower center",
        bbox_to_anchor=(0.5, bottom),
        ncols=columns,
        borderaxespad=0,
    )
    legend.set_in_layout(False)  # matplotlib's own "outside" legends cover what is below the panels
    needed = legend.get_window_extent().height / figure.bbox.height
    engine.set(rect=(left, bottom + needed, width, height - needed))


def _default_crop(results: pd.DataFrame) -> Crop:
    names = list(dict.fromkeys(results["image"]))
    image = paper.FIGURE_1_IMAGE if paper.FIGURE_1_IMAGE in names else names[0]
    sizes = results.loc[results["image"] == image, ["height", "width"]]
    return Crop(image, size=min(FIGURE_1_CROP, int(sizes.min().min())))


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
        raise ResultsError(
            f"{path}: no such image; `snakemake {path.parents[1]} --force` writes it, with the "
            "same --configfile"
        )
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _show(axes: Axes, pixels: np.ndarray) -> None:
    axes.imshow(pixels, interpolation="none")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
