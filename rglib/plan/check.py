"""The configuration checked before anything runs: by its schema, then between its entries.

Nothing here imports PyTorch, so that a mistake shows within a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rglib.extensions import closest
from rglib.plan.ablations import active, including_ablations, overlaid
from rglib.plan.between import CHECKS, learning
from rglib.plan.mistakes import Mistake, refused
from rglib.plan.own_code import own_code
from rglib.plan.schema import by_schema

Config = Mapping[str, Any]


class ConfigurationError(ValueError):
    """The configuration has mistakes; the message has a line for each."""


def check(config: Config, schema: Mapping[str, Any]) -> None:
    """Check the merged configuration against its JSON schema, and its entries with one another.

    What lies between entries is checked once these are well-formed by themselves, and the stages
    and methods that the ablations make once all else is right.

    Raises:
        ConfigurationError: one line for each mistake, with the entry's dotted path and what is
            allowed there.
    """
    mistakes = _mistakes(config, schema) or [
        *_in_ablations(config, schema),
        *_in_variants(config, schema),
    ]
    if mistakes:
        raise ConfigurationError("\n".join(dict.fromkeys(map(str, mistakes))))


def _mistakes(config: Config, schema: Mapping[str, Any]) -> list[Mistake]:
    mistakes = list(by_schema(config, schema))
    if not mistakes:
        mistakes += own_code(config)
        if mistakes:  # what the other checks ask of it cannot be answered
            return mistakes
    malformed = {mistake.key[:1] for mistake in mistakes}
    for between, sections in CHECKS:
        if malformed.isdisjoint([(), *((section,) for section in sections)]):
            mistakes += between(config)
    return mistakes


def _in_ablations(config: Config, schema: Mapping[str, Any]) -> Iterator[Mistake]:
    """What is wrong with the stages and methods they make, told as a mistake of the ablation."""
    for name in active(config):
        if name in config["stages"] or name in config["methods"]:
            yield refused(("ablations", name), name, "a name that no stage and no method has")
    for mistake in _mistakes(including_ablations(config), schema):
        section, *rest = mistake.key
        if section in ("stages", "methods"):
            ablation, *place = rest
            place = ["stage", *place] if section == "stages" else place
            yield Mistake(("ablations", ablation, *place), mistake.text)
        else:  # what an ablation needs of another section
            text = mistake.text
            for name in active(config):
                text = text.replace(f" stages.{name}.", f" ablations.{name}.stage.")
            yield Mistake(mistake.key, text)


def _in_variants(config: Config, schema: Mapping[str, Any]) -> Iterator[Mistake]:
    """What is wrong with the study of the training at fixed points, and with its stages."""
    plan = config.get("fixed_points")
    if plan is None:
        return
    able = learning(config, "G")
    named = {("stage",): plan["stage"], ("gradients", "stage"): plan["gradients"]["stage"]}
    for key, stage in named.items():
        if stage not in able:
            allowed = f"a stage that learns G: {', '.join(able)}{closest(stage, able)}"
            yield refused(("fixed_points", *key), stage, allowed)
            return
    base = config["stages"][plan["stage"]]
    for name, variant in plan["variants"].items():
        if name in config["stages"]:
            yield refused(("fixed_points", "variants", name), name, "a name that no stage has")
            return
        stages = config["stages"] | {name: overlaid(base, variant.get("stage", {}))}
        for mistake in _mistakes({**config, "stages": stages}, schema):
            section, *place = mistake.key
            here = f"fixed_points.variants.{name}.stage"
            if section == "stages":
                yield Mistake((*here.split("."), *place[1:]), mistake.text)
            else:  # what a variant needs of another section
                text = mistake.text.replace(f" stages.{name}.", f" {here}.")
                yield Mistake(mistake.key, text)
