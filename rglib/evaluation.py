"""One method on the problems and images of the tables: metrics, curves and restored images.

Every problem is finished on its own and kept under a fingerprint of all that its numbers depend on,
so an interrupted evaluation, or one with a changed learning rate for one problem, computes only
what is missing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import torch
from torch import Tensor

from rglib.files import file_digest, replacing
from rglib.fixed_point import solver_named
from rglib.images import ImageError, read_image, to_tensor, to_uint8, write_png
from rglib.manifest import Manifest
from rglib.metrics import SSIM_WINDOW, psnr, ssim
from rglib.networks import build, for_inference, load_into, preferred_arithmetic
from rglib.problems import PROBLEMS, Degradation, Observation, degradations, observe_image
from rglib.progress import Advance, progress
from rglib.restoration import ADMMSchedule, GradientDescent, PnPADMM, Record

DIVERGED_ABOVE = (
    100.0  # an entry of this size belongs to no image; the guard of the paper's training
)

Config = Mapping[str, Any]
Row = Mapping[str, str | int]


class Restorer(Protocol):
    """A method made for one problem."""

    @property
    def recorded(self) -> int:
        """How many iterates ``record`` is shown."""

    def restore(self, seen: Observation, record: Record) -> Tensor:
        """The restored image (B, 3, H, W); ``record`` is shown every iterate, x0 first."""


@dataclass(frozen=True)
class GroundTruth:
    """A ground truth (1, 3, H, W) in [0, 1] and its name."""

    name: str
    pixels: Tensor


@dataclass(frozen=True)
class EvaluationFiles:
    """Where the results of one method go, and where finished problems are kept in between."""

    results: Path
    curves: Path
    images: Path
    kept: Path


def evaluate_method(
    name: str,
    *,
    seed: int,
    algorithm: str,
    role: str,
    weights: Path,
    network: Config,
    problems: Mapping[str, Config],
    settings: Config,
    manifest: Manifest,
    files: EvaluationFiles,
    device: torch.device,
    precision: str,
    code: Sequence[str],
) -> None:
    """Evaluate the network ``role`` in ``weights`` by an algorithm, see `restorer` and `evaluate`.

    ``seed`` is that of the training, for the tables; ``network`` and ``settings`` are sections of
    the configuration, the latter those that the algorithm reads; ``problems`` says by id what
    those of one's own are, see `rglib.problems.degradations`; ``code`` is the hashes of the code,
    for the fingerprints.

    Raises:
        WeightsError: the weights belong to another network.
        ImageError: a test image cannot be read, or is too small for a problem.
        OSError: a file cannot be written; finished problems are kept.
    """
    arithmetic = preferred_arithmetic(precision, device)
    model = build(role, **network, arithmetic=arithmetic)
    load_into(model, weights)
    model = for_inference(model, device)
    images = read_test_images(manifest)
    kinds = degradations(problems)
    check_sizes(manifest, images, kinds)
    common = [name, seed, algorithm, file_digest(weights), manifest.digest(), str(arithmetic), code]
    own = {
        problem: [definition, _settings_of(problem, settings, task=kinds[problem].task)]
        for problem, definition in problems.items()
    }
    evaluate(
        {"method": name, "seed": seed},
        {
            problem: restorer(algorithm, problem, model, settings, degradation=kind)
            for problem, kind in kinds.items()
        },
        images,
        files,
        fingerprints={problem: fingerprint(common, own[problem]) for problem in problems},
        device=device,
        degradations=kinds,
    )


def restorer(
    algorithm: str,
    problem_id: str,
    network: torch.nn.Module,
    config: Config,
    *,
    degradation: Degradation | None = None,
) -> Restorer:
    """The method for one problem, from its entries in the configuration.

    ``config`` holds ``evaluation``, and ``problems`` or ``admm``; ``degradation`` is that of the
    problem where this is none of the twelve.
    """
    degradation = degradation or PROBLEMS[problem_id]
    if algorithm == "pnp_admm":
        schedule = config["admm"][degradation.task]
        return PnPADMM(
            network,
            ADMMSchedule(
                iterations=schedule["iterations"],
                sigma_first=schedule["sigma_first_255"] / 255,
                sigma_last=max(schedule["sigma_last_255"] / 255, degradation.sigma),
                sigma_min=config["admm"]["sigma_min_255"] / 255,
            ),
            ensemble=config["evaluation"]["ensemble"],
        )
    problem = config["problems"][problem_id]
    return GradientDescent(
        network,
        solver=solver_named(config["evaluation"]["solver"], lr=problem["lr"]),
        s=problem["s_255"] / 255,
        iterations=config["evaluation"]["iterations"],
        ensemble=config["evaluation"]["ensemble"],
        tile_above=config["evaluation"]["tile_above"],
    )


def read_test_images(manifest: Manifest) -> list[GroundTruth]:
    """The images of a test set."""
    return [GroundTruth(file.name, to_tensor(read_image(file.path))) for file in manifest.images]


def check_sizes(
    manifest: Manifest, images: Sequence[GroundTruth], problems: Mapping[str, Degradation]
) -> None:
    """Find out before the work whether every image is large enough for every problem.

    Raises:
        ImageError: one is not; the message names it, the problem and what to do.
    """
    for file, image in zip(manifest.images, images, strict=True):
        for problem_id, degradation in problems.items():
            height, width = degradation.crop(image.pixels).shape[-2:]
            needed = max(degradation.smallest, SSIM_WINDOW)
            if min(height, width) < needed:
                was = "x".join(map(str, reversed(image.pixels.shape[-2:])))
                raise ImageError(
                    f"{file.path} is too small for {problem_id}: of its {was} pixels the crop "
                    f"leaves {width}x{height}, and {needed}x{needed} are needed; take the image "
                    f"out of the data set {manifest.dataset}, or the problem out of `problems`"
                )


def centre(x: Tensor, size: int) -> Tensor:
    """The square of ``size`` pixels in the middle of x (B, 3, H, W), or all of a shorter side."""
    top, left = (max(0, side - size) // 2 for side in x.shape[-2:])
    return x[..., top : top + size, left : left + size]


def evaluate(
    row: Row,
    restorers: Mapping[str, Restorer],
    images: Sequence[GroundTruth],
    files: EvaluationFiles,
    *,
    fingerprints: Mapping[str, str],
    device: torch.device,
    degradations: Mapping[str, Degradation] = PROBLEMS,
) -> None:
    """Restore every image of every problem and write the results, curves and images.

    Args:
        row: the method and the seed, which begin each row of the tables.
        restorers: the method made for each problem.
        images: the test images.
        files: where everything goes.
        fingerprints: for each problem, what its numbers depend on; another one is computed anew.
        device: where to compute.
        degradations: of the problems.
    """
    kept = {problem for problem in restorers if _kept(files.kept / problem, fingerprints[problem])}
    work = {problem: len(images) * method.recorded for problem, method in restorers.items()}
    counted = progress(
        str(row["method"]),
        total=sum(work.values()),
        done=sum(work[problem] for problem in kept),
        unit="iteration",
    )
    with counted as advance:
        for problem_id, method in restorers.items():
            if problem_id in kept:
                continue
            folder = files.kept / problem_id
            shutil.rmtree(folder, ignore_errors=True)
            tables = []
            for image in images:
                seen = observe_image(degradations[problem_id], image.pixels).to(device)
                of_image = {**row, "problem_id": problem_id, "image": image.name}
                tables.append(_evaluate_image(of_image, method, seen, folder / "images", advance))
            _keep(folder, fingerprints[problem_id], tables)
    _collect(files, list(restorers))


def fingerprint(*parts: Any) -> str:
    """A hash of everything that a problem's numbers depend on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _settings_of(problem_id: str, settings: Config, *, task: str) -> list[Any]:
    """The settings that one problem's numbers depend on."""
    admm = settings.get("admm", {})
    return [
        settings["evaluation"],
        _numbers(settings.get("problems", {}).get(problem_id)),
        _numbers(admm.get(task)),
        admm.get("sigma_min_255"),
    ]


def _numbers(entry: Config | None) -> Config | None:
    """An entry of ``problems`` or ``admm`` without what says where its values come from."""
    return entry and {key: value for key, value in entry.items() if key != "source"}


def _evaluate_image(
    row: Row, method: Restorer, seen: Observation, folder: Path, advance: Advance
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row of results, and the curve, of one image; the restored image into a folder."""
    values: list[Tensor] = []  # stay on the device: reading one would wait for it

    def record(iterate: Tensor) -> None:
        values.append(psnr(iterate, seen.x_hat))
        advance(note=f"{row['problem_id']} {row['image']}")

    began = time.perf_counter()
    x = method.restore(seen, record)
    curve = torch.cat(values).cpu()
    seconds = time.perf_counter() - began
    best = int(curve.nan_to_num(nan=-torch.inf).argmax().item())
    result = {
        **row,
        "height": x.shape[-2],
        "width": x.shape[-1],
        "psnr_start_db": curve[0].item(),
        "ssim_start": ssim(seen.x0, seen.x_hat).item(),
        "psnr_db": curve[-1].item(),
        "ssim": ssim(x, seen.x_hat).item(),
        "psnr_best_db": curve[best].item(),
        "iteration_best": best,
        "iterations": len(curve) - 1,
        "outcome": _outcome(x),
        "seconds": round(seconds, 3),
    }
    write_png(folder / f"{row['image']}.png", to_uint8(x.nan_to_num()))
    points = {"iteration": range(len(curve)), "psnr_db": curve.tolist()}
    return pd.DataFrame([result]), pd.DataFrame({**row, **points})


def _outcome(x: Tensor) -> str:
    if not x.isfinite().all():
        return "non_finite"
    return "diverged" if x.abs().max() > DIVERGED_ABOVE else "finished"


def write_observation(degradation: Degradation, image: GroundTruth, folder: Path) -> None:
    """Write the cropped ground truth and the starting point of a problem as PNG."""
    seen = observe_image(degradation, image.pixels)
    write_png(folder / f"{image.name}_truth.png", to_uint8(seen.x_hat))
    write_png(folder / f"{image.name}_start.png", to_uint8(seen.x0))


def _kept(folder: Path, expected: str) -> bool:
    stamp = folder / "fingerprint"
    return stamp.exists() and stamp.read_text() == expected


def _keep(folder: Path, value: str, tables: Sequence[tuple[pd.DataFrame, pd.DataFrame]]) -> None:
    """Write a problem's results, and last of all the fingerprint that vouches for them."""
    results, curves = (pd.concat(frames) for frames in zip(*tables, strict=True))
    for name, table in (("results.csv", results), ("curves.csv", curves)):
        with replacing(folder / name) as partial:
            table.to_csv(partial, index=False)
    with replacing(folder / "fingerprint") as partial:
        partial.write_text(value)


def _collect(files: EvaluationFiles, problems: Sequence[str]) -> None:
    for target, kind in ((files.results, "results.csv"), (files.curves, "curves.csv")):
        # as text: an image may be called 0001 or null
        tables = [files.kept / problem / kind for problem in problems]
        frames = [pd.read_csv(table, dtype=str, keep_default_na=False) for table in tables]
        with replacing(target) as partial:
            pd.concat(frames).to_csv(partial, index=False)
    shutil.rmtree(files.images, ignore_errors=True)  # of a test set before this one
    for problem in problems:
        target = files.images / problem
        shutil.copytree(files.kept / problem / "images", target, dirs_exist_ok=True)
