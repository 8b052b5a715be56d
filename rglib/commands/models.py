"""``rglib models``: list trained networks and the settings they restore with."""

from __future__ import annotations

import argparse

from tabulate import tabulate

from rglib.commands import refused
from rglib.plan.roles import INITIALISATIONS, ROLE, start_of
from rglib.records.model_card import ModelCard
from rglib.restoration.weights_folder import Models, ModelsError


def run(chosen: argparse.Namespace) -> int:
    """Print the methods, then the settings; return 0, or 2 without such a folder."""
    try:
        models = Models.open(chosen.models)
        text = as_text(models)
    except ModelsError as error:
        return refused("models", error)
    print(text)
    return 0


def as_text(models: Models) -> str:
    """The methods and their networks, then the problems and their settings.

    A training is said with the stage that its network started from, and of a stage that does not
    ship itself how long that was trained.

    Raises:
        ModelsError: a card cannot be read.
    """
    settings, evaluation = models.settings, models.settings["evaluation"]
    methods = [_method(name, models) for name in settings["methods"]]
    named = ("lr", "s_255") if evaluation["solver"] == "adam" else ("s_255",)  # others have no lr
    problems = [
        (name, *(entry[key] for key in named)) for name, entry in settings["problems"].items()
    ]
    admm = [
        (task, entry["iterations"], entry["sigma_first_255"], entry["sigma_last_255"])
        for task, entry in settings["admm"].items()
        if task != "sigma_min_255"
    ]
    return "\n".join(
        [
            f"{models.folder}, run {settings['run']}",
            "",
            tabulate(methods, headers=("method", "algorithm", "network", "training")),
            "",
            f"gradient descent: {evaluation['iterations']} iterations, {evaluation['solver']}",
            tabulate(problems, headers=("problem", *named), floatfmt=".4g"),
            "",
            "pnp admm: the denoiser's strength, of 255, from the first to the last iteration",
            tabulate(
                admm,
                headers=("task", "iterations", "sigma_first_255", "sigma_last_255"),
                floatfmt=".4g",
            ),
        ]
    )


def _method(name: str, models: Models) -> tuple[str, ...]:
    entry = models.method(name)
    algorithm = entry["algorithm"].replace("_", " ")
    if name not in models.available():
        return name, algorithm, "missing", ""
    card = models.card(name)
    role = ROLE[entry["algorithm"]]
    size = "-".join(map(str, card.network["widths"]))
    drunet = f"{size}, blocks {card.network['blocks']}"
    network = f"{role}, {card.network.get(role) or drunet}"
    if card.steps is None:  # weights given from elsewhere
        return name, algorithm, network, "elsewhere"
    return (
        name,
        algorithm,
        network,
        f"{card.steps:,} steps on {card.images} images{_after(card, role)}",
    )


def _after(card: ModelCard, role: str) -> str:
    """The stage that the network of this role started from, unless it did from none."""
    if not (init := card.init) or role not in init or init[role] in INITIALISATIONS:
        return ""
    start, _ = start_of(init[role], role)
    budget = (card.before or {}).get(start)  # of a stage that does not ship itself
    return f", after {budget['steps']:,} of {start}" if budget else f", after {start}"
