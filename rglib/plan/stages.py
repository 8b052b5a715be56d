"""The stages of training as a value, `Stages`: what each starts from, depends on and writes.

No PyTorch here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os.path import exists
from typing import Any

from rglib.plan.roles import ROLE, card_beside, learned_roles, sections_of, start_of
from rglib.plan.seeds import is_given

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Stages:
    """The stages of a configuration, those of all seeds, ablations and studies among them.

    Attributes:
        config: expanded, see `rglib.plan.variants`.
    """

    config: Config

    def entry(self, stage: str) -> Config:
        """Its entry under ``stages``."""
        found: Config = self.config["stages"][stage]
        return found

    def is_given(self, stage: str) -> bool:
        """Whether its weights are given instead of trained."""
        return is_given(stage, self.config)

    def trained(self, stages: Iterable[str]) -> list[str]:
        """Those of these stages that are not given."""
        return [stage for stage in stages if not self.is_given(stage)]

    def given(self, stages: Iterable[str]) -> list[str]:
        """Those of these stages that are."""
        return [stage for stage in stages if self.is_given(stage)]

    # --- what comes before ------------------------------------------------------------------------

    def predecessors(self, stage: str) -> dict[str, str]:
        """The stages whose networks a stage starts from, by role: none of a given one."""
        return {role: start for role, (start, _) in self.starts(stage).items()}

    def starts(self, stage: str) -> dict[str, tuple[str, str]]:
        """The same, each with the role of its network that is taken."""
        inits = {} if self.is_given(stage) else self.entry(stage)["init"]
        named = {role: start_of(init, role) for role, init in inits.items()}
        return {role: start for role, start in named.items() if start[0] in self.config["stages"]}

    def with_predecessors(self, stages: Iterable[str]) -> list[str]:
        """Stages and all that they start from, each once, predecessors first."""
        ordered: dict[str, None] = {}
        for stage in stages:
            before = self.predecessors(stage).values()
            ordered |= dict.fromkeys([*self.with_predecessors(before), stage])
        return list(ordered)

    @property
    def shipped(self) -> list[str]:
        """The stages whose weights are published: those trained here that ``weights`` names.

        And that a method needs: ``weights`` of config.yaml names the starts of its methods too.
        """
        used = (method["stage"] for method in self.config["methods"].values())
        needed = self.with_predecessors(used)
        return [stage for stage in self.trained(self.config["weights"]) if stage in needed]

    def on_the_way(self, stage: str) -> list[str]:
        """What a stage was trained from, where that is neither given nor shipped itself."""
        ordered: dict[str, None] = {}
        for start in self.trained(self.predecessors(stage).values()):
            if start not in self.shipped:
                ordered |= dict.fromkeys([*self.on_the_way(start), start])
        return list(ordered)

    # --- what it depends on -----------------------------------------------------------------------

    def learned(self, stage: str) -> list[str]:
        """The roles of the networks that a stage trains, where it is not given."""
        return learned_roles(self.entry(stage))

    def shared(self, stage: str) -> dict[str, Any]:
        """The sections that a stage reads, each with the stage's own entries over it."""
        entry = self.entry(stage)
        return {name: self.config[name] | entry.get(name, {}) for name in sections_of(entry)}

    def parameters(self, stage: str) -> dict[str, Any]:
        """What the numbers of a stage depend on beside code and files, and no more."""
        entry, shared = self.entry(stage), self.shared(stage)
        apart = ("log", "seed", "precision", *shared)
        return {
            "stage": stage,
            "learned": self.learned(stage),
            "starts": self.predecessors(stage),
            "entry": {key: entry[key] for key in entry if key not in apart},
            "shared": shared,
            "network": self.config["network"],
            "precision": entry.get("precision", self.config["precision"]["train"]),
            "seed": entry.get("seed", self.config["seeds"][0]),
        }

    def processes(self, stage: str) -> int:
        """How many processes train a stage: one where it takes the whole batch to judge it."""
        shareable = self.shared(stage).get("equilibrium", {}).get("per_image", True)
        return int(self.config["processes"]) if shareable else 1

    # --- its files --------------------------------------------------------------------------------

    @property
    def run(self) -> str:
        """The folder of the run."""
        return f"work/{self.config['run']}"

    def card(self, stage: str) -> str:
        """The model card of a stage."""
        return f"{self.run}/models/{stage}/card.json"

    def cards(self, stages: Iterable[str]) -> list[str]:
        """The model cards of stages."""
        return [self.card(stage) for stage in stages]

    def network(self, stage: str, role: str) -> str:
        """The weights of one of its networks."""
        return f"{self.run}/models/{stage}/{role}.safetensors"

    def networks(self, stage: str) -> dict[str, str]:
        """All weights that there are of a stage once it is trained or taken, by role."""
        roles = self.config["weights"][stage] if self.is_given(stage) else self.learned(stage)
        return {role: self.network(stage, role) for role in roles}

    def inputs(self, stage: str) -> dict[str, str]:
        """What the training of a stage reads: the stores, and the networks that it starts from."""
        starts = self.starts(stage).items()
        return {
            "train": f"{self.run}/store/train/store.json",
            "validation": f"{self.run}/store/validation/store.json",
            **{f"start_{role}": self.network(*start) for role, start in starts},
        }

    def given_files(self, stage: str) -> list[str]:
        """The local files that a given stage is taken from: weights, and the cards beside them.

        Without those that are not there, which the rule itself says more about.
        """
        sources = self.config["weights"][stage].items()
        files = {role: source["file"] for role, source in sources if source.get("file")}
        cards = [card_beside(file, role) for role, file in files.items()]
        return [file for file in dict.fromkeys([*files.values(), *cards]) if exists(file)]

    def to_ship(self, stage: str) -> list[str]:
        """The files of a trained stage that are published: its card, then weights.

        Those that ``weights`` names, else those that methods restore with, else all.
        """
        methods = self.config["methods"].values()
        used = [ROLE[method["algorithm"]] for method in methods if method["stage"] == stage]
        roles = self.config["weights"][stage] or used or self.learned(stage)
        return [self.card(stage), *(self.network(stage, role) for role in roles)]
