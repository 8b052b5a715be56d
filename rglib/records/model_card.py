"""Model cards: JSON beside networks that says of what size they are and what made them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rglib.files import replacing
from rglib.plan.roles import ROLES

Config = Mapping[str, Any]

NETWORK = {"widths", "blocks"}  # P and G beside them name networks of your own


class CardError(ValueError):
    """A file that is no model card; the message names it."""


@dataclass(frozen=True)
class Budget:
    """How long a stage was trained: optimiser steps of ``batch`` square crops, in pixels."""

    steps: int
    batch: int
    crop: int

    @property
    def pixels(self) -> int:
        """Pixels seen in all."""
        return self.steps * self.batch * self.crop**2

    def __str__(self) -> str:
        return f"{self.steps:,} steps of {self.batch} crops {self.crop}x{self.crop}"


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What is known of the networks of a stage; None is what it does not say.

    Attributes:
        stage: name of the stage.
        given: whether the weights come from elsewhere instead of a training of this run.
        objective, options, optimiser, init, seed: of the entry under ``stages``.
        steps, minutes, batch, crop: its budget; ``steps`` are those that were done.
        equilibrium, training_problems: the sections that the objective reads.
        network: the section: widths, blocks, and ``module:Class`` of a P and G of your own.
        minutes_trained, seconds_of_last_process: how long it took.
        data, images, data_digest: titles of the data sets, number of images and hash of all.
        device, processes, precision: where and how the numbers were computed.
        last_row: of the history.
        code: hashes of the code by its entry points; older cards say less.
        fingerprint: what a checkpoint must agree with to be resumed.
        source: of given weights the files' names, by role.
        weights: sha256 of the stage's files, by role.
        before: budgets of the stages on the way that do not ship themselves, by name.
        files: sha256 of the 16-bit files that ship, by name.
        more: what else a file says.
    """

    stage: str
    given: bool = False
    objective: str | None = None
    options: Config | None = None
    steps: int | None = None
    minutes: float | None = None
    batch: int | None = None
    crop: int | None = None
    optimiser: Config | None = None
    equilibrium: Config | None = None
    training_problems: Config | None = None
    init: Mapping[str, str] | None = None
    seed: int | None = None
    network: Config
    minutes_trained: float | None = None
    data: Sequence[str] | None = None
    images: int | None = None
    data_digest: str | None = None
    device: str | None = None
    processes: int | None = None
    precision: str | None = None
    last_row: Mapping[str, float] | None = None
    code: Any = None
    seconds_of_last_process: float | None = None
    fingerprint: str | None = None
    source: Any = None
    weights: Mapping[str, str] | None = None
    before: Mapping[str, Mapping[str, int]] | None = None
    files: Mapping[str, str] | None = None
    more: Config | None = None

    @classmethod
    def of(cls, content: Config) -> ModelCard:
        """From what a file says.

        Raises:
            CardError: it does not name its stage or the network's size.
        """
        network = content.get("network")
        said = set(network) if isinstance(network, Mapping) else set()
        if not NETWORK <= said <= NETWORK | set(ROLES):
            raise CardError("`network` must say widths and blocks, and perhaps P and G")
        if not isinstance(content.get("stage"), str):
            raise CardError("`stage` must name the stage of training")
        known = {field.name for field in fields(cls)} - {"more"}
        more = {key: value for key, value in content.items() if key not in known}
        return cls(**{key: content[key] for key in content if key in known}, more=more or None)

    @classmethod
    def read(cls, path: Path) -> ModelCard:
        """Read a card.

        Raises:
            CardError: the file is missing or damaged, or is no card.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CardError(f"{path}: cannot be read ({error})") from error
        if not isinstance(content, dict):
            raise CardError(f"{path}: is not a JSON object")
        try:
            return cls.of(content)
        except CardError as error:
            raise CardError(f"{path}: {error}") from error

    @property
    def budget(self) -> Budget | None:
        """How long the stage was trained, if the card says it."""
        if self.steps is None or self.batch is None or self.crop is None:
            return None
        return Budget(steps=self.steps, batch=self.batch, crop=self.crop)

    def to_dict(self) -> dict[str, Any]:
        """All that it says, as JSON types."""
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        more = said.pop("more") or {}
        return {key: value for key, value in said.items() if value is not None} | dict(more)

    def write(self, path: Path) -> None:
        """Write it as JSON, whole or not at all."""
        with replacing(path) as partial:
            partial.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")

    def over(self, older: ModelCard) -> ModelCard:
        """What this card says, and what ``older`` says beside it."""
        return ModelCard.of(older.to_dict() | self.to_dict())
