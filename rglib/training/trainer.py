"""One training loop for every stage: any objective, its networks, resume to the same bits."""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from rglib.core.devices import sent
from rglib.core.kept import Keep, Pool
from rglib.files import replacing, writing
from rglib.progress import progress
from rglib.training.checkpoint import Checkpoints
from rglib.training.objectives.losses import Batch, Losses, Objective
from rglib.training.optimisers import optimisers, step_if
from rglib.training.processes import ALONE, Processes

LOGGER = logging.getLogger(__name__)

NON_FINITE_IN_A_ROW = 20  # updates skipped before a training gives up
LOOK_EVERY = {"cpu": 1, "cuda": 50}  # updates between looks at them, as a look waits for the device
EMA_RAMP = 10  # the average forgets its start within the first steps


class TrainingError(Exception):
    """A training that cannot go on; the message says what to try."""


class Interrupted(SystemExit):
    """SIGTERM, or the time is up: a checkpoint is written and the same command resumes."""


class Crops(Protocol):
    """Random crops as a pure function of the step."""

    def crops(self, step: int) -> np.ndarray | Tensor:
        """uint8 (batch, 3, crop, crop), as a tensor perhaps on the device."""


class Schedule(Protocol):
    """The learning rate over the steps, as a factor."""

    def factor(self, step: int, steps: float, *, since: int = 0) -> float:
        """What multiplies the learning rate at a step of 0..steps - 1.

        ``since`` is the step from which the optimisers remember.
        """


@dataclass(frozen=True)
class StepDecay:
    """Times ``gamma`` every ``every`` steps, as the paper trains."""

    every: int
    gamma: float

    def factor(self, step: int, steps: float, *, since: int = 0) -> float:
        """gamma^(step // every)."""
        return self.gamma ** (step // self.every)


@dataclass(frozen=True)
class Cosine:
    """Linear warm-up, then half a cosine down to 0: for short trainings.

    Optimisers that have forgotten everything warm up anew.
    """

    warmup: int = 0

    def factor(self, step: int, steps: float, *, since: int = 0) -> float:
        """min(1, (step - since + 1) / warmup) (1 + cos(pi step / steps)) / 2."""
        ramp = min(1.0, (step - since + 1) / self.warmup) if self.warmup else 1.0
        return ramp * 0.5 * (1 + math.cos(math.pi * step / steps))


@dataclass(frozen=True)
class Recipe:
    """What to train and for how long.

    Attributes:
        objective: what is minimised.
        steps: updates in all; None where the budget is minutes.
        lr: Adam's learning rate at its highest.
        muon: that of Muon, which then teaches the inner convolutions; None has Adam teach all.
        schedule: the course of the learning rate.
        minutes: of training, all runs together, instead of steps. The schedule then follows the
            time, and another run of the same stage ends with other bits.
        clip: largest norm of the gradient over all networks; None leaves it alone.
        ema: decay of the average of the weights that is the result; None takes the last weights.
        keep: has batches live across updates; None visits each once.
        seed: of noise, masks and problems.
        log_every: steps between rows of the history.
        monitor_every: steps between calls of the monitor; None never.
        checkpoint_seconds: time between checkpoints.

    Raises:
        ValueError: there are not either steps or minutes.
    """

    objective: Objective
    steps: int | None
    lr: float
    schedule: Schedule
    minutes: float | None = None
    muon: float | None = None
    clip: float | None = None
    ema: float | None = None
    keep: Keep | None = None
    seed: int = 0
    log_every: int = 50
    monitor_every: int | None = None
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise ValueError("a stage has a budget of either steps or minutes")


Row = dict[str, float | Tensor]  # numbers, and pictures (3, H, W) in [0, 1]
Monitor = Callable[[Mapping[str, nn.Module]], Row]


class Trainer:
    """A stage in the course of its training; `run` finishes it, from its checkpoint if it has one.

    All randomness is a function of the seed and the step, so a checkpoint is the weights, Adam's
    moments, the average, the step and the history, and a resumed training ends with the same bits
    as one that never stopped.

    Several `Processes` train the same networks, each on its share of every batch, and may resume
    what another number of them began. The first one alone writes files and logs.

    ``description`` is what TensorBoard tells of the training beside the curves.

    Attributes:
        seconds: trained so far, in all runs.
        since: the step from which the optimisers remember, 0 unless the weights were `taken_up`.
        deadline: of `time.monotonic`, at which to stop with a checkpoint; None never.
        saved: is called after each checkpoint.
    """

    def __init__(
        self,
        recipe: Recipe,
        networks: Mapping[str, nn.Module],
        crops: Crops,
        *,
        folder: Path,
        fingerprint: str,
        device: torch.device,
        monitor: Monitor | None = None,
        processes: Processes = ALONE,
        description: Mapping[str, Any] | None = None,
    ) -> None:
        self.recipe = recipe
        self.crops = crops
        self.folder = folder
        self.device = device
        self.monitor = monitor
        self.processes = processes
        self.description = description
        self.networks = {role: network.to(device) for role, network in networks.items()}
        for role, network in self.networks.items():
            network.requires_grad_(role in recipe.objective.learns)
        self.learned = {role: self.networks[role] for role in recipe.objective.learns}
        self.parameters = [p for network in self.learned.values() for p in network.parameters()]
        self.optimisers = optimisers(list(self.learned.values()), lr=recipe.lr, muon=recipe.muon)
        self.highest = {
            name: optimiser.param_groups[0]["lr"] for name, optimiser in self.optimisers.items()
        }
        self.average = [p.detach().clone() for p in self.parameters]
        self.pool = None if recipe.keep is None else Pool(recipe.keep)
        self.step = 0
        self.seconds = 0.0
        self.since = 0
        self.skipped = torch.zeros((), dtype=torch.long, device=device)
        self.deadline: float | None = None
        self.saved: Callable[[], None] = lambda: None
        self.history: list[dict[str, float]] = []
        self.checkpoints = Checkpoints(folder / "checkpoints", fingerprint)

    def run(self) -> dict[str, dict[str, Tensor]]:
        """Train to the end and return the state dict of each learned network.

        Raises:
            TrainingError: another training runs in the same folder, or updates keep being
                non-finite.
            OSError: a file cannot be written; the last checkpoint is as it was.
            Interrupted: SIGTERM, or the deadline; a checkpoint was written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(self.folder) if self.processes.first else nullcontext()
        with writing(self.folder), lock, _sigterm() as asked_to_stop:
            self._resume()
            self._loop(asked_to_stop)
            self.write_history()
        return self.result()

    @property
    def skipped_in_a_row(self) -> int:
        """The last updates, as far as they were not finite; a GPU is waited for."""
        return int(self.skipped)

    def take_up(
        self,
        weights: Mapping[str, Mapping[str, Tensor]],
        *,
        step: int,
        seconds: float,
        history: Sequence[Mapping[str, float]] = (),
    ) -> None:
        """Go on from weights by role, such as `result` gives, at a step and after so many seconds.

        For a training that has lost its optimisers' memory and its kept iterates on the way from
        another machine. A checkpoint in the folder, which has these, comes before.
        """
        for role, network in self.learned.items():
            network.load_state_dict(weights[role])
        self.average = [p.detach().clone() for p in self.parameters]
        self.step, self.since, self.seconds = step, step, seconds
        self.history = [dict(row) for row in history]

    def result(self) -> dict[str, dict[str, Tensor]]:
        """State dicts by role, averaged where the stage says so; so far, if it is not finished."""
        result = {role: dict(network.state_dict()) for role, network in self.learned.items()}
        if self.recipe.ema is not None:
            names = [
                (role, n) for role, net in self.learned.items() for n, _ in net.named_parameters()
            ]
            for (role, name), average in zip(names, self.average, strict=True):
                result[role][name] = average
        return result

    @property
    def finished(self) -> bool:
        """Whether the budget is used up."""
        if self.recipe.minutes is not None:
            return self.seconds >= 60 * self.recipe.minutes
        return self.step >= self.steps_in_all

    @property
    def steps_in_all(self) -> float:
        """The updates that the budget allows; of minutes, at the pace so far."""
        if self.recipe.steps is not None:
            return self.recipe.steps
        share = self.seconds / (60 * (self.recipe.minutes or 0.0))
        return self.step / share if share else math.inf

    def write_history(self) -> None:
        """history.csv, one row for every logged step."""
        if self.processes.first:
            with replacing(self.folder / "history.csv") as partial:
                pd.DataFrame(self.history).to_csv(partial, index=False)

    def batch(self) -> Batch:
        """What the present step is taken on, a new batch or the next in turn of those that live."""
        if self.pool is None:
            drawn_at, x_hat, kept = self.step, self._draw(self.step), None
        else:
            drawn_at, x_hat, kept = self.pool.visit(self.step, self._draw)
        return Batch(x_hat, drawn_at, self.recipe.seed, self.processes.share, kept)

    def _draw(self, step: int) -> Tensor:
        """The crops of a step, or a process's share of them: (B, 3, H, W) in [0, 1]."""
        crops = torch.as_tensor(self.crops.crops(step))
        return sent(self.processes.share.of(crops), self.device).float() / 255

    def update(self, batch: Batch) -> Row:
        """One step on this process's share of a batch.

        Returns:
            The log's row, or {}, as always on other processes than the first.
        """
        recipe = self.recipe
        self._set_rates()
        losses = recipe.objective(self.networks, batch)
        logged = self.step % recipe.log_every == 0 or self.step + 1 == recipe.steps
        row = self._row(losses) if logged else {}
        for parameter in self.parameters:
            parameter.grad = None
        losses.total.backward()
        loss = losses.total.detach()
        # from here on everything is the same on all processes
        self.processes.average([p.grad for p in self.parameters if p.grad is not None] + [loss])
        norm = nn.utils.clip_grad_norm_(self.parameters, recipe.clip or math.inf)
        finite = torch.isfinite(norm + loss)
        ask = self.device.type == "cpu"
        step_if(finite, self.optimisers, self.parameters, self.average, self._move, ask=ask)
        self.skipped = torch.where(finite, 0, self.skipped + 1)
        if self.step % LOOK_EVERY[self.device.type] == 0:
            self._give_up_if_lost()
        self.step += 1
        return row if self.processes.first else {}

    def _loop(self, asked_to_stop: Callable[[], bool]) -> None:
        recipe, saved = self.recipe, time.monotonic()
        began, first, before = time.monotonic(), self.step, self.seconds
        counted = progress(
            self.folder.name,
            total=recipe.steps,
            done=self.step,
            unit="step",
            shown=self.processes.first,
        )
        with counted as advance, self._writer() as writer:
            while not self.finished:
                batch = self.batch()
                row = self.update(batch)
                self.seconds = before + time.monotonic() - began
                if row and writer:
                    images = len(batch.x_hat) * self.processes.share.count
                    rate = images * (self.step - first) / (self.seconds - before)
                    self._log(row | {"images_per_second": rate}, writer)
                advance(note=f"loss {row['loss']:.4g}" if row else None)
                late = time.monotonic() - saved > recipe.checkpoint_seconds
                up = self.deadline is not None and time.monotonic() >= self.deadline
                stop = self.processes.any(asked_to_stop() or up)
                # all processes save or none does: kept iterates are gathered from all of them
                if self.processes.any(late or stop):
                    self.save()
                    saved = time.monotonic()
                if stop:
                    raise Interrupted(
                        f"stopped at step {self.step}; run the same command to resume"
                    )
        self.save()

    def _writer(self) -> AbstractContextManager[SummaryWriter | None]:
        if not self.processes.first:
            return nullcontext()
        writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.step)
        if self.description is not None and self.step == 0:
            text = json.dumps(self.description, indent=1)
            writer.add_text("description", f"```json\n{text}\n```", 0)
        return writer

    def _row(self, losses: Losses) -> Row:
        """Of the whole batch: losses, gradient norm of each term, the objective's statistics."""
        row: Row = {"step": self.step, "lr": self.recipe.lr * self._factor()}
        own = {"loss": losses.total.item(), "skipped_in_a_row": self.skipped_in_a_row}
        for name, term in losses.terms.items():
            gradients = torch.autograd.grad(
                term, self.parameters, retain_graph=True, allow_unused=True
            )
            reached = [g for g in gradients if g is not None]
            self.processes.average(reached)
            own[f"loss_{name}"] = term.item()
            own[f"gradient_{name}"] = torch.stack([g.norm() for g in reached]).norm().item()
        said = {name: float(value) for name, value in losses.statistics.items()}
        means = self.processes.means(own | said)
        statistics = {name: means.pop(name) for name in losses.statistics}
        return row | means | self._health() | statistics

    def _health(self) -> Row:
        """What the monitor says, where it is time to ask; of one process, as all would say it."""
        monitor, every = self.monitor, self.recipe.monitor_every
        if monitor is None or every is None or self.step % every or not self.processes.first:
            return {}
        return monitor(self.networks)

    def _log(self, row: Row, writer: SummaryWriter) -> None:
        numbers = {name: value for name, value in row.items() if not isinstance(value, Tensor)}
        self.history.append(numbers)
        step = int(numbers["step"])
        for name, value in row.items():
            if isinstance(value, Tensor):
                writer.add_image(name, value, step)
            else:
                writer.add_scalar(name, value, step)
        LOGGER.info("%s", {name: float(f"{value:.4g}") for name, value in numbers.items()})

    def _factor(self) -> float:
        return self.recipe.schedule.factor(self.step, self.steps_in_all, since=self.since)

    def _set_rates(self) -> None:
        for name, optimiser in self.optimisers.items():
            for group in optimiser.param_groups:
                group["lr"] = self.highest[name] * self._factor()

    def _move(self) -> None:
        """A step of each optimiser, and of the average."""
        for optimiser in self.optimisers.values():
            optimiser.step()
        if self.recipe.ema is not None:
            decay = min(self.recipe.ema, (1 + self.step) / (EMA_RAMP + self.step))
            torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)

    def _give_up_if_lost(self) -> None:
        skipped = self.skipped_in_a_row
        if skipped >= NON_FINITE_IN_A_ROW:
            self.save()  # the weights are those of the last finite update
            raise TrainingError(
                f"{skipped} non-finite updates in a row at step {self.step}; the last "
                f"good checkpoint is in {self.checkpoints.folder}. Try a smaller lr or clip."
            )

    def save(self) -> None:
        """Write a checkpoint, and the history."""
        state = self._state()
        if self.processes.first:
            self.checkpoints.save(state)
            self.write_history()
            self.saved()

    def _state(self) -> dict[str, Any]:
        """Everything that the result depends on."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "since": self.since,
            "skipped_in_a_row": self.skipped_in_a_row,
            "networks": {role: net.state_dict() for role, net in self.learned.items()},
            "optimisers": {name: one.state_dict() for name, one in self.optimisers.items()},
            "average": self.average,
            "history": self.history,
            "kept": {} if self.pool is None else self.pool.state(self.processes.gathered),
        }

    def _resume(self) -> None:
        """Go on from the checkpoint, or else start, from the first process's state on all."""
        state = self.processes.shared(lambda: self.checkpoints.load() or self._state())
        self.step, self.seconds, self.since = state["step"], state["seconds"], state["since"]
        self.skipped = torch.tensor(state["skipped_in_a_row"], device=self.device)
        self.history = state["history"]
        for role, weights in state["networks"].items():
            self.learned[role].load_state_dict(weights)
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        self.average = [tensor.to(self.device) for tensor in state["average"]]
        if self.pool is not None:
            share = self.processes.share
            self.pool.load(state["kept"], lambda batch: share.of(batch).to(self.device))
        if self.step and self.processes.first:
            LOGGER.info("resumed at step %d of %.0f", self.step, self.steps_in_all)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One trainer per folder; the operating system releases the lock of a killed process."""
    lock = FileLock(folder / "lock")
    owner = folder / "lock.owner"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        holder = owner.read_text() if owner.exists() else "another process"
        raise TrainingError(f"{folder} is being trained by {holder}; wait or stop it") from None
    try:
        owner.write_text(f"process {os.getpid()} on {platform.node()}")
        yield
    finally:
        lock.release()


@contextmanager
def _sigterm() -> Iterator[Callable[[], bool]]:
    """A function that tells whether SIGTERM has arrived since."""
    arrived: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: arrived.append(number))
    try:
        yield lambda: bool(arrived)
    finally:
        signal.signal(signal.SIGTERM, before)
