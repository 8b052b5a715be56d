"""The two networks, P and G, what objectives do with them, and solvers. No PyTorch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os.path import splitext
from typing import Any

from rglib.extensions import is_own, load, parameters

Config = Mapping[str, Any]

ROLES = ("P", "G")
ROLE = {"gradient_descent": "G", "pnp_admm": "P"}  # the network that each algorithm uses
DEVICES = ("auto", "cpu", "cuda")
SOLVERS = ("adam", "semi_implicit")  # of gradient descent, those in rglib.core.fixed_point

INITIALISATIONS = ("default", "orthogonal")  # where a network starts that starts from no stage

SECTIONS = ("equilibrium", "training_problems")  # of the configuration, that objectives may read


def start_of(init: str, role: str) -> tuple[str, str]:
    """The stage that an entry of ``init`` names, and the role of its network that is taken.

    The same role, but for ``denoiser.P``: so a G starts from the P of a stage.
    """
    stage, dot, taken = init.rpartition(".")
    return (stage, taken) if dot and taken in ROLES else (init, role)


def card_beside(weights: str, role: str) -> str:
    """The model card of a file of weights: ``w/deqgd.card.json`` of ``w/deqgd_G.safetensors``."""
    return f"{splitext(weights)[0].removesuffix(f'_{role}')}.card.json"


@dataclass(frozen=True)
class Needs:
    """What an objective learns, uses and reads; its class in `rglib.training.objectives` asks here.

    Attributes:
        learns: the roles that it trains.
        uses: the roles that it needs and leaves as they are.
        sections: of the configuration, that it reads beside its options.
        terms: the options of which one must be set for a role to be learned, by role; of a role
            that is not among them none need be.
    """

    learns: tuple[str, ...]
    uses: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    terms: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def learned(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """The roles that are trained with these options."""
        terms = dict(self.terms)
        return tuple(
            role
            for role in self.learns
            if role not in terms or any(options.get(term) is not None for term in terms[role])
        )


DENOISING = Needs(learns=("P",))
RESIDUAL_START = Needs(learns=("G",), uses=("P",), sections=("training_problems",))
SCORE_START = Needs(learns=("G",), sections=("training_problems",))
PNPREG = Needs(learns=("P", "G"))
EQUILIBRIUM = Needs(
    learns=("P", "G"),
    sections=("equilibrium", "training_problems"),
    terms=(("P", ("link", "forward_backward")), ("G", ("link", "gradient_descent"))),
)

OBJECTIVES = {  # by their names in the configuration
    "denoising": DENOISING,
    "residual_start": RESIDUAL_START,
    "score_start": SCORE_START,
    "pnpreg": PNPREG,
    "equilibrium": EQUILIBRIUM,
}


def learned_roles(stage: Config) -> list[str]:
    """The roles that a stage (its entry under ``stages``) trains: `learns` of its objective."""
    if is_own(stage["objective"]):
        return list(declared(stage["objective"], "learns"))
    return list(OBJECTIVES[stage["objective"]].learned(stage["options"]))


def used_roles(stage: Config) -> list[str]:
    """The roles that a stage needs and leaves as they are: `uses` of its objective."""
    if is_own(stage["objective"]):
        return list(declared(stage["objective"], "uses"))
    return list(OBJECTIVES[stage["objective"]].uses)


def sections_of(stage: Config) -> list[str]:
    """The sections that a stage's objective reads beside its options.

    An objective of your own reads those that it has parameters for.
    """
    if is_own(stage["objective"]):
        return sorted(parameters(load(stage["objective"])) & set(SECTIONS))
    return list(OBJECTIVES[stage["objective"]].sections)


def declared(reference: str, what: str) -> tuple[str, ...]:
    """What the class of an objective says in ``learns`` or ``uses``, the same for any options."""
    value = getattr(load(reference), what, ())
    return tuple(value) if isinstance(value, tuple | list) else ()
