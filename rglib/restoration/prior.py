"""Restore images with a trained network: ``rglib.load("rerg").restore(y, "deblur_s1.6")``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rglib.core.algorithms import GradientDescent, PnPADMM, Record
from rglib.core.devices import device_named
from rglib.core.fixed_point import Adam, solver_named
from rglib.core.networks import load_frozen
from rglib.core.operators import (
    BLUR_SIZE,
    Blur,
    Downsample,
    Identity,
    Mask,
    downsampling_taps,
    gaussian_kernel,
    strided_filter,
)
from rglib.core.problems import (
    PROBLEMS,
    UNKNOWN_PIXEL,
    Completion,
    Deblurring,
    Degradation,
    Observation,
    Problem,
    SeededImage,
    SuperResolution,
    degradations,
)
from rglib.files import file_digest
from rglib.plan.ablations import overlaid
from rglib.plan.roles import DEVICES, ROLE
from rglib.progress import progress as shown_progress
from rglib.restoration.restorers import admm_schedule, restorer
from rglib.restoration.weights_folder import Config, Models

FARTHEST = 10.0  # of a value of y on [0, 1]: noise of std 1 stays below, levels of 0 to 255 do not


@dataclass(frozen=True)
class Prior:
    """A trained network and how to restore with it; `load` makes one.

    Attributes:
        name: the method, ``rerg`` for example.
        algorithm: ``gradient_descent``, which uses a G, or ``pnp_admm``, which uses a P.
        network: the G or P, on ``device``.
        settings: at test time, the sections evaluation, problems and admm of a configuration.
        device: where to compute.
        s: the weight of G is s^2 whatever the problem; None leaves it to the settings.
        weights: sha256 of the network's file, None if it was not read from one.
    """

    name: str
    algorithm: str
    network: nn.Module
    settings: Config
    device: torch.device
    s: float | None = None
    weights: str | None = None

    def restore(
        self,
        y: Tensor,
        problem: str | Problem,
        *,
        like: str | None = None,
        progress: str | None = None,
        record: Record | None = None,
    ) -> Tensor:
        """Restore images from their observation y, at the borders as the operator says: circular.

        The result is neither clipped nor rounded, the same numbers as in the tables. The settings
        are those of the table's problem that ``problem`` or ``like`` names, or else of the
        `nearest` one. For a noise level that is not this one's, s is the noise level, and PnP-ADMM
        ends no lower than at it. `adjusted` changes them.

        Args:
            y: float images (B, 3, h, w), nominally in [0, 1]; noise may lie outside.
            problem: an id of the tables (of deblurring or super-resolution: completion needs its
                mask), or an operator and a noise level.
            like: id of the problem in the tables whose settings are taken.
            progress: what the progress is called, see `rglib.progress`; None shows none.
            record: is shown every iterate, the starting point first.

        Returns:
            The restored images (B, 3, H, W), float32, on the device of y.

        Raises:
            ValueError: y is not such a tensor, is on 0 to 255 where ``problem`` is an id, or does
                not fit the operator; an unknown id; a noise level that is not on [0, 1]; the
                operator is none of the tables' and there is no ``like``.
        """
        _check_images(y)
        if isinstance(problem, str):  # an operator of your own may leave [0, 1]
            _check_reach(y)
            like = like or problem
            problem = problem_of(self._of_name(problem), y.shape)
        method = self.method(problem, like=like)
        _check_noise(problem.sigma)
        here = Problem(problem.A.to(self.device), problem.sigma)
        seen = observed(y.float().to(self.device), here)
        showing = shown_progress(
            progress or self.name,
            total=method.recorded,
            unit="iteration",
            shown=progress is not None,
        )
        with showing as advance:

            def show(x: Tensor) -> None:
                advance()
                if record is not None:
                    record(x)

            return method.restore(seen, show).to(y.device)

    def method(self, problem: Problem, *, like: str | None = None) -> GradientDescent | PnPADMM:
        """The algorithm with its settings for a problem, as `restore` says.

        Raises:
            ValueError: ``like`` is unknown, or needed as the operator is none of the tables'.
        """
        like = like or nearest(problem, self.settings["problems"])
        table = self._degradation(like)
        made = restorer(self.algorithm, like, self.network, self.settings, degradation=table)
        if isinstance(made, PnPADMM):
            schedule = admm_schedule(self.settings, table.task, sigma=problem.sigma)
            return replace(made, schedule=schedule)
        assert isinstance(made, GradientDescent)  # the only other algorithm
        if self.s is not None:
            return replace(made, s=self.s)
        noise_of_its_own = problem.sigma not in (0, table.sigma)
        return replace(made, s=problem.sigma) if noise_of_its_own else made

    def _degradation(self, problem_id: str) -> Degradation:
        problems = self.settings["problems"]
        if problem_id not in problems:
            raise ValueError(f"unknown problem {problem_id!r}; there are {', '.join(problems)}")
        return degradations({problem_id: problems[problem_id]})[problem_id]

    def _of_name(self, problem_id: str) -> Degradation:
        degradation = self._degradation(problem_id)
        if degradation.task == "completion":
            raise ValueError(
                f"{problem_id}: completion needs to know which pixels are known: give "
                "Problem(Mask(mask), sigma=0) with a mask (1, 1, H, W) of ones where they are"
            )
        return degradation

    def adjusted(
        self,
        *,
        iterations: int | None = None,
        solver: str | None = None,
        lr: float | None = None,
        s: float | None = None,
        tile_above: int | None = None,
    ) -> Prior:
        """The same prior with other settings, for every problem; None leaves one as it is.

        Args:
            iterations: of either algorithm; for gradient descent the start is among them.
            solver: adam or semi_implicit, for gradient descent like all that follow. With it no
                image ends early, and semi_implicit alone takes the mean of the last iterates.
            lr: the learning rate of Adam on the image.
            s: the weight of G is s^2, on [0, 1].
            tile_above: pixels above which G is applied to parts, to save memory.

        Raises:
            ValueError: a value is out of range, or none of the algorithm's or the solver's.
        """
        of_descent = _given(dict(solver=solver, lr=lr, s=s, tile_above=tile_above))
        if self.algorithm != "gradient_descent" and of_descent:
            raise ValueError(
                f"{min(of_descent)}: {self.name} restores by PnP-ADMM, which has no such setting"
            )
        _check_range(dict(iterations=iterations, lr=lr, s=s, tile_above=tile_above))
        _check_solver(solver or self.settings["evaluation"]["solver"], lr=lr)
        tasks = [key for key, entry in self.settings["admm"].items() if isinstance(entry, Mapping)]
        changes = {
            "evaluation": _given(dict(iterations=iterations, solver=solver, tile_above=tile_above))
            | _with_solver(solver),
            "problems": {problem: _given(dict(lr=lr)) for problem in self.settings["problems"]},
            "admm": {task: _given(dict(iterations=iterations)) for task in tasks},
        }
        return replace(
            self,
            settings=overlaid(self.settings, changes),
            s=self.s if s is None else s,
        )


def _with_solver(solver: str | None) -> dict[str, Any]:
    """What goes with another solver.

    Adam's short steps would pass for converged, and need no mean; it starts as in the paper.
    """
    if solver is None:
        return {}
    ours = solver == "semi_implicit"
    return {"tolerance": None, "average": ours, "x0": "interpolated" if ours else "released"}


def load(
    method: str,
    *,
    models: Path | str | None = None,
    device: str = "auto",
    precision: str = "float32",
) -> Prior:
    """Load a method's network with the settings it was evaluated with.

    Args:
        method: ``gauss``, ``mtdeq``, ``pnpreg``, ``rg1``, ``deqgd`` or ``rerg``.
        models: a folder of networks as `rglib.restoration.weights_folder` describes,
            ``work/<run>/models`` for example; None takes the networks that come with rglib.
        device: auto, cpu or cuda.
        precision: inside the network: float32, as in the tables; bfloat16; or auto, which is
            bfloat16 where the machine is fast at it.

    Raises:
        ModelsError: an unknown method, or a folder without its network, card or settings.
        WeightsError: the weights cannot be read, or are not of the size that the card says.
        ExtensionError: the card names a network of your own that is not in the working folder.
        ValueError: there is no such device or precision.
    """
    found = Models.open(None if models is None else Path(models))
    entry, weights = found.method(method), found.weights(method)
    if device not in DEVICES:
        raise ValueError(f"device: unknown {device!r}; there are {', '.join(DEVICES)}")
    on = device_named(device)
    network = load_frozen(
        ROLE[entry["algorithm"]],
        weights,
        network=found.card(method).network,
        device=on,
        precision=precision,
    )
    evaluation = found.settings["evaluation"] | entry.get("evaluation", {})
    return Prior(
        name=method,
        algorithm=entry["algorithm"],
        network=network,
        settings={**found.settings, "evaluation": evaluation},
        device=on,
        weights=file_digest(weights),
    )


def problem_of(degradation: Degradation, shape: torch.Size) -> Problem:
    """The problem behind observations of this shape (B, 3, h, w).

    Raises:
        ValueError: a blur kernel is larger than the image.
    """
    height, width = (side * enlargement(degradation) for side in shape[-2:])
    operator = degradation.operator(torch.Size((*shape[:-2], height, width)), SeededImage())
    return Problem(operator, degradation.sigma)


def enlargement(degradation: Degradation) -> int:
    """How many times larger the sides of an image are than those of its observation."""
    return degradation.factor if isinstance(degradation, SuperResolution) else 1


def observed(y: Tensor, problem: Problem) -> Observation:
    """An observation whose ground truth is not known, nan, with the starting point of the tables.

    Raises:
        ValueError: the operator is not for images of this size.
    """
    try:
        shape = problem.A.adjoint(y).shape
    except RuntimeError as error:
        raise ValueError(f"the operator does not fit y of {_size(y)} pixels: {error}") from error
    if isinstance(problem.A, Mask):
        x0 = torch.where(problem.A.mask.bool(), y, UNKNOWN_PIXEL)
    elif shape == y.shape:
        x0 = y
    else:  # as `SuperResolution.start`
        size = tuple(shape[-2:])
        x0 = functional.interpolate(y.clamp(0, 1), size=size, mode="bicubic", align_corners=False)
    return Observation(problem, torch.full_like(x0, math.nan), y, x0)


def nearest(problem: Problem, ids: Iterable[str]) -> str:
    """The problem of the tables that is most like this one, among ``ids``.

    Of the same task: for completion the one with the nearest share of known pixels; for a blur the
    one whose kernel's sum of squares is nearest, which is what a blur leaves of white noise; for
    super-resolution the nearest factor, then noise or none, then the nearest kernel. Plain
    denoising counts as a blur of no width.

    Raises:
        ValueError: the operator is another one than these, or no such problem is among ``ids``.
    """
    distances = {
        id: distance
        for id in ids
        if id in PROBLEMS and (distance := _distance(problem, PROBLEMS[id])) is not None
    }
    if not distances:
        raise ValueError(
            f"no problem of the tables has an operator like {type(problem.A).__name__}: name the "
            f"one whose settings are to be taken, `like`, of {', '.join(ids)}"
        )
    return min(distances, key=distances.__getitem__)


def _distance(problem: Problem, table: Degradation) -> tuple[float, ...] | None:
    """How far a problem is from one of the tables, None if they are of different tasks."""
    A = problem.A
    if isinstance(A, Mask) and isinstance(table, Completion):
        return (abs(A.mask.float().mean().item() - table.keep),)
    if isinstance(A, Blur | Identity) and isinstance(table, Deblurring):
        kernel = gaussian_kernel(table.sigma_b, size=BLUR_SIZE)
        return (abs(_noise_left(A) - kernel.square().sum().item()),)
    if isinstance(A, Downsample) and isinstance(table, SuperResolution):
        rows = A.rows.cpu()
        factor = round(rows.shape[1] / rows.shape[0])
        taps, first = downsampling_taps(factor, kernel=table.kernel)
        alike = strided_filter(taps, first, stride=factor, size=rows.shape[1])
        other_noise = bool(problem.sigma) != bool(table.sigma)
        return abs(factor - table.factor), other_noise, (alike - rows).norm().item()
    return None


def _noise_left(A: Blur | Identity) -> float:
    if isinstance(A, Identity):
        return 1.0
    kernel = torch.fft.irfft2(A.otf, s=(len(A.otf), A.width))
    return float(kernel.square().sum())


def _check_images(y: Tensor) -> None:
    if not (torch.is_tensor(y) and y.is_floating_point() and y.ndim == 4 and y.shape[1] == 3):
        what = f"{y.dtype} {tuple(y.shape)}" if torch.is_tensor(y) else type(y).__name__
        raise ValueError(
            f"y must be a float tensor (B, 3, h, w) on [0, 1], got {what}; "
            "rglib.core.tensors.to_tensor(rglib.data.images.read_image(path)) reads one"
        )
    if not y.isfinite().all():
        raise ValueError("y has values that are not finite")


def _check_reach(y: Tensor) -> None:
    if (most := y.abs().max().item()) > FARTHEST:
        raise ValueError(
            f"y reaches {most:.3g}, and must be on [0, 1] but for noise: divide it by its white"
        )


def _check_noise(sigma: float) -> None:
    if not 0 <= sigma <= 1:
        raise ValueError(f"sigma: {sigma} is not allowed; must be on [0, 1], as the image is")


def _check_range(values: Mapping[str, float | None]) -> None:
    lowest = {"lr": 0.0, "s": 0.0, "iterations": 1, "tile_above": 4096}
    for name, value in values.items():
        if value is not None and not (math.isfinite(value) and value >= lowest[name]):
            raise ValueError(f"{name}: {value} is not allowed; must be at least {lowest[name]:g}")


def _check_solver(name: str, *, lr: float | None) -> None:
    try:
        solver = solver_named(name, lr=1.0)
    except KeyError:
        raise ValueError(f"solver: unknown {name!r}; there are adam and semi_implicit") from None
    if lr is not None and not isinstance(solver, Adam):
        raise ValueError(f"lr: the solver {name} has no learning rate")


def _given(values: Mapping[str, float | str | None]) -> dict[str, float | str]:
    return {name: value for name, value in values.items() if value is not None}


def _size(y: Tensor) -> str:
    return f"{y.shape[-1]}x{y.shape[-2]}"
