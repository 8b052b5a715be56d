"""``rglib degrade``: make observations of images, as the tables do."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rglib.commands import refused, say
from rglib.commands.degradations import degradation_of
from rglib.commands.files import check_outputs, targets
from rglib.core.operators import Mask
from rglib.core.problems import Degradation, SeededImage, observe
from rglib.data.decoding import WHITE, ImageError
from rglib.data.photographs import (
    Photograph,
    as_levels,
    bits_in,
    check_format,
    check_range,
    read_photograph,
    size_of,
    write_mask,
    write_photograph,
)
from rglib.restoration.memory import IN_PARTS, enough_for


@dataclass(frozen=True)
class FilesToDegrade:
    """The files of one image to degrade."""

    source: Path
    target: Path
    mask: Path | None
    truth: Path | None


def run(chosen: argparse.Namespace) -> int:
    """Degrade everything, having looked at all of it first; return 0, or 2 if it cannot be."""
    try:
        degradation = degradation_of(chosen)
        if degradation.task == "completion" and chosen.mask is None:
            raise ValueError(f"{chosen.problem} needs --mask FILE, where to write what is known")
        if degradation.task != "completion" and chosen.mask is not None:
            raise ValueError("--mask is for completion, there is none to write")
        if chosen.seed < 0:
            raise ValueError(f"--seed: {chosen.seed} is not allowed; must be at least 0")
        all_files = files_of(chosen)
        for files in all_files:
            with enough_for(files.source, advice=IN_PARTS):
                check(files, degradation)
        for files in all_files:
            with enough_for(files.source, advice=IN_PARTS):
                say(degrade(files, degradation, seed=chosen.seed))
    except (ValueError, OSError) as error:
        return refused("degrade", error)
    return 0


def files_of(chosen: argparse.Namespace) -> list[FilesToDegrade]:
    """The files of each image.

    Raises:
        FilesError: inputs that are missing, or outputs that may not be written.
        ImageError: a folder without images, or an unknown format.
    """
    found = targets(chosen.input, chosen.output, ending=chosen.ending)
    none = dict.fromkeys(found)
    masks, truths = (
        targets(chosen.input, output, ending=".png") if output else none
        for output in (chosen.mask, chosen.truth)
    )
    all_files = [
        FilesToDegrade(source, found[source], masks[source], truths[source]) for source in found
    ]
    outputs = [
        path for files in all_files for path in (files.target, files.mask, files.truth) if path
    ]
    check_outputs(outputs, inputs=found, overwrite=chosen.overwrite)
    return all_files


def read(files: FilesToDegrade, degradation: Degradation) -> Photograph:
    """The image, cropped as the tables do.

    Raises:
        ImageError: it cannot be read, has transparent pixels, or is too small.
    """
    whole = read_photograph(files.source)
    if whole.alpha is not None and whole.alpha.min() < WHITE[whole.alpha.dtype]:
        raise ImageError(f"cannot degrade {files.source}: it has transparent pixels")
    check_range(files.source, whole.pixels, sigma=0)
    cropped = degradation.crop(whole.pixels)
    if min(cropped.shape[-2:]) < degradation.smallest:
        raise ImageError(
            f"{files.source} is too small: of its {size_of(whole.pixels)} pixels the crop leaves "
            f"{size_of(cropped)}, and {degradation.smallest} are needed on each side"
        )
    return replace(whole, pixels=cropped, alpha=None)


def check(files: FilesToDegrade, degradation: Degradation) -> None:
    """Read the image, and write nothing.

    Raises:
        ImageError: as `read`, or for a format without room for what the image has.
    """
    photograph = read(files, degradation)
    for path in filter(None, (files.target, files.truth)):
        check_format(path, photograph)


def degrade(files: FilesToDegrade, degradation: Degradation, *, seed: int) -> str:
    """Degrade one image, write what is asked for and return what there is to say about it."""
    truth = read(files, degradation)
    seen = observe(degradation, truth.pixels, SeededImage(seed))
    # of a grey one the first channel, whose noise is as strong as asked: a mean's would be weaker
    y = seen.y[:, :1].expand(-1, 3, -1, -1) if truth.grey else seen.y
    observation = truth.with_pixels(y)
    write_photograph(files.target, observation)
    if files.truth:
        write_photograph(files.truth, truth)
    if files.mask and isinstance(seen.problem.A, Mask):
        write_mask(files.mask, seen.problem.A.mask)
    return f"{files.target}: {size_of(y)}{_loss(files.target, observation)}"


def _loss(target: Path, observation: Photograph) -> str:
    """What a file's bits lose of y: nothing where it has the values of an image of as many."""
    bits = bits_in(target, observation)
    exact = as_levels(observation.pixels, 32)
    levels = as_levels(observation.pixels, bits)
    rounded = (levels / WHITE[levels.dtype]).astype(np.float32)
    change = np.sqrt(np.square(rounded - exact).mean())
    if change == 0:
        return ""
    return (
        f"; clipping and rounding to {bits} bits changed it by {change:.1e}, .npy keeps it exactly"
    )
