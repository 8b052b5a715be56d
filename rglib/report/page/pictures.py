"""The restored images of the page: small files of whole images, exact ones of details and errors.

A whole image is stored with losses. A detail, the square of the ground truth with the most
structure, is stored exactly, pixel by pixel as the evaluation kept it, and beside it the error of
these pixels in `ERROR_STEPS` colours.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from PIL import Image

from rglib.data.images import read_image
from rglib.report.evaluations import problem_title

QUALITY = 70  # of WebP for whole images
DETAIL = 56  # pixels, the side of a detail
IMAGES_SHOWN = 5  # of a larger test set the first ones: the page is to stay small
ERROR_SCALES = (0.05, 0.1, 0.2, 0.4, 0.8)  # where the colours of an error may end
ERROR_SHARE = 0.95  # of the pixels of every method that are to lie within
ERROR_STEPS = 16
ERROR_COLOURS = colormaps["inferno"].resampled(ERROR_STEPS)


@dataclass(frozen=True)
class ComparedImage:
    """An image of a comparison: its name, what is said of it, and its files as data URIs.

    ``error`` is ``""`` for the ground truth.
    """

    name: str
    caption: str
    picture: str
    detail: str
    error: str


@dataclass(frozen=True)
class Comparison:
    """The ground truth, the starting point and the methods on one image of one problem.

    ``left`` and ``top`` place the detail, of ``side`` pixels, in an image of ``width`` and
    ``height``; ``error_full`` is the error on [0, 1] from which on it has the last colour.
    """

    width: int
    height: int
    left: int
    top: int
    side: int
    error_full: float
    views: tuple[ComparedImage, ...]


@dataclass(frozen=True)
class Collection:
    """Comparisons by problem and image, and how many images the test set has in all."""

    of_problem: Mapping[str, Mapping[str, Comparison]]
    titles: Mapping[str, str]
    images: tuple[str, ...]
    images_in_all: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON types, each file once: views name it by its place in ``files``."""
        files: dict[str, int] = {}

        def view(of: ComparedImage) -> dict[str, Any]:
            uris = {key: getattr(of, key) for key in ("picture", "detail", "error")}
            places = {key: files.setdefault(uri, len(files)) for key, uri in uris.items()}
            return asdict(of) | places

        comparisons = {
            problem: {
                image: {**vars(of), "views": [view(v) for v in of.views]}
                for image, of in by_image.items()
            }
            for problem, by_image in self.of_problem.items()
        }
        return {"comparisons": comparisons, "files": list(files)}


def collect(results: pd.DataFrame, *, images: Path, labels: Mapping[str, str]) -> Collection:
    """Prepare the images of all problems; of several seeds the first is shown.

    Args:
        results: what `rglib.report.evaluations.read_results` returns.
        images: the folder of the evaluations, as for `rglib.report.figures.fig1`.
        labels: readable names of the methods, by id, in the order of the views.

    Raises:
        rglib.data.decoding.ImageError: an image is missing or cannot be read.
    """
    names = list(dict.fromkeys(results["image"]))
    shown = names[:IMAGES_SHOWN]
    problems = list(dict.fromkeys(results["problem_id"]))
    first = results.drop_duplicates(["method", "problem_id", "image"])
    rows = first.set_index(["problem_id", "image", "method"]).sort_index()
    return Collection(
        {
            problem: {
                image: _comparison(rows.loc[(problem, image)], images, problem, image, labels)
                for image in shown
            }
            for problem in problems
        },
        {problem: problem_title(problem) for problem in problems},
        tuple(shown),
        len(names),
    )


def detail(truth: np.ndarray, side: int = DETAIL) -> tuple[int, int]:
    """Left and top of the square with the most structure: the largest sum of squared differences.

    Args:
        truth: uint8 (H, W, 3), both sides at least ``side``.
        side: of the square, in pixels.
    """
    grey = truth.mean(axis=2)
    rows, columns = (np.square(np.diff(grey, axis=a, append=0)) for a in (0, 1))
    energy = rows + columns
    energy[-1], energy[:, -1] = 0, 0  # no neighbour to differ from
    corner = np.pad(energy.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    sums = corner[side:, side:] - corner[:-side, side:] - corner[side:, :-side]
    top, left = np.unravel_index((sums + corner[:-side, :-side]).argmax(), sums.shape)
    return int(left), int(top)


def error(pixels: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """\\|x - x_hat\\|, mean over the channels, uint8 (H, W, 3) to float (H, W) on [0, 1]."""
    errors: np.ndarray = np.abs(pixels.astype(float) - truth).mean(axis=2) / 255
    return errors


def error_scale(errors: Sequence[np.ndarray]) -> float:
    """The first of `ERROR_SCALES` that holds `ERROR_SHARE` of each of these, or else the last."""
    needed = max(float(np.quantile(values, ERROR_SHARE)) for values in errors)
    return next((scale for scale in ERROR_SCALES if scale >= needed), ERROR_SCALES[-1])


def error_colours() -> list[str]:
    """The colours from no error to the end of the scale, for CSS."""
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in _palette()]


def _comparison(
    rows: pd.DataFrame, images: Path, problem: str, image: str, labels: Mapping[str, str]
) -> Comparison:
    observed = Path(images, "observations", problem)
    truth, start = (read_image(observed / f"{image}_{kind}.png") for kind in ("truth", "start"))
    side = min(DETAIL, *truth.shape[:2])
    left, top = detail(truth, side)
    box = (slice(top, top + side), slice(left, left + side))
    restored = {
        method: read_image(Path(images, f"{method}_images", problem, f"{image}.png"))
        for method in labels
    }
    full = error_scale([error(pixels[box], truth[box]) for pixels in restored.values()])

    def view(name: str, caption: str, pixels: np.ndarray) -> ComparedImage:
        errors = "" if pixels is truth else _error(error(pixels[box], truth[box]) / full)
        return ComparedImage(name, caption, _picture(pixels), _exact(pixels[box]), errors)

    values = rows.to_dict("index")
    first = values[next(iter(labels))]
    return Comparison(
        width=truth.shape[1],
        height=truth.shape[0],
        left=left,
        top=top,
        side=side,
        error_full=full,
        views=(
            view("ground truth", "", truth),
            view("start", _caption(first["psnr_start_db"], first["ssim_start"]), start),
            *(
                view(label, _result(values[method]), restored[method])
                for method, label in labels.items()
            ),
        ),
    )


def _result(row: Mapping[Hashable, Any]) -> str:
    return _caption(row["psnr_db"], row["ssim"]) if row["outcome"] == "finished" else "diverged"


def _caption(psnr: float, ssim: float) -> str:
    return f"{psnr:.2f} dB, SSIM {ssim:.3f}"


def _picture(pixels: np.ndarray) -> str:
    return _uri(Image.fromarray(pixels), "webp")


def _exact(pixels: np.ndarray) -> str:
    return _uri(Image.fromarray(pixels), "webp", lossless=True)


def _error(errors: np.ndarray) -> str:
    """Errors in units of the scale."""
    steps = np.minimum(errors * ERROR_STEPS, ERROR_STEPS - 1).astype(np.uint8)
    picture = Image.fromarray(steps, mode="P")
    picture.putpalette([level for colour in _palette() for level in colour])
    return _uri(picture, "png")


@cache
def _palette() -> Sequence[tuple[int, int, int]]:
    colours = ERROR_COLOURS(range(ERROR_STEPS), bytes=True)[:, :3]
    return [(int(red), int(green), int(blue)) for red, green, blue in colours]


def _uri(image: Image.Image, kind: str, *, quality: int = QUALITY, lossless: bool = False) -> str:
    """As a data URI; quality and losslessness are of WebP alone."""
    buffer = io.BytesIO()
    image.save(buffer, format=kind, quality=quality, lossless=lossless, optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
