"""Which settings at test time are open, the grid to try for them, and the choice as an overlay.

Each value in ``problems`` and ``admm`` of the configuration has a source; what is the paper's,
released or forced by the noise stays as it is. No PyTorch here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import yaml

from rglib import paper
from rglib.extensions import make

if TYPE_CHECKING:
    import pandas as pd

Config = Mapping[str, Any]

OPEN = ("ours", "tuned")  # sources of values that are tried out
SECTIONS = {"gradient_descent": "problems", "pnp_admm": "admm"}


def task_of(problem_id: str, entry: Config | None = None) -> str:
    """The entry of ``admm`` for a problem: completion, deblurring or super_resolution.

    ``entry`` is that of a problem of your own, which says itself.

    Raises:
        ValueError: no problem of the paper begins like this, and there is no such entry.
    """
    if entry and "degradation" in entry:
        return str(make(entry["degradation"], entry.get("options", {}), given={}).task)
    for start, task in paper.TASKS.items():
        if problem_id.startswith(start):
            return task
    raise ValueError(
        f"problems.{problem_id}: what task this is does not show: its name must begin with "
        f"{', '.join(paper.TASKS)}, or its entry have a degradation"
    )


def targets(config: Config) -> dict[str, str]:
    """What has open settings, problems and then tasks, with the algorithm of each."""
    tasks = {task_of(problem, entry) for problem, entry in config["problems"].items()}
    entries = {
        "gradient_descent": config["problems"],
        "pnp_admm": {task: config["admm"][task] for task in sorted(tasks)},
    }
    return {
        target: algorithm
        for algorithm, section in entries.items()
        for target, entry in section.items()
        if open_settings(entry)
    }


def open_settings(entry: Config) -> list[str]:
    """The settings of an entry of ``problems`` or ``admm`` that may be tuned."""
    return [key for key, source in entry["source"].items() if source in OPEN]


def candidates(entry: Config, grid: Mapping[str, Sequence[float]]) -> Iterator[dict[str, float]]:
    """Every combination of the grid's values for what is open in an entry."""
    keys = open_settings(entry)
    for values in product(*(grid[key] for key in keys)):
        yield dict(zip(keys, values, strict=True))


def overlay(table: pd.DataFrame) -> dict[str, Any]:
    """The chosen settings as a configuration that lies over the one they were tuned for."""
    tuned: dict[str, Any] = {}
    for _, row in table[table["chosen"]].drop_duplicates("target").iterrows():
        settings = json.loads(row["settings"])
        source = dict.fromkeys(settings, "tuned")
        section = tuned.setdefault(SECTIONS[row["algorithm"]], {})
        section[row["target"]] = {**settings, "source": source}
    return tuned


def overlay_text(table: pd.DataFrame, about: Sequence[str]) -> str:
    """The overlay as YAML, with comments that say what made it."""
    comments = "".join(f"# {line}\n" for line in about)
    return comments + yaml.safe_dump(overlay(table), sort_keys=False)
