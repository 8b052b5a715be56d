"""What a stage of training is given, from the configuration: for the workflow and for parcels.

No PyTorch here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rglib.plan.check import learned_roles, sections_of
from rglib.plan.seeds import is_given

Config = Mapping[str, Any]


def shared_with(entry: Config, config: Config) -> dict[str, Any]:
    """The sections that a stage reads, each with the stage's own entries over it."""
    return {section: config[section] | entry.get(section, {}) for section in sections_of(entry)}


def predecessors(stage: str, config: Config) -> dict[str, str]:
    """The stages whose networks a stage of an expanded configuration starts from, by role."""
    starts = {} if is_given(stage, config) else config["stages"][stage]["init"]
    return {role: start for role, start in starts.items() if start in config["stages"]}


def with_predecessors(stages: Iterable[str], config: Config) -> list[str]:
    """Stages and all that they start from, each once, predecessors first."""
    ordered: dict[str, None] = {}
    for stage in stages:
        before = predecessors(stage, config).values()
        ordered |= dict.fromkeys(with_predecessors(before, config))
        ordered[stage] = None
    return list(ordered)


def training_parameters(stage: str, config: Config) -> dict[str, Any]:
    """What a stage's numbers depend on beside code and files, and no more.

    ``config`` is expanded, see `rglib.plan.variants`.
    """
    entry = config["stages"][stage]
    sections = sections_of(entry)
    return {
        "stage": stage,
        "learned": learned_roles(entry),
        "starts": predecessors(stage, config),
        "entry": {
            key: entry[key] for key in entry if key not in ("log", "seed", "precision", *sections)
        },
        "shared": shared_with(entry, config),
        "network": config["network"],
        "precision": entry.get("precision", config["precision"]["train"]),
        "seed": entry.get("seed", config["seeds"][0]),
    }
