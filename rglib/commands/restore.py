"""``rglib restore``: restore photographs with a trained network."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rglib.commands import degradations, refused, say
from rglib.commands.files import check_outputs, companion, targets
from rglib.core.metrics import SSIM_WINDOW, psnr, ssim
from rglib.core.networks import WeightsError
from rglib.core.operators import Mask
from rglib.core.problems import Degradation, KnownPixels, Problem
from rglib.data.decoding import WHITE, ImageError
from rglib.data.photographs import (
    Photograph,
    check_format,
    check_range,
    read_mask,
    read_photograph,
    size_of,
    write_photograph,
)
from rglib.restoration.borders import continued
from rglib.restoration.certificate import SUFFIX, Certificate, certified
from rglib.restoration.memory import IN_PARTS, check_memory, enough_for, fits
from rglib.restoration.noise import estimated_noise
from rglib.restoration.prior import Prior, enlargement, load, observed, problem_of
from rglib.restoration.threads import use_fastest

REACH_OF_DOWNSAMPLING = 8  # observed pixels; the kernels reach 2, and a wider margin gains nothing
TILES = 262144  # pixels above which parts are advised
TILE = f"--tile-above {TILES} applies the network to parts, which needs less"


@dataclass(frozen=True)
class FilesToRestore:
    """The files of one image to restore."""

    source: Path
    target: Path
    mask: Path | None
    truth: Path | None
    certificate: Path | None


@dataclass(frozen=True)
class Work:
    """An image read: y with its margin, and how large the result is without."""

    photograph: Photograph
    y: Tensor
    problem: Problem
    height: int
    width: int
    truth: Tensor | None


def run(chosen: argparse.Namespace) -> int:
    """Restore everything, having looked at all of it first; return 0 or 2 as the help says."""
    torch.backends.cudnn.allow_tf32 = False  # float32 is to mean float32
    try:
        all_files = files_of(chosen)
        prior = load(
            chosen.method, models=chosen.models, device=chosen.device, precision=chosen.precision
        )
        prior = prior.adjusted(
            iterations=chosen.iterations,
            solver=chosen.solver,
            lr=chosen.lr,
            s=chosen.s,
            tile_above=chosen.tile_above,
        )
        for files in all_files:
            with enough_for(files.source, advice=IN_PARTS):
                check(files, prior, chosen)
        set_threads(prior, chosen.threads)
        for files in all_files:
            with enough_for(files.source, advice=IN_PARTS):
                work = work_of(files, chosen)
            with enough_for(files.source, advice=advice_on_memory(prior, work)):
                say(restore(files, work, prior, chosen))
    except (ValueError, OSError, WeightsError) as error:
        return refused("restore", error)
    return 0


def set_threads(prior: Prior, number: int | None) -> None:
    """Use so many CPU threads; None takes the number that is fastest now, and says which."""
    if number is not None:
        torch.set_num_threads(number)
    elif said := use_fastest(prior):
        print(said, file=sys.stderr)


def files_of(chosen: argparse.Namespace) -> list[FilesToRestore]:
    """The files of each image.

    Raises:
        FilesError: inputs that are missing, or outputs that may not be written.
        ImageError: a folder without images, or an unknown format.
    """
    found = targets(chosen.input, chosen.output, ending=".png")
    all_files = [
        FilesToRestore(
            source,
            target,
            mask=companion(chosen.mask, source, folder=chosen.input.is_dir()),
            truth=companion(chosen.truth, source, folder=chosen.input.is_dir()),
            certificate=target.with_name(target.name + SUFFIX) if chosen.certificate else None,
        )
        for source, target in found.items()
    ]
    given = [
        path for files in all_files for path in (files.source, files.mask, files.truth) if path
    ]
    written = [path for files in all_files for path in (files.target, files.certificate) if path]
    check_outputs(written, inputs=given, overwrite=chosen.overwrite)
    return all_files


def work_of(files: FilesToRestore, chosen: argparse.Namespace) -> Work:
    """Read the files of an image and check that they go together.

    Raises:
        ImageError: a file cannot be read, sizes differ, or the output cannot hold the image.
        ValueError: what the image suffered is not said, or is contradictory.
    """
    photograph = read_photograph(files.source)
    check_format(files.target, photograph)
    y = photograph.pixels
    degradation = _degradation(files, chosen, y)
    height, width = (side * enlargement(degradation) for side in y.shape[-2:])
    if chosen.border == "photograph":
        y = continued(y, _margin(degradation))
    try:
        problem = problem_of(degradation, y.shape)
    except ValueError as error:
        raise ImageError(f"cannot restore {files.source}: {error}") from error
    pixels = photograph.pixels
    known = problem.A.mask.bool().expand_as(pixels) if isinstance(problem.A, Mask) else ...
    check_range(files.source, pixels[known], sigma=problem.sigma)
    truth = _truth(files.truth, degradation, torch.Size((height, width)))
    return Work(photograph, y, problem, height, width, truth)


def check(files: FilesToRestore, prior: Prior, chosen: argparse.Namespace) -> None:
    """Find out before the work whether an image can be restored.

    Raises:
        ImageError: as `work_of`.
        ValueError: as `work_of`; there are no settings for the problem, or the memory is too small.
    """
    work = work_of(files, chosen)
    prior.method(work.problem, like=chosen.problem)
    check_memory(
        files.source,
        torch.Size((work.height, work.width)),
        prior.network,
        prior.device,
        tile_above=tile_above(prior),
        advice=advice_on_memory(prior, work),
    )


def tile_above(prior: Prior) -> int | None:
    """Pixels above which the network is applied to parts, which PnP-ADMM never does."""
    descends = prior.algorithm == "gradient_descent"
    pixels: int | None = prior.settings["evaluation"]["tile_above"] if descends else None
    return pixels


def advice_on_memory(prior: Prior, work: Work) -> str:
    """What can be done where the memory is too small for an image."""
    can_tile = prior.algorithm == "gradient_descent" and tile_above(prior) is None
    pixels = work.height * work.width
    helps = pixels > TILES and fits(pixels, prior.network, prior.device, tile_above=TILES)
    return TILE if can_tile and helps else IN_PARTS


def restore(files: FilesToRestore, work: Work, prior: Prior, chosen: argparse.Namespace) -> str:
    """Restore one image, write it and return what there is to say about it."""
    began = time.monotonic()
    x, certificate = _restored(work, prior, chosen, name=files.source.name)
    seconds = time.monotonic() - began
    x = x[..., : work.height, : work.width]
    write_photograph(files.target, _opaque(work).with_pixels(x))
    said = f"{files.target}: {size_of(x)}, {seconds:.1f} s"
    if chosen.estimate_noise:
        said += f"; noise estimated at {work.problem.sigma:.4f}"
    if files.certificate and certificate:
        certificate.write(files.certificate)
        said += f"; {certificate.said}"
    if work.truth is not None:
        start = observed(work.y, work.problem).x0[..., : work.height, : work.width]
        before, after = (
            f"{psnr(image, work.truth).item():.2f} dB, {ssim(image, work.truth).item():.3f}"
            for image in (start, x)
        )
        said += f"; PSNR and SSIM {before} -> {after}"
    return said


def _restored(
    work: Work, prior: Prior, chosen: argparse.Namespace, *, name: str
) -> tuple[Tensor, Certificate | None]:
    """The image with its margin, and a certificate if one is asked for."""
    if chosen.certificate:
        return certified(prior, work.y, work.problem, like=chosen.problem, progress=name)
    return prior.restore(work.y, work.problem, like=chosen.problem, progress=name), None


def _opaque(work: Work) -> Photograph:
    """The photograph, opaque where pixels were missing: an erased part would not be seen."""
    alpha, A = work.photograph.alpha, work.problem.A
    if alpha is None or not isinstance(A, Mask):
        return work.photograph
    filled = np.where(A.mask[0, 0].numpy() > 0, alpha, WHITE[alpha.dtype]).astype(alpha.dtype)
    return replace(work.photograph, alpha=filled)


def _with_noise(chosen: argparse.Namespace, y: Tensor) -> argparse.Namespace:
    """The arguments, with the noise of an image y where it is to be estimated.

    Raises:
        ValueError: it is given too, or the image is incomplete.
    """
    if not chosen.estimate_noise:
        return chosen
    if chosen.noise is not None:
        raise ValueError("--estimate-noise: leave it out where --noise says the level")
    if chosen.mask is not None:
        raise ValueError("--estimate-noise: not with --mask, missing pixels would count as noise")
    return argparse.Namespace(**vars(chosen) | {"noise": estimated_noise(y)})


def _degradation(files: FilesToRestore, chosen: argparse.Namespace, y: Tensor) -> Degradation:
    chosen = _with_noise(chosen, y)
    if files.mask is None:
        degradation = degradations.degradation_of(chosen)
        if degradation.task == "completion":
            raise ValueError(f"{chosen.problem} needs --mask FILE, which says what is known")
        return degradation
    table = degradations.table_problem(chosen.problem)
    of_kernel = chosen.kernel is not None or chosen.correlated or chosen.kernel_name is not None
    if of_kernel or (table is not None and table.task != "completion"):
        raise ValueError("--mask is for completion: leave out --kernel and other problems")
    degradations.check_noise(chosen.noise)
    mask = read_mask(files.mask, height=y.shape[-2], width=y.shape[-1])
    return KnownPixels(mask, chosen.noise or 0.0)


def _margin(degradation: Degradation) -> int:
    """Pixels by which a photograph is continued: where its operator reaches over a border."""
    reach = {"deblurring": degradation.smallest, "super_resolution": REACH_OF_DOWNSAMPLING}
    return reach.get(degradation.task, 0)


def _truth(path: Path | None, degradation: Degradation, size: torch.Size) -> Tensor | None:
    """The ground truth, cropped as in the tables where only then it has the result's size."""
    if path is None:
        return None
    photograph = read_photograph(path)
    if photograph.alpha is not None and photograph.alpha.min() < WHITE[photograph.alpha.dtype]:
        raise ImageError(f"cannot compare with {path}: it has transparent pixels")
    whole = photograph.pixels
    truth = whole if whole.shape[-2:] == size else degradation.crop(whole)
    if truth.shape[-2:] != size:
        raise ImageError(
            f"the truth {path} has {size_of(whole)} pixels, the result {size[1]}x{size[0]}"
        )
    if min(size) < SSIM_WINDOW:
        raise ImageError(f"{path} is too small for SSIM, whose window is {SSIM_WINDOW} pixels")
    return truth
