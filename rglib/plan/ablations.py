"""Ablations: what the paper leaves open, read another way (docs/readings.md).

An ablation is a copy of a method with a change: of the settings of its stage, which is then trained
anew from the same networks, or of its evaluation. `including_ablations` makes stages and
methods of them, so that the rules that train and evaluate need not know what an ablation is. No
PyTorch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]


def active(config: Config) -> dict[str, Config]:
    """The ablations of configured methods by name; null in an overlay takes one away."""
    return {
        name: ablation
        for name, ablation in config["ablations"].items()
        if ablation is not None and ablation["method"] in config["methods"]
    }


def left_out(config: Config) -> list[str]:
    """The ablations of methods that are not configured."""
    entries = {name: ablation for name, ablation in config["ablations"].items() if ablation}
    return [name for name in entries if name not in active(config)]


def references(ablations: Mapping[str, Config]) -> list[str]:
    """The methods that ablations are compared with, each once."""
    return list(dict.fromkeys(ablation["method"] for ablation in ablations.values()))


def including_ablations(config: Config) -> dict[str, Any]:
    """The configuration with a method, and where it is trained anew a stage, for each ablation.

    Both are named as the ablation is.

    Raises:
        KeyError: the stage of an ablation's method is not under ``stages``.
    """
    stages, methods = dict(config["stages"]), dict(config["methods"])
    for name, ablation in active(config).items():
        method = config["methods"][ablation["method"]]
        change = {"label": ablation["label"]}
        if "stage" in ablation:
            stages[name] = overlaid(config["stages"][method["stage"]], ablation["stage"])
            change |= {"stage": name}
        if "evaluation" in ablation:
            change |= {"evaluation": ablation["evaluation"]}
        methods[name] = overlaid(method, change)
    return {**config, "stages": stages, "methods": methods}


def without_nulls(config: Config) -> dict[str, Any]:
    """The configuration without what an overlay takes away by null.

    These are methods, problems and variants of the study of training at fixed points.
    """
    kept = _kept(config, ("methods", "problems"))
    study = config.get("fixed_points")
    if isinstance(study, Mapping):
        kept["fixed_points"] = {**study, **_kept(study, ("variants",))}
    return {**config, **kept}


def _kept(config: Config, sections: tuple[str, ...]) -> dict[str, Any]:
    """These sections, as far as they are there, without their nulls."""
    return {
        section: {name: entry for name, entry in config[section].items() if entry is not None}
        for section in sections
        if isinstance(config.get(section), Mapping)
    }


def overlaid(base: Config, overlay: Config) -> dict[str, Any]:
    """The overlay's entries over the base's, mappings merged at every depth, into a new mapping."""
    merged = dict(base)
    for key, value in overlay.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = overlaid(merged[key], value) if both else value
    return merged
