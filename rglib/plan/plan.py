"""What a configuration asks for, as one value: `Plan`, which the rules of the workflow ask.

It says which methods, copies, stages, problems and studies there are, and what each is evaluated
with; `Plan.stages` says the same of the training. The code that a job runs is said by
`rglib.records.made_with`. No PyTorch here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rglib.data.datasets import slug
from rglib.plan import acceleration, fixed_point_variants
from rglib.plan.ablations import active, left_out, references
from rglib.plan.check import ConfigurationError
from rglib.plan.open_settings import SECTIONS, targets
from rglib.plan.roles import ROLE
from rglib.plan.seeds import copies, seeds_of
from rglib.plan.stages import Stages
from rglib.plan.variants import expanded

Config = Mapping[str, Any]

SMALLEST_IMAGE = 128  # pixels of the shorter side: the paper's crop


@dataclass(frozen=True)
class Plan:
    """What there is to train, evaluate and report.

    Attributes:
        config: as configured, and checked.
        stages: those of all seeds, ablations and studies.
    """

    config: Config
    stages: Stages

    @classmethod
    def of(cls, config: Config) -> Plan:
        """The plan of a configuration that `rglib.plan.check.check` has let pass."""
        return cls(config, Stages(expanded(config)))

    @property
    def run(self) -> str:
        """The folder of the run."""
        return self.stages.run

    # --- methods ----------------------------------------------------------------------------------

    @property
    def methods(self) -> list[str]:
        """The configured methods, without copies."""
        return list(self.config["methods"])

    @property
    def every_method(self) -> list[str]:
        """The methods of all seeds, ablations and studies."""
        return list(self.stages.config["methods"])

    @property
    def seeds(self) -> dict[str, list[int]]:
        """The seeds that each configured method is evaluated for."""
        return {method: seeds_of(method, self.config) for method in self.methods}

    @cached_property
    def copies(self) -> dict[str, tuple[str, int]]:
        """The configured method and the seed behind each method that the tables are made of."""
        return copies(self.config)

    def copied(self, method: str) -> tuple[str, int]:
        """The method and the seed behind a name; what is no copy is of the first seed."""
        return self.copies.get(method, (method, self.config["seeds"][0]))

    def method(self, method: str) -> Config:
        """The entry under ``methods``, of copies too."""
        found: Config = self.stages.config["methods"][method]
        return found

    def algorithm(self, method: str) -> str:
        """``gradient_descent`` or ``pnp_admm``."""
        return str(self.method(method)["algorithm"])

    def role(self, method: str) -> str:
        """The network that a method restores with, P or G."""
        return ROLE[self.algorithm(method)]

    def stage_of(self, method: str) -> str:
        """The stage whose network a method restores with."""
        return str(self.method(method)["stage"])

    def stages_of(self, methods: Iterable[str]) -> list[str]:
        """The stages that methods need, each once, predecessors first."""
        return self.stages.with_predecessors(map(self.stage_of, methods))

    def network(self, method: str) -> str:
        """The weights that a method restores with."""
        return self.stages.network(self.stage_of(method), self.role(method))

    def evaluation(self, method: str) -> dict[str, Any]:
        """The section ``evaluation`` with the method's own entries over it."""
        own = self.method(method).get("evaluation", {})
        return {**self.config["evaluation"], **own}

    def settings(self, method: str) -> dict[str, Any]:
        """The sections that a method's numbers depend on, and no others."""
        section = SECTIONS[self.algorithm(method)]
        return {"evaluation": self.evaluation(method), section: self.config[section]}

    # --- problems and data ------------------------------------------------------------------------

    @property
    def papers_problems(self) -> list[str]:
        """The problems that are the paper's; the others are your own."""
        return [id for id, entry in self.config["problems"].items() if "degradation" not in entry]

    @property
    def tables(self) -> list[int]:
        """The numbers of the tables: the paper's two, and a third for problems of your own."""
        return [1, 2] if len(self.papers_problems) == len(self.config["problems"]) else [1, 2, 3]

    @property
    def datasets(self) -> dict[str, str]:
        """The data sets of training and validation by the names of their files."""
        data = self.config["data"]
        return {slug(id): id for id in [*data["train"], *data["validation"]]}

    @property
    def smallest_image(self) -> int:
        """Pixels of the shorter side that an image in a store has at least.

        No fewer than the paper's crop, so that a stage's smaller crop builds no store anew.
        """
        crops = [int(stage["budget"]["crop"]) for stage in self.config["stages"].values()]
        return max(SMALLEST_IMAGE, *crops)

    # --- ablations and studies --------------------------------------------------------------------

    @property
    def ablations(self) -> dict[str, Config]:
        """The ablations of configured methods."""
        return active(self.config)

    @property
    def compared(self) -> list[str]:
        """The ablations, after the methods that they are compared with."""
        return [*references(self.ablations), *self.ablations]

    def all_compared(self) -> list[str]:
        """`compared`, where no ablation was left out.

        Raises:
            ConfigurationError: an ablation is of a method that is not configured.
        """
        for name in left_out(self.config):
            self._configured(f"ablations.{name}.method", self.config["ablations"][name]["method"])
        return self.compared

    @property
    def by_descent(self) -> list[str]:
        """The configured methods by gradient descent: those with a G."""
        return [name for name in self.methods if self.algorithm(name) == "gradient_descent"]

    def some_by_descent(self) -> list[str]:
        """`by_descent`, for what makes no sense without one.

        Raises:
            ConfigurationError: there is none.
        """
        if not self.by_descent:
            raise ConfigurationError(
                "methods: none of them is by gradient_descent, which this needs"
            )
        return self.by_descent

    def denoiser(self, method: str) -> str:
        """The stage whose P Theorem 1 has beside a method's G: the same one where it has a P."""
        stage = self.stage_of(method)
        has_P = "P" in self.stages.networks(stage)
        return stage if has_P else str(self.config["bound"]["denoiser"])

    @property
    def accelerated(self) -> list[str]:
        """The copies of the methods by gradient descent, for each solver."""
        return list(acceleration.copies(self.config))

    @cached_property
    def tuned(self) -> dict[str, str]:
        """What has open settings, problems and then tasks, with the algorithm of each."""
        return targets(self.config)

    def tuned_by(self, target: str) -> str:
        """The method whose network the settings of a target are tuned with.

        Raises:
            ConfigurationError: it is not configured.
        """
        algorithm = self.tuned[target]
        method = self.config["tuning"]["methods"][algorithm]
        return self._configured(f"tuning.methods.{algorithm}", method)

    def tuned_network(self, target: str) -> str:
        """The weights that the settings of a target are tuned with.

        Raises:
            ConfigurationError: as `tuned_by`.
        """
        return self.network(self.tuned_by(target))

    @property
    def tuned_stages(self) -> list[str]:
        """The stages that tuning needs, of the methods that are configured."""
        methods = self.config["tuning"]["methods"]
        asked = dict.fromkeys(methods[algorithm] for algorithm in self.tuned.values())
        return self.stages_of(method for method in asked if method in self.methods)

    @property
    def studied(self) -> list[str]:
        """The stages of the study of training at fixed points, none where it is not configured."""
        return list(fixed_point_variants.copies(self.config))

    def some_studied(self) -> list[str]:
        """`studied`, for what makes no sense without the study.

        Raises:
            ConfigurationError: it is not configured.
        """
        if not self.studied:
            raise ConfigurationError(
                "fixed_points: is missing; --configfile config/fixed_points.yaml has it"
            )
        return self.studied

    @property
    def before_studied(self) -> list[str]:
        """The stages that these start from."""
        studied = self.studied
        return [name for name in self.stages.with_predecessors(studied) if name not in studied]

    @property
    def every_stage(self) -> list[str]:
        """The stages that any method or study needs, each once, predecessors first."""
        needed = [self.stage_of(method) for method in self.every_method]
        needed += [self.denoiser(method) for method in self.by_descent]
        if "fixed_points" in self.config:
            needed.append(str(self.config["fixed_points"]["gradients"]["stage"]))
        return list(dict.fromkeys([*self.stages.with_predecessors(needed), *self.before_studied]))

    def _configured(self, key: str, method: str) -> str:
        if method not in self.methods:
            known = ", ".join(self.methods)
            raise ConfigurationError(f"{key}: {method!r} is none of the methods: {known}")
        return method
