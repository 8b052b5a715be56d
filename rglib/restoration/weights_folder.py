"""A folder of trained networks: weights, model cards, and the settings they restore with.

Two layouts are read: that of ``weights/``, which the package ships, with
``<stage>_<role>.safetensors`` and ``<stage>.card.json``, and that of a run, ``work/<run>/models/``,
with ``<role>.safetensors`` and ``card.json`` in a folder for each stage. In both lies
``settings.json``, which the workflow writes from the configuration. No PyTorch here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rglib.files import replacing
from rglib.plan.roles import ROLE
from rglib.records.model_card import CardError, ModelCard

Config = Mapping[str, Any]

SETTINGS_FILE = "settings.json"
SECTIONS_AT_TEST_TIME = (
    "run",
    "methods",
    "evaluation",
    "problems",
    "admm",
)  # of the configuration, in it

PACKAGE = Path(__file__).parents[1]


class ModelsError(ValueError):
    """A network or its settings cannot be had; the message names the file or what there is."""


def shipped() -> Path:
    """The folder of the networks that come with rglib: in a wheel's package, or beside it."""
    inside = PACKAGE / "weights"
    return inside if inside.is_dir() else PACKAGE.parent / "weights"


def write_settings(config: Config, path: Path) -> None:
    """Write what networks restore with at test time, from the configuration, as JSON."""
    with replacing(path) as partial:
        settings = {section: config[section] for section in SECTIONS_AT_TEST_TIME}
        partial.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Models:
    """A folder of networks and the sections of a configuration that they restore with."""

    folder: Path
    settings: Config

    @classmethod
    def open(cls, folder: Path | None = None) -> Models:
        """The networks in a folder, or the ones shipped.

        Raises:
            ModelsError: it is no folder, or ``settings.json`` is missing, damaged or incomplete.
        """
        folder = shipped() if folder is None else Path(folder)
        if not folder.is_dir():
            raise ModelsError(f"there is no folder of networks {folder}")
        path = folder / SETTINGS_FILE
        if not path.is_file():
            raise ModelsError(
                f"{folder} has no {SETTINGS_FILE}, which says how to restore with its networks; "
                + _remedy(path)
            )
        settings = _read_json(path)
        if missing := [section for section in SECTIONS_AT_TEST_TIME if section not in settings]:
            raise ModelsError(
                f"{path}: has no {', '.join(missing)}; delete it, and {_remedy(path)}"
            )
        return cls(folder, settings)

    def method(self, name: str) -> Config:
        """The entry of a method: label, algorithm, stage.

        Raises:
            ModelsError: there is no such method.
        """
        methods: Config = self.settings["methods"]
        if name not in methods:
            raise ModelsError(f"unknown method {name!r}; there are {', '.join(methods)}")
        entry: Config = methods[name]
        return entry

    def weights(self, name: str) -> Path:
        """The file of the network that a method restores with.

        Raises:
            ModelsError: there is no such method, or its network is missing.
        """
        path = self._weights(name)
        if not path.is_file():
            there = ", ".join(self.available()) or "none"
            raise ModelsError(
                f"the network of {name} is missing: no file {path}; methods whose network is "
                f"there: {there}"
            )
        return path

    def card(self, name: str) -> ModelCard:
        """The model card of a method's network.

        Raises:
            ModelsError: there is no such method, or its card is missing or damaged.
        """
        stage = self.method(name)["stage"]
        path = self._file(stage, "card.json", f"{stage}.card.json")
        if not path.is_file():
            raise ModelsError(f"no model card {path}: it says of what size the network is")
        try:
            return ModelCard.read(path)
        except CardError as error:
            raise ModelsError(str(error)) from error

    def available(self) -> list[str]:
        """The methods whose network is there."""
        return [name for name in self.settings["methods"] if self._weights(name).is_file()]

    def _weights(self, name: str) -> Path:
        method = self.method(name)
        stage, role = method["stage"], ROLE[method["algorithm"]]
        return self._file(stage, f"{role}.safetensors", f"{stage}_{role}.safetensors")

    def _file(self, stage: str, of_run: str, published: str) -> Path:
        """A file of a stage: as in a run where the stage has a folder, else as in ``weights/``."""
        folder = self.folder / stage
        return folder / of_run if folder.is_dir() else self.folder / published


def _remedy(path: Path) -> str:
    """How to have the settings again; Snakemake knows files by where they lie in the project."""
    in_project = Path(*Path(os.path.abspath(path)).parts[-4:])  # work/<run>/models/settings.json
    if in_project.parts[0] != "work":
        return "copy it from where the networks are from"
    return (
        f"`snakemake {in_project}` in its project writes it, with the same --configfile as the "
        "training"
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelsError(f"{path}: cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise ModelsError(f"{path}: is not a JSON object")
    return content
