"""One training loop for every stage: any objective, its networks, resume to the same bits."""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import signal
import time
from collections.abc import Callable, Iterator, Mapping
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

from rglib.checkpoint import Checkpoints
from rglib.files import replacing, writing
from rglib.kept import Keep, Pool
from rglib.objectives.losses import Batch, Losses, Objective
from rglib.optimisers import optimisers
from rglib.processes import ALONE, Processes
from rglib.progress import progress

LOGGER = logging.getLogger(__name__)

NON_FINITE_IN_A_ROW = 20  # updates skipped before a training gives up
EMA_RAMP = 10  # the average forgets its start within the first steps


class TrainingError(Exception):
    """A training that cannot go on; the message says what to try."""


class Interrupted(SystemExit):
    """SIGTERM arrived: a checkpoint is written and the same command resumes."""


class Crops(Protocol):
    """Random crops as a pure function of the step."""

    def crops(self, step: int) -> np.ndarray:
        """uint8 (batch, 3, crop, crop)."""


class Schedule(Protocol):
    """The learning rate over the steps, as a factor."""

    def factor(self, step: int, steps: int) -> float:
        """What multiplies the learning rate at a step of 0..steps - 1."""


@dataclass(frozen=True)
class StepDecay:
    """Times ``gamma`` every ``every`` steps, as the paper trains."""

    every: int
    gamma: float

    def factor(self, step: int, steps: int) -> float:
        """gamma^(step // every)."""
        return self.gamma ** (step // self.every)


@dataclass(frozen=True)
class Cosine:
    """Linear warm-up, then half a cosine down to 0: for short trainings."""

    warmup: int = 0

    def factor(self, step: int, steps: int) -> float:
        """min(1, (step + 1) / warmup) (1 + cos(pi step / steps)) / 2."""
        ramp = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        return ramp * 0.5 * (1 + math.cos(math.pi * step / steps))


@dataclass(frozen=True)
class Stage:
    """What to train and for how long.

    Attributes:
        objective: what is minimised.
        steps: updates in all.
        lr: Adam's learning rate at its highest.
        muon: that of Muon, which then teaches the inner convolutions; None has Adam teach all.
        schedule: the course of the learning rate.
        clip: largest norm of the gradient over all networks; None leaves it alone.
        ema: decay of the average of the weights that is the result; None takes the last weights.
        keep: has batches live across updates; None visits each once.
        seed: of noise, masks and problems.
        log_every: steps between rows of the history.
        monitor_every: steps between calls of the monitor; None never.
        checkpoint_seconds: time between checkpoints.
    """

    objective: Objective
    steps: int
    lr: float
    schedule: Schedule
    muon: float | None = None
    clip: float | None = None
    ema: float | None = None
    keep: Keep | None = None
    seed: int = 0
    log_every: int = 50
    monitor_every: int | None = None
    checkpoint_seconds: float = 60.0


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
    """

    def __init__(
        self,
        stage: Stage,
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
        self.stage = stage
        self.crops = crops
        self.folder = folder
        self.device = device
        self.monitor = monitor
        self.processes = processes
        self.description = description
        self.networks = {role: network.to(device) for role, network in networks.items()}
        for role, network in self.networks.items():
            network.requires_grad_(role in stage.objective.learns)
        self.learned = {role: self.networks[role] for role in stage.objective.learns}
        self.parameters = [p for network in self.learned.values() for p in network.parameters()]
        self.optimisers = optimisers(list(self.learned.values()), lr=stage.lr, muon=stage.muon)
        self.highest = {
            name: optimiser.param_groups[0]["lr"] for name, optimiser in self.optimisers.items()
        }
        self.average = [p.detach().clone() for p in self.parameters]
        self.pool = None if stage.keep is None else Pool(stage.keep)
        self.step = 0
        self.skipped_in_a_row = 0
        self.history: list[dict[str, float]] = []
        self.checkpoints = Checkpoints(folder / "checkpoints", fingerprint)

    def run(self) -> dict[str, dict[str, Tensor]]:
        """Train to the end and return the state dict of each learned network.

        Raises:
            TrainingError: another training runs in the same folder, or updates keep being
                non-finite.
            OSError: a file cannot be written; the last checkpoint is as it was.
            Interrupted: SIGTERM; a checkpoint was written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(self.folder) if self.processes.first else nullcontext()
        with writing(self.folder), lock, _sigterm() as asked_to_stop:
            self._resume()
            self._loop(asked_to_stop)
            self.write_history()
        return self.result()

    def result(self) -> dict[str, dict[str, Tensor]]:
        """State dicts by role, averaged where the stage says so."""
        if self.stage.ema is not None:
            with torch.no_grad():
                for parameter, average in zip(self.parameters, self.average, strict=True):
                    parameter.copy_(average)
        return {role: network.state_dict() for role, network in self.learned.items()}

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
        return Batch(x_hat, drawn_at, self.stage.seed, self.processes.share, kept)

    def _draw(self, step: int) -> Tensor:
        """The crops of a step, or a process's share of them: (B, 3, H, W) in [0, 1]."""
        crops = torch.from_numpy(self.processes.share.of(self.crops.crops(step)))
        return crops.to(self.device).float() / 255

    def update(self, batch: Batch) -> Row:
        """One step on this process's share of a batch.

        Returns:
            The log's row, or {}, as always on other processes than the first.
        """
        stage = self.stage
        self._set_rates()
        losses = stage.objective(self.networks, batch)
        logged = self.step % stage.log_every == 0 or self.step == stage.steps - 1
        row = self._row(losses) if logged else {}
        for parameter in self.parameters:
            parameter.grad = None
        losses.total.backward()
        loss = losses.total.detach()
        # from here on everything is the same on all processes
        self.processes.average([p.grad for p in self.parameters if p.grad is not None] + [loss])
        norm = nn.utils.clip_grad_norm_(self.parameters, stage.clip or math.inf)
        if torch.isfinite(norm + loss):
            for optimiser in self.optimisers.values():
                optimiser.step()
            self._update_average()
            self.skipped_in_a_row = 0
        else:
            self._skip()
        self.step += 1
        return row if self.processes.first else {}

    def _loop(self, asked_to_stop: Callable[[], bool]) -> None:
        stage, saved = self.stage, time.monotonic()
        began, first = time.monotonic(), self.step
        counted = progress(
            self.folder.name,
            total=stage.steps,
            done=self.step,
            unit="step",
            shown=self.processes.first,
        )
        with counted as advance, self._writer() as writer:
            while self.step < stage.steps:
                batch = self.batch()
                row = self.update(batch)
                if row and writer:
                    images = len(batch.x_hat) * self.processes.share.count
                    rate = images * (self.step - first) / (time.monotonic() - began)
                    self._log(row | {"images_per_second": rate}, writer)
                advance(note=f"loss {row['loss']:.4g}" if row else None)
                late = time.monotonic() - saved > stage.checkpoint_seconds
                stop = self.processes.any(asked_to_stop())
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
        row = {"step": self.step, "lr": self.stage.lr * self._factor()}
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
        monitor, every = self.monitor, self.stage.monitor_every
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
        return self.stage.schedule.factor(self.step, self.stage.steps)

    def _set_rates(self) -> None:
        for name, optimiser in self.optimisers.items():
            for group in optimiser.param_groups:
                group["lr"] = self.highest[name] * self._factor()

    def _update_average(self) -> None:
        if self.stage.ema is not None:
            decay = min(self.stage.ema, (1 + self.step) / (EMA_RAMP + self.step))
            torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)

    def _skip(self) -> None:
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row >= NON_FINITE_IN_A_ROW:
            self.save()  # the weights are those of the last finite update
            raise TrainingError(
                f"{NON_FINITE_IN_A_ROW} non-finite updates in a row at step {self.step}; the last "
                f"good checkpoint is in {self.checkpoints.folder}. Try a smaller lr or clip."
            )

    def save(self) -> None:
        """Write a checkpoint, and the history."""
        state = self._state()
        if self.processes.first:
            self.checkpoints.save(state)
            self.write_history()

    def _state(self) -> dict[str, Any]:
        """Everything that the result depends on."""
        return {
            "step": self.step,
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
        self.step = state["step"]
        self.skipped_in_a_row = state["skipped_in_a_row"]
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
            LOGGER.info("resumed at step %d of %d", self.step, self.stage.steps)


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
