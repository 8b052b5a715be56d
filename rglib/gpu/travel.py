"""Trainings on the way between machines: weights in 16 bits, cards and histories, in small files.

A training that goes on elsewhere keeps its averaged weights, its step and its minutes. It leaves
behind the optimisers' memory and the kept iterates, see `rglib.training.trainer.Trainer.take_up`.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from rglib.core.networks import load_weights, save_weights
from rglib.files import file_digest, replacing

Config = Mapping[str, Any]

MIB = 2**20
RECORDS = "records.tar.gz"


class TravelError(ValueError):
    """What came back is not whole, or is of several journeys; the message names the file."""


@dataclass(frozen=True)
class Allowance:
    """What may come back: so many files, each of at most so many bytes, and all together."""

    files: int = 8
    file_bytes: int = 16 * MIB
    total_bytes: int = 64 * MIB


@dataclass(frozen=True)
class States:
    """Trainings in a folder, laid out as ``weights/`` is, with 16-bit weights.

    A card beside them tells of the training so far; a stage without one has not begun.
    """

    folder: Path

    def weights(self, stage: str, role: str) -> Path:
        """The file of a network."""
        return self.folder / f"{stage}_{role}.safetensors"

    def card(self, stage: str) -> dict[str, Any]:
        """What is known of a training so far; nothing if it has not begun."""
        path = self._card(stage)
        card: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return card

    def roles(self, stage: str) -> dict[str, dict[str, Tensor]]:
        """The weights of a stage that has begun, float32, by role."""
        return {role: load_weights(self.weights(stage, role)) for role in self.card(stage)["roles"]}

    def history(self, stage: str) -> list[dict[str, float]]:
        """The rows of a training's history, each with what it has."""
        path = self._history(stage)
        if not path.exists():
            return []
        rows = pd.read_csv(path).to_dict("records")
        return [{str(k): float(v) for k, v in row.items() if not pd.isna(v)} for row in rows]

    def write(
        self,
        stage: str,
        weights: Mapping[str, Mapping[str, Tensor]],
        *,
        card: Config,
        history: Sequence[Mapping[str, float]],
    ) -> None:
        """Write a training so far; the card, which tells the sha256 of the rest, last."""
        files = {}
        for role, tensors in weights.items():
            path = self.weights(stage, role)
            save_weights(path, {name: tensor.half() for name, tensor in tensors.items()})
            files[path.name] = file_digest(path)
        with replacing(self._history(stage)) as partial:
            pd.DataFrame(history).to_csv(partial, index=False)
        with replacing(self._card(stage)) as partial:
            told = {**card, "roles": list(weights), "files": files}
            partial.write_text(json.dumps(told, indent=1) + "\n")

    def _card(self, stage: str) -> Path:
        return self.folder / f"{stage}.card.json"

    def _history(self, stage: str) -> Path:
        return self.folder / f"{stage}.history.csv"


def send(
    states: States,
    stages: Mapping[str, Sequence[str]],
    records: Path,
    out: Path,
    *,
    allowance: Allowance = Allowance(),
) -> list[str]:
    """Write what goes home: trainings in files of an even size, and a folder of records.

    Args:
        states: where the trainings are.
        stages: which ones, the most important first, each with the roles whose weights go; a
            stage without any sends its card alone.
        records: a folder of small files; the trainings' histories go along.
        out: the folder to write to; what an earlier call wrote there is replaced.
        allowance: what may come back.

    Returns:
        The stages that did not fit.

    Raises:
        TravelError: the records alone do not fit into a file.
    """
    packed = _packed_records(states, records, out / RECORDS)
    if packed > allowance.file_bytes:
        raise TravelError(f"{out / RECORDS}: {packed} bytes are more than a file may have")
    room = min(allowance.total_bytes - packed, (allowance.files - 1) * allowance.file_bytes)
    taken: dict[str, Tensor] = {}
    cards, left_out = {}, []
    for stage, roles in stages.items():
        tensors = {
            f"{stage}/{role}/{name}": tensor.half()
            for role in roles
            for name, tensor in load_weights(states.weights(stage, role)).items()
        }
        try:
            _parts({**taken, **tensors}, allowance.file_bytes, room)
        except TravelError:
            left_out.append(stage)
            continue
        taken |= tensors
        cards[stage] = states.card(stage) | {"roles": list(roles)}
    parts = _parts(taken, allowance.file_bytes, room) or [{}] * bool(cards)
    told = json.dumps(cards)
    for i, part in enumerate(parts, start=1):
        about = {"parts": str(len(parts)), "cards": told}
        with replacing(out / f"weights-{i}.safetensors") as partial:
            partial.write_bytes(save(part, metadata=about))
    written = {f"weights-{i}.safetensors" for i in range(1, len(parts) + 1)}
    for path in out.glob("weights-*.safetensors"):
        if path.name not in written:  # of an earlier call with more
            path.unlink()
    return left_out


MARGIN = 256 * 1024  # bytes of a file's header: names, shapes, cards


def _parts(tensors: Mapping[str, Tensor], most: int, room: int) -> list[dict[str, Tensor]]:
    """The tensors in their order, in as many dictionaries as files are needed."""
    parts: list[dict[str, Tensor]] = []
    size = total = 0
    for name, tensor in tensors.items():
        if not parts or size + tensor.nbytes > most - MARGIN:
            parts.append({})
            size, total = 0, total + MARGIN
        parts[-1][name] = tensor
        size, total = size + tensor.nbytes, total + tensor.nbytes
    if total > room:
        raise TravelError(f"{total} bytes of weights do not fit into {room}")
    return parts


def _packed_records(states: States, records: Path, path: Path) -> int:
    with replacing(path) as partial, tarfile.open(partial, "w:gz") as archive:
        for file in sorted(records.rglob("*")):
            if file.is_file():
                archive.add(file, str(file.relative_to(records)))
        for file in sorted(states.folder.glob("*.history.csv")):
            archive.add(file, f"histories/{file.name}")
    return path.stat().st_size


def receive(returned: Path, states: States, records: Path) -> list[str]:
    """Take what `send` wrote into a folder of trainings and one of records.

    Returns:
        The stages that came.

    Raises:
        TravelError: a part is missing, or parts are of different moments.
    """
    files = sorted(returned.glob("weights-*.safetensors"))
    if not (returned / RECORDS).exists():
        raise TravelError(f"{returned}: no {RECORDS} came back")
    parts: dict[str, Tensor] = {}
    abouts: list[dict[str, str]] = []
    for file in files:
        with safe_open(str(file), framework="pt") as content:
            abouts.append(dict(content.metadata()))
            parts |= {name: content.get_tensor(name) for name in content.keys()}
    cards: dict[str, dict[str, Any]] = json.loads(abouts[0]["cards"]) if abouts else {}
    if any(a["cards"] != abouts[0]["cards"] for a in abouts) or (
        abouts and len(files) != int(abouts[0]["parts"])
    ):
        raise TravelError(
            f"{returned}: {len(files)} files of weights that do not belong together; some were "
            "lost, or writing them was cut off"
        )
    with tarfile.open(returned / RECORDS) as archive:
        archive.extractall(records, filter="data")
    for stage, card in cards.items():
        weights: dict[str, dict[str, Tensor]] = {role: {} for role in card["roles"]}
        for name, tensor in parts.items():
            of, role, parameter = name.split("/")
            if of == stage:
                weights[role][parameter] = tensor
        table = records / "histories" / f"{stage}.history.csv"
        history = pd.read_csv(table).to_dict("records")
        rows = [{str(k): float(v) for k, v in row.items()} for row in history]
        states.write(stage, weights, card=card, history=rows)
    return list(cards)
