"""The copies of a stage that the study of training at fixed points compares. No PyTorch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rglib.plan.ablations import overlaid
from rglib.plan.names import copy_name

Config = Mapping[str, Any]

HELD_OUT = "held_out"  # the name of problems drawn as in training, beside the twelve


def copies(config: Config) -> dict[str, dict[str, Any]]:
    """The stages of all variants and seeds by name, none where nothing is to be studied."""
    plan = config.get("fixed_points")
    if plan is None:
        return {}
    stage = config["stages"][plan["stage"]]
    return {
        copy_name(variant, seed): {**overlaid(stage, entry.get("stage", {})), "seed": seed}
        for variant, entry in plan["variants"].items()
        for seed in plan["seeds"]
    }
