"""``rglib models``: list trained networks and the settings they restore with."""

from __future__ import annotations

import argparse

from tabulate import tabulate

from rglib.commands import refused
from rglib.plan.roles import ROLE
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

    The steps of a training are those of all stages that led to the network and do not ship
    themselves.

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
    before = sum(budget["steps"] for budget in (card.before or {}).values())
    return name, algorithm, network, f"{before + card.steps:,} steps on {card.images} images"
