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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from rglib.core.algorithms import GradientDescent
from rglib.core.metrics import SSIM_WINDOW, psnr, ssim
from rglib.core.networks import load_frozen, preferred_arithmetic
from rglib.core.problems import PROBLEMS, Degradation, Observation, degradations, observe_image
from rglib.core.tensors import centre, to_tensor, to_uint8
from rglib.data.images import ImageError, read_listed, write_png
from rglib.data.manifest import Manifest
from rglib.files import file_digest, replacing
from rglib.progress import PIXEL, Advance, progress
from rglib.restoration.restorers import Batched, Restorer, restorer

DIVERGED_ABOVE = (
    100.0  # an entry of this size belongs to no image; the guard of the paper's training
)

Config = Mapping[str, Any]
Row = Mapping[str, str | int]
Tables = tuple[pd.DataFrame, pd.DataFrame]  # results and curves
STAMP = "fingerprint"  # the file that vouches for those of a problem


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
    code: Mapping[str, str],
) -> None:
    """Evaluate the network ``role`` in ``weights`` by an algorithm, see `restorer` and `evaluate`.

    ``seed`` is that of the training, for the tables; ``network`` and ``settings`` are sections of
    the configuration, the latter those that the algorithm reads; ``problems`` says by id what
    those of your own are, see `rglib.core.problems.degradations`; ``code`` is the hashes of the
    code by its entry points, for the fingerprints.

    Raises:
        WeightsError: the weights belong to another network.
        ImageError: a test image cannot be read, or is too small for a problem.
        OSError: a file cannot be written; finished problems are kept.
    """
    compiled = settings["evaluation"]["compile"]
    model = load_frozen(
        role, weights, network=network, device=device, precision=precision, compiled=compiled
    )
    crop = settings["evaluation"].get("crop")
    images = read_test_images(manifest, crop=crop)
    kinds = degradations(problems)
    check_sizes(manifest, images, kinds, crop=crop)
    arithmetic = str(preferred_arithmetic(precision, device))
    common = [name, seed, algorithm, file_digest(weights), manifest.digest(), arithmetic, code]
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
        batch=settings["evaluation"]["batch"],
    )


def read_test_images(manifest: Manifest, *, crop: int | None = None) -> list[GroundTruth]:
    """The images of a test set, or of each the square of ``crop`` pixels in its middle.

    Raises:
        ImageError: one cannot be read, or is no longer the file that was listed.
    """
    whole = [GroundTruth(file.name, to_tensor(read_listed(file))) for file in manifest.images]
    if crop is None:
        return whole
    return [GroundTruth(image.name, centre(image.pixels, crop)) for image in whole]


def check_sizes(
    manifest: Manifest,
    images: Sequence[GroundTruth],
    problems: Mapping[str, Degradation],
    *,
    crop: int | None = None,
) -> None:
    """Find out before the work whether every image is large enough for every problem.

    ``crop`` is that of `read_test_images`, for the message.

    Raises:
        ImageError: one is not; the message names it, the problem and what to do.
    """
    for file, image in zip(manifest.images, images, strict=True):
        for problem_id, degradation in problems.items():
            height, width = degradation.crop(image.pixels).shape[-2:]
            needed = max(degradation.smallest, SSIM_WINDOW)
            if min(height, width) < needed:
                was = "x".join(map(str, reversed(image.pixels.shape[-2:])))
                middle = f", cropped to its middle ({crop} pixels)," if crop else ""
                raise ImageError(
                    f"{file.path}{middle} is too small for {problem_id}: of its {was} pixels the "
                    f"crop leaves {width}x{height}, and {needed}x{needed} are needed; take the "
                    f"image out of the data set {manifest.dataset}, or the problem out of "
                    "`problems`"
                )


def evaluate(
    row: Row,
    restorers: Mapping[str, Restorer],
    images: Sequence[GroundTruth],
    files: EvaluationFiles,
    *,
    fingerprints: Mapping[str, str],
    device: torch.device,
    degradations: Mapping[str, Degradation] = PROBLEMS,
    batch: int = 1,
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
        batch: the most restorations at a time, see `_Job.may_join`.
    """
    kept = {problem for problem in restorers if _kept(files.kept / problem, fingerprints[problem])}
    work = {  # an iteration takes as long as its image has pixels
        problem: method.recorded * sum(_pixels(degradations[problem], image) for image in images)
        for problem, method in restorers.items()
    }
    counted = progress(
        str(row["method"]),
        total=sum(work.values()),
        done=sum(work[problem] for problem in kept),
        unit=PIXEL,
    )
    missing = [problem for problem in restorers if problem not in kept]
    for problem_id in missing:
        shutil.rmtree(files.kept / problem_id, ignore_errors=True)
    jobs = [
        _Job(problem_id, degradations[problem_id], restorers[problem_id], image)
        for problem_id in missing
        for image in images
    ]
    tables: dict[str, list[Tables]] = {problem_id: [] for problem_id in missing}
    with counted as advance:
        for together in _batches(jobs, batch):
            restored = _restore(together, device, advance)
            for job, one in zip(together, restored, strict=True):
                folder = files.kept / job.problem_id
                write_png(folder / "images" / f"{job.image.name}.png", to_uint8(one.x.nan_to_num()))
                tables[job.problem_id].append(one.tables({**row, **job.names}))
                if len(tables[job.problem_id]) == len(images):
                    _keep(folder, fingerprints[job.problem_id], tables[job.problem_id])
    _collect(files, list(restorers))


@dataclass(frozen=True)
class _Job:
    """One image of one problem, to be restored."""

    problem_id: str
    degradation: Degradation
    method: Restorer
    image: GroundTruth

    @property
    def names(self) -> dict[str, str]:
        return {"problem_id": self.problem_id, "image": self.image.name}

    def may_join(self, other: _Job) -> bool:
        """Whether both can be one batch: alike, on images of one size."""
        sizes = {job.degradation.crop(job.image.pixels).shape for job in (self, other)}
        method = self.method
        return len(sizes) == 1 and isinstance(method, Batched) and method.alike(other.method)


def _batches(jobs: Sequence[_Job], size: int) -> Iterator[list[_Job]]:
    """The jobs in groups of at most ``size`` that share a batch; of 1, in their order."""
    waiting: list[list[_Job]] = []
    for job in jobs:
        group = next((group for group in waiting if group[0].may_join(job)), [])
        if not group:
            waiting.append(group)
        group.append(job)
        if len(group) == size:
            waiting = [other for other in waiting if other is not group]
            yield group
    yield from waiting


@dataclass(frozen=True)
class _Restored:
    """A restoration from x0 to x (1, 3, H, W), the PSNR of every iterate, and its seconds.

    ``residuals`` are those at x0 and x, see `GradientDescent.residual`; None of PnP-ADMM.
    """

    x_hat: Tensor
    x0: Tensor
    x: Tensor
    curve: Tensor
    seconds: float
    residuals: tuple[float | None, float | None]

    def tables(self, row: Row) -> Tables:
        """One row of results, and the curve."""
        best = int(self.curve.nan_to_num(nan=-torch.inf).argmax().item())
        result = {
            **row,
            "height": self.x.shape[-2],
            "width": self.x.shape[-1],
            "psnr_start_db": self.curve[0].item(),
            "ssim_start": ssim(self.x0, self.x_hat).item(),
            "psnr_db": self.curve[-1].item(),
            "ssim": ssim(self.x, self.x_hat).item(),
            "psnr_best_db": self.curve[best].item(),
            "iteration_best": best,
            "iterations": len(self.curve) - 1,
            "outcome": _outcome(self.x),
            "residual_start": self.residuals[0],
            "residual": self.residuals[1],
            "seconds": round(self.seconds, 3),
        }
        points = {"iteration": range(len(self.curve)), "psnr_db": self.curve.tolist()}
        return pd.DataFrame([result]), pd.DataFrame({**row, **points})


def _restore(jobs: Sequence[_Job], device: torch.device, advance: Advance) -> list[_Restored]:
    """Restore a batch; its images share the seconds."""
    seen = [observe_image(job.degradation, job.image.pixels).to(device) for job in jobs]
    x_hat = torch.cat([one.x_hat for one in seen])
    note = f"{jobs[0].problem_id} {jobs[0].image.name}"
    curves = Curves(x_hat, length=jobs[0].method.recorded)
    starts: list[Tensor] = []

    def record(iterate: Tensor) -> None:
        if not starts:
            starts.append(iterate.clone())
        curves.add(iterate)
        advance(iterate[:, 0].numel(), note=note)

    method, began = jobs[0].method, time.perf_counter()
    if len(jobs) > 1 and isinstance(method, Batched):
        x = method.together([job.method for job in jobs], seen, record)
    else:
        x = method.restore(seen[0], record)
    psnr_db = curves.psnr_db.cpu()
    seconds = (time.perf_counter() - began) / len(jobs)
    images = zip(jobs, seen, x_hat.split(1), starts[0].split(1), x.split(1), psnr_db, strict=True)
    return [
        _Restored(truth, x0, one, curve, seconds, (_residual(job, y, x0), _residual(job, y, one)))
        for job, y, truth, x0, one, curve in images
    ]


def _residual(job: _Job, seen: Observation, x: Tensor) -> float | None:
    """How far from a zero of D + s^2 G, for two of the many evaluations of G at most."""
    method = job.method
    return method.residual(seen, x).item() if isinstance(method, GradientDescent) else None


def _pixels(degradation: Degradation, image: GroundTruth) -> int:
    """Of an image as it is restored."""
    return degradation.crop(image.pixels)[:, 0].numel()


class Curves:
    """The PSNR of every iterate of a batch, where the iterates are: reading it waits for a GPU.

    In one tensor from the start. One for each iterate, kept among large ones that are not, scatters
    the heap, and memory grows with the iterations.
    """

    def __init__(self, x_hat: Tensor, *, length: int) -> None:
        self._x_hat = x_hat
        self._values = x_hat.new_empty(len(x_hat), length)
        self._count = 0

    def add(self, iterate: Tensor) -> None:
        """The next iterate, of the shape of the ground truth x_hat (B, 3, H, W)."""
        self._values[:, self._count] = psnr(iterate, self._x_hat)
        self._count += 1

    @property
    def psnr_db(self) -> Tensor:
        """(B, iterates so far)."""
        return self._values[:, : self._count]


def fingerprint(*parts: Any) -> str:
    """A hash of everything that a problem's numbers depend on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _settings_of(problem_id: str, settings: Config, *, task: str) -> list[Any]:
    """The settings that one problem's numbers depend on."""
    admm = settings.get("admm", {})
    evaluation = {k: v for k, v in settings["evaluation"].items() if k != "batch"}
    return [
        evaluation,  # a batch changes rounding alone
        _numbers(settings.get("problems", {}).get(problem_id)),
        _numbers(admm.get(task)),
        admm.get("sigma_min_255"),
    ]


def _numbers(entry: Config | None) -> Config | None:
    """An entry of ``problems`` or ``admm`` without what says where its values come from."""
    return entry and {key: value for key, value in entry.items() if key != "source"}


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
    stamp = folder / STAMP
    return stamp.exists() and stamp.read_text() == _stamp(folder, expected)


def _stamp(folder: Path, value: str) -> str:
    """What vouches for a problem's files: its fingerprint, and each of them as it was written."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != STAMP)
    return fingerprint(
        value, [[str(path.relative_to(folder)), file_digest(path)] for path in files]
    )


def _keep(folder: Path, value: str, tables: Sequence[Tables]) -> None:
    """Write a problem's results, and last of all the fingerprint that vouches for them."""
    results, curves = (pd.concat(frames) for frames in zip(*tables, strict=True))
    for name, table in (("results.csv", results), ("curves.csv", curves)):
        with replacing(folder / name) as partial:
            table.to_csv(partial, index=False)
    stamp = _stamp(folder, value)
    with replacing(folder / STAMP) as partial:
        partial.write_text(stamp)


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
