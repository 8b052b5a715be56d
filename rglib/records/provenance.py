"""What made a result: code, configuration, data, networks, training, machine.

Every file under ``results/`` carries a `Provenance`, in words (`Provenance.lines`) or in one line
(`Provenance.short`), and as data (`Provenance.to_dict`) in a record beside it (`write_record`),
against which `rglib.records.verify` compares. It says loudly where a run departs from the paper and
holds no date, so that the same run writes the same bytes.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import itertools
import json
import os
import platform
import re
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rglib import paper
from rglib.files import file_digest, replacing
from rglib.records.code_hash import DIGITS, SOURCE_ROOT, source_hash
from rglib.records.model_card import Budget, ModelCard

# They move only what is named after them.
SECTIONS_APART = ("ablations", "acceleration", "bound", "fixed_points", "symmetry", "tuning")
KEYS_WITHOUT_NUMBERS = ("mirrors", "threads", "processes", *SECTIONS_APART)  # others move no result

RECORD_SUFFIX = "-metadata.json"  # where CSV on the Web looks for what belongs to a CSV
CHECKSUM, SEAL = "schema:sha256", "dc:identifier"  # in a record: of the result, of the record


def configuration_hash(config: Mapping[str, Any]) -> str:
    """Hash the part of a configuration that can change a number of the tables.

    Args:
        config: the whole configuration, of JSON types. The order of keys does not count.

    Returns:
        12 hexadecimal digits.
    """
    counted = {key: value for key, value in config.items() if key not in KEYS_WITHOUT_NUMBERS}
    return section_hash(counted)


def section_hash(section: Mapping[str, Any]) -> str:
    """Hash a part of a configuration: 12 hexadecimal digits, whatever the order of keys."""
    canonical = json.dumps(section, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:DIGITS]


def code_version(*, root: Path = SOURCE_ROOT) -> str:
    """Name the code: version of the package, then the git commit or else a hash of all modules.

    Args:
        root: the folder that holds the package ``rglib``.

    Returns:
        For example ``"0.1.0 (git 1a2b3c4-dirty)"`` or ``"0.1.0 (source 0123456789ab)"``.
    """
    commit = _git_describe(root)
    if commit is None:
        return f"{_version('rglib')} (source {source_hash(root / 'rglib')})"
    return f"{_version('rglib')} (git {commit})"


def _git_describe(root: Path) -> str | None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # An installed copy may lie inside some other project's checkout: that commit is not ours.
        git("ls-files", "--error-unmatch", "rglib/records/provenance.py")
        return git("describe", "--always", "--dirty")
    except (OSError, subprocess.CalledProcessError):
        return None


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown version"


class MixedError(ValueError):
    """What a result would be made from belongs to different versions of the project."""


# ------------------------------------------------------------------------------------ provenance


@dataclass(frozen=True)
class NetworkSize:
    """Size of a DRUNet: channels per scale and residual blocks per scale.

    ``own`` are the roles that a class of your own has instead, with its ``module:Class``.
    """

    widths: tuple[int, ...]
    blocks: int
    own: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        plural = "" if self.blocks == 1 else "s"
        own = "".join(f", {role} a {name}" for role, name in self.own)
        return f"{'-'.join(map(str, self.widths))}, {self.blocks} block{plural} per scale{own}"


PAPER_NETWORK = NetworkSize(widths=paper.WIDTHS, blocks=paper.BLOCKS)
PAPER_BUDGETS = {stage: Budget(**budget) for stage, budget in paper.BUDGETS.items()}


@dataclass(frozen=True)
class TrainedStage:
    """One training stage as its model card tells it.

    ``given`` names weights that were not trained in this run; ``fixed_points`` says what of the
    training at them was not the paper's, and ``problems`` what of the problems trained on was not;
    ``muon`` whether Muon took part; ``before`` are stages that given weights went through and that
    were not given themselves. ``budget``, ``images``, ``data`` (titles of data sets) and
    ``data_digest`` are None or empty where the card of given weights does not know them;
    ``weights`` are the sha256 of the files by role.
    """

    name: str
    budget: Budget | None
    before: tuple[tuple[str, Budget], ...]
    fixed_points: str
    problems: str
    muon: bool
    given: str | None
    device: str
    data: tuple[str, ...]
    images: int | None
    data_digest: str | None
    weights: tuple[tuple[str, str], ...]

    @property
    def is_copy(self) -> bool:
        """Whether it repeats another stage with a further seed, see `rglib.plan.seeds`."""
        return "." in self.name

    @property
    def departure(self) -> str:
        """``""`` or the loud words for what is unlike the paper."""
        theirs = PAPER_BUDGETS.get(self.name)
        if self.budget is None or theirs is None or (self.budget == theirs and not self.before):
            return ""
        pixels = self.budget.pixels + sum(budget.pixels for _, budget in self.before)
        return "SHORTER TRAINING" if pixels < theirs.pixels else "OTHER TRAINING"

    def __str__(self) -> str:
        facts = [f"weights given, {self.given}"] if self.given else []
        if self.budget:
            facts.append(f"{self.budget} on {self.device}")
        facts += [f"after {name} of {budget}" for name, budget in self.before]
        if self.fixed_points:
            facts.append(self.fixed_points)
        if self.muon:
            facts.append("inner convolutions by Muon")
        published = "given" if self.name == "denoiser" else "not in the paper"
        theirs = PAPER_BUDGETS.get(self.name, published)
        return f"{self.name}: {', '.join(facts)} (the paper: {theirs})"


@dataclass(frozen=True)
class Provenance:
    """Everything that made a result; no dates.

    Hashes are shortened sha256, but for those of weights and training data. ``modules`` are the
    ones of rglib that computed it, from training to layout, with their `code_hash`; ``sections``
    those of `SECTIONS_APART` that it reads, which ``configuration`` leaves out; ``device`` and
    ``machine`` are those of the jobs that computed its numbers.
    """

    run: str
    configuration: str
    sections: tuple[tuple[str, str], ...]
    code: str
    modules: tuple[tuple[str, str], ...]
    test_set: str
    test_set_digest: str
    stand_in_for: str | None
    network: NetworkSize
    stages: tuple[TrainedStage, ...]
    solver: str
    iterations: int
    own_iterations: tuple[tuple[str, int], ...]
    tolerance: float | None
    average: bool
    x0: str
    seeds: tuple[int, ...]
    precision: tuple[tuple[str, str], ...]
    device: str
    machine: str
    versions: tuple[tuple[str, str], ...]

    def departures(self) -> list[str]:
        """Where this run is not the paper's, loudest first; one sentence each, perhaps none."""
        told = [f"{stage.departure}: {stage}." for stage in self._told() if stage.departure]
        other_data = [
            f"OTHER TRAINING DATA of {data}; the paper: {paper.TRAINING_DATA}, "
            f"{paper.IMAGES} images."
            for images, data in self._training_data()
            if images != paper.IMAGES
        ]
        return [
            *self._other_test_set(),
            *self._other_descent(),
            *self._other_network(),
            *told,
            *self._other_problems({}),
            *other_data,
        ]

    @property
    def comparable(self) -> bool:
        """Whether a difference from the paper's numbers says anything, see `comparable`."""
        return comparable(self.test_set)

    @property
    def images(self) -> str:
        """What the numbers are means over, a stand-in in loud letters."""
        if self.stand_in_for:
            return f"the STAND-IN test set {self.test_set} (not {self.stand_in_for})"
        return self.test_set

    def brief(self) -> list[str]:
        """The departures of `departures` in a line for each kind, and what run this is.

        For a table, whose record has the rest.
        """
        return [
            *self._other_test_set(),
            *self._other_descent(),
            *self._other_network(),
            *self._other_training(),
            self.origin(),
        ]

    def origin(self) -> str:
        """One sentence on what run this is, and one on where everything else is said."""
        return (
            f"Run {self.run}, {self._seeds()}, on {self.device}. The training of each stage, all "
            "weights, the machine and the versions are in the record beside the CSV."
        )

    def _other_test_set(self) -> list[str]:
        if self.stand_in_for:
            return [
                f"STAND-IN TEST SET: {self.test_set} instead of {self.stand_in_for}; "
                "these numbers cannot be compared with the paper's."
            ]
        if not self.comparable:
            return [f"OTHER TEST SET: {self.test_set}; the paper's values are on {paper.TEST_SET}."]
        return []

    def _other_descent(self) -> list[str]:
        """One sentence where the solver is another, or else one for each setting."""
        start = f"completion starts from {self.x0} pixels instead of grey ones"
        if self.solver != paper.SOLVER:
            most = f"{self.iterations} iterations at most{self._own_iterations()}"
            said = [
                f"{self.solver} instead of {paper.SOLVER}",
                f"{most} instead of {paper.ITERATIONS}",
            ]
            if self.tolerance is not None:
                said.append(f"until eight steps move an image by less than {self.tolerance:g}")
            if self.average:
                said.append("results are means of the last eight iterates")
            if self.x0 != paper.START:
                said.append(start)
            return [f"OTHER SOLVER of gradient descent: {', '.join(said)}."]
        said = []
        if self.iterations != paper.ITERATIONS or self.own_iterations:
            least = min([self.iterations, *(number for _, number in self.own_iterations)])
            word = "FEWER" if least < paper.ITERATIONS else "MORE"
            said.append(
                f"{word} ITERATIONS of gradient descent: {self.iterations}"
                f"{self._own_iterations()} instead of {paper.ITERATIONS}."
            )
        if self.tolerance is not None:
            said.append(
                "EARLY STOP: an image has converged once eight steps of gradient descent move it "
                f"by less than {self.tolerance:g} (mean square); the paper's go on to the last "
                "iteration."
            )
        if self.average:
            said.append(
                "AVERAGED ITERATES: the results of gradient descent are means of the last eight "
                "iterates; the paper's are last iterates."
            )
        if self.x0 != paper.START:
            said.append(f"OTHER START: {start}.")
        return said

    def _own_iterations(self) -> str:
        """The methods that have another number of iterations than `iterations`, in brackets."""
        of: dict[int, list[str]] = {}
        for label, number in self.own_iterations:
            of.setdefault(number, []).append(label)
        own = ", ".join(f"{' and '.join(labels)} {n}" for n, labels in of.items())
        return f" ({own})" if own else ""

    def _other_network(self) -> list[str]:
        if self.network == PAPER_NETWORK:
            return []
        smaller = max(self.network.widths) < max(PAPER_NETWORK.widths)
        word = "SMALLER" if smaller and not self.network.own else "OTHER"
        return [f"{word} NETWORK: {self.network}; the paper: {PAPER_NETWORK}."]

    def _other_training(self) -> list[str]:
        """The steps of each stage, of what came before that the paper has not; problems; images."""
        steps: dict[str, list[tuple[str, int, int]]] = {}
        for stage in self._told():
            if stage.departure and stage.budget:
                theirs = PAPER_BUDGETS[stage.name].steps
                steps.setdefault(stage.departure, []).append(
                    (paper.METHODS.get(stage.name, stage.name), stage.budget.steps, theirs)
                )
        said = []
        for word, stages in steps.items():
            ours = ", ".join(f"{name} {n:,}" for name, n, _ in stages)
            papers = " or ".join(dict.fromkeys(f"{theirs:,}" for *_, theirs in stages))
            after = ", ".join(f"{name} {n:,}" for name, n in self._not_in_the_paper().items())
            more = f", after {after}" if after else ""
            said.append(f"{word}: {ours} steps{more}; the paper: {papers}.")
        said += self._other_problems(paper.METHODS)
        if images := self._other_images():
            said.append(f"OTHER TRAINING DATA: {images}; the paper: {paper.IMAGES:,}.")
        return said

    def _other_problems(self, labels: Mapping[str, str]) -> list[str]:
        """Which stages, by id or by label, trained on other problems than the paper's."""
        stages: dict[str, list[str]] = {}
        for stage in self._told():
            if stage.problems:
                stages.setdefault(stage.problems, []).append(labels.get(stage.name, stage.name))
        return [
            f"OTHER TRAINING PROBLEMS of {', '.join(names)}: {problems}."
            for problems, names in stages.items()
        ]

    def _not_in_the_paper(self) -> dict[str, int]:
        """The steps of stages on the way that it has not, trained here, given or before those."""
        here = [(stage.name, stage.budget) for stage in self._told() if stage.budget]
        before = [entry for stage in self._told() for entry in stage.before]
        known = {*PAPER_BUDGETS, "denoiser"}  # which the paper takes as given
        return {name: budget.steps for name, budget in [*here, *before] if name not in known}

    def _other_images(self) -> str:
        """How many images the stages saw, where they are not as many as the paper's."""
        others = [stage for stage in self._told() if stage.images not in (None, paper.IMAGES)]

        def counts(stages: Iterable[TrainedStage]) -> str:
            return " or ".join(dict.fromkeys(f"{stage.images:,}" for stage in stages))

        given = counts(stage for stage in others if stage.given)
        here = counts(stage for stage in others if not stage.given)
        if given and here and given != here:
            return f"{given} images for the given stages, {here} for those trained here"
        return f"{counts(others)} images" if others else ""

    def lines(self) -> list[str]:
        """Footnotes for a table, without markup; what departs from the paper comes first."""
        agreeing = []
        if not self.stand_in_for:
            agreeing.append(f"Test set: {self.test_set} (digest {self.test_set_digest}).")
        if self.iterations == paper.ITERATIONS and not self.own_iterations:
            agreeing.append(f"Iterations of gradient descent: {self.iterations}.")
        if self.network == PAPER_NETWORK:
            agreeing.append(f"Network: {self.network}.")
        agreeing += [f"Training: {stage}." for stage in self._told() if not stage.departure]
        agreeing += [
            f"Training data of {data}."
            for images, data in self._training_data()
            if images == paper.IMAGES
        ]
        versions = ", ".join(f"{name} {version}" for name, version in self.versions)
        return [
            *self.departures(),
            *agreeing,
            f"Run {self.run}, configuration {self.configuration}, {self._seeds()}; "
            f"rglib {self.code}.",
            f"Arithmetic inside the networks: {', '.join(map(' '.join, self.precision))}.",
            *self._weights(),
            f"Machine: {self.machine}, device {self.device}; {versions}.",
        ]

    def short(self) -> str:
        """One line for the foot of a figure."""
        test_set = f"test set {self.test_set}"
        if self.stand_in_for:
            test_set = f"STAND-IN test set {self.test_set} (not {self.stand_in_for})"
        return (
            f"run {self.run} ({self.configuration}) \N{MIDDLE DOT} {test_set} \N{MIDDLE DOT} "
            f"network {self.network} \N{MIDDLE DOT} "
            f"{self.iterations} iterations{self._own_iterations()}"
        )

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON types, with the departures from the paper in words."""
        pairs = ("sections", "modules", "own_iterations", "precision", "versions")
        stages = [
            told | {key: dict(told[key]) for key in ("before", "weights")}
            for told in map(asdict, self.stages)
        ]
        return (
            asdict(self)
            | {name: dict(getattr(self, name)) for name in pairs}
            | {"stages": stages, "departures": self.departures()}
        )

    def _seeds(self) -> str:
        return f"seed{'' if len(self.seeds) == 1 else 's'} {', '.join(map(str, self.seeds))}"

    def _told(self) -> list[TrainedStage]:
        """The stages to describe: what is said of one holds for its copies."""
        return [stage for stage in self.stages if not stage.is_copy]

    def _weights(self) -> list[str]:
        """One line with the shortened hashes of all weights, if there are any."""
        words = [
            f"{stage.name} {role} {digest[:DIGITS]}"
            for stage in self.stages
            for role, digest in stage.weights
        ]
        return [f"Weights: {', '.join(words)}."] if words else []

    def _training_data(self) -> list[tuple[int, str]]:
        """Number of images and words for each mix of data, with the stages that saw it."""
        stages: dict[tuple[int, str], list[str]] = {}
        for stage in self._told():
            if stage.images is not None:
                digest = f" (digest {stage.data_digest[:DIGITS]})" if stage.data_digest else ""
                mix = (stage.images, f"{', '.join(stage.data)}, {stage.images} images{digest}")
                stages.setdefault(mix, []).append(stage.name)
        return [
            (images, f"{', '.join(names)}: {words}") for (images, words), names in stages.items()
        ]


def comparable(test_set: str) -> bool:
    """Whether numbers on a test set of this title can be held against the paper's.

    On the paper's own images alone: a difference between means over other images is none between
    methods.
    """
    return test_set == paper.TEST_SET


def headwords(departures: Sequence[str]) -> list[str]:
    """The loud words that sentences of `Provenance.departures` begin with, each once, quietly."""
    loud = (re.match(r"[A-Z][A-Z -]*[A-Z]\b", sentence) for sentence in departures)
    return list(dict.fromkeys(found.group().lower() for found in loud if found))


def make_provenance(
    config: Mapping[str, Any],
    *,
    test_set: Mapping[str, Any],
    cards: Sequence[ModelCard],
    machines: Sequence[Mapping[str, Any]] = (),
    modules: Mapping[str, str] | None = None,
    sections: Sequence[str] = (),
) -> Provenance:
    """Gather the provenance of a run.

    Args:
        config: the active configuration; ``run``, ``seeds``, ``precision``, ``network``,
            ``evaluation: solver, iterations, tolerance, average, x0`` and what ``methods`` have
            for their own iterations are read, the rest hashed.
        test_set: the manifest of the test set: ``title``, ``stand_in_for`` and ``images``, each
            with ``name`` and ``sha256``.
        cards: model cards of the stages, in the order they are to be named.
        machines: ``device`` and ``machine`` of each job that computed, as `write_machine` writes
            them; none where nothing but the calling process computes.
        modules: `code_hash` of the modules that computed, by name.
        sections: those of `SECTIONS_APART` that the result depends on.

    Raises:
        KeyError: one of these lacks a key; the message says which.
    """
    network = _get(config, "configuration", "network")
    evaluation = _get(config, "configuration", "evaluation")
    return Provenance(
        run=_get(config, "configuration", "run"),
        configuration=configuration_hash(config),
        sections=tuple((name, section_hash(config[name])) for name in sections),
        code=code_version(),
        modules=tuple((modules or {}).items()),
        test_set=_title(test_set),
        test_set_digest=digest_of_images(_get(test_set, "test-set manifest", "images")),
        stand_in_for=_get(test_set, "test-set manifest", "stand_in_for"),
        network=NetworkSize(
            widths=tuple(network["widths"]),
            blocks=network["blocks"],
            own=tuple((role, network[role]) for role in ("P", "G") if network.get(role)),
        ),
        stages=tuple(_stage(card) for card in cards),
        solver=_get(evaluation, "evaluation", "solver"),
        iterations=_get(evaluation, "evaluation", "iterations"),
        own_iterations=tuple(
            (method["label"], method["evaluation"]["iterations"])
            for method in config.get("methods", {}).values()
            if "iterations" in method.get("evaluation", {})
        ),
        tolerance=_get(evaluation, "evaluation", "tolerance"),
        average=_get(evaluation, "evaluation", "average"),
        x0=_get(evaluation, "evaluation", "x0"),
        seeds=tuple(_get(config, "configuration", "seeds")),
        precision=tuple(_get(config, "configuration", "precision").items()),
        device=_distinct(machines, "device") or "unknown device",
        machine=_distinct(machines, "machine") or machine(),
        versions=(
            ("Python", platform.python_version()),
            ("torch", _version("torch")),
            ("numpy", _version("numpy")),
        ),
    )


def read_provenance(
    config: Mapping[str, Any],
    *,
    test_set: Path,
    cards: Sequence[Path],
    machines: Sequence[Path] = (),
    modules: Mapping[str, str] | None = None,
    sections: Sequence[str] = (),
) -> Provenance:
    """`make_provenance` from JSON files: manifest of the test set, model cards and machines.

    Raises:
        MixedError: one of them was made with other code or another test set than the rest.
        CardError: a card is missing or none.
    """
    read = {Path(path): ModelCard.read(Path(path)) for path in cards}
    jobs = {Path(path): _read_json(path) for path in machines}
    trained = {path: card.to_dict() for path, card in read.items() if not card.given}
    listed = _read_json(test_set)
    for path, made in {**trained, **jobs}.items():
        _check_alike(path, made, modules or {}, listed)
    return make_provenance(
        config,
        test_set=listed,
        cards=list(read.values()),
        machines=list(jobs.values()),
        modules=modules,
        sections=sections,
    )


def _check_alike(
    path: Path, made: Mapping[str, Any], modules: Mapping[str, str], test_set: Mapping[str, Any]
) -> None:
    """Compare what a job says it was made with, where it does, with what a result is made with."""
    now = {**modules, "test_set": digest_of_images(test_set["images"])}
    then = {**made.get("code", {}), **{key: made[key] for key in ("test_set",) if key in made}}
    others = [name for name, digest in then.items() if now.get(name) != digest]
    if not others:
        return
    what = (
        "another test set" if others[0] == "test_set" else f"other code of {others[0].split()[0]}"
    )
    raise MixedError(
        f"{path} was made with {what} than there is now: a result would mix both; run the same "
        "command again, without --rerun-triggers, --touch and --allowed-rules"
    )


def provenance_of(inputs: Any, params: Any, config: Mapping[str, Any]) -> Provenance:
    """`read_provenance` from a workflow's inputs and parameters.

    ``inputs`` are test_set, cards and machines; ``params`` code and, if it reads any, sections.
    """
    return read_provenance(
        config,
        test_set=inputs.test_set,
        cards=inputs.cards,
        machines=inputs.machines,
        modules=params.code,
        sections=params.get("sections", ()),
    )


def write_machine(
    path: Path, *, device: str, code: Mapping[str, str], test_set: Path | None = None
) -> None:
    """Write where a job computed, and with what: `read_provenance` refuses to mix it with others.

    Args:
        path: of the file.
        device: the PyTorch device; the machine is the one that calls this.
        code: hashes of the code by its entry points.
        test_set: manifest of the test set, if that was restored.
    """
    content: dict[str, Any] = {"device": device, "machine": machine(), "code": dict(code)}
    if test_set is not None:
        content["test_set"] = digest_of_images(_read_json(test_set)["images"])
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def usable_processors() -> int:
    """How many processors this process may use."""
    can_tell = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if can_tell else os.cpu_count() or 1


def machine() -> str:
    """Name the processor, the usable cores and the NVIDIA GPUs of this machine."""
    usable = usable_processors()
    # From the driver's files: asking torch would cost every report seconds of import.
    gpus = [
        model
        for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
        for model in _values(path, "Model")[:1]
    ]
    processor = _values(Path("/proc/cpuinfo"), "model name")[:1] or [platform.processor()]
    return ", ".join([processor[0] or platform.machine(), f"{usable} cores", *gpus])


def _values(path: Path, key: str) -> list[str]:
    """Values of the lines ``key : value`` of a file of the kernel; none if it has no such file."""
    if not path.is_file():
        return []
    pairs = (line.partition(":") for line in path.read_text(errors="replace").splitlines())
    return [value.strip() for name, _, value in pairs if name.strip() == key]


def _title(test_set: Mapping[str, Any]) -> str:
    """The test set's title, with the files of its folder that could not be used."""
    title = str(_get(test_set, "test-set manifest", "title"))
    left_out = ", ".join(file["file"] for file in test_set.get("left_out", ()))
    return f"{title} (left out: {left_out})" if left_out else title


def _stage(card: ModelCard) -> TrainedStage:
    return TrainedStage(
        name=card.stage,
        budget=card.budget,
        before=tuple((name, Budget(**budget)) for name, budget in (card.before or {}).items()),
        fixed_points=_fixed_points(card),
        problems=_other_than_the_papers(card.training_problems or {}),
        muon=(card.optimiser or {}).get("muon") is not None,
        given=_origin(card) if card.given else None,
        device=card.device or "unknown device",
        data=tuple(card.data or ()),
        images=card.images,
        data_digest=card.data_digest,
        weights=tuple((card.weights or {}).items()),
    )


def _fixed_points(card: ModelCard) -> str:
    """What the card says of training at x_f and x_g, where it is not the paper's; else nothing."""
    settings = card.equilibrium or {}
    said = [_way_to_fixed_points(settings)] if settings else []
    said.append(STARTS_SAID[settings.get("x0", "test")])
    of_g = (card.options or {}).get("gradient_descent") is not None
    solver = settings.get("solver", paper.SOLVER)
    if of_g and solver != paper.SOLVER:
        said.append(f"those of g by {solver}")
    if of_g and settings.get("backward_map", "gradient") != "gradient":
        said.append("back-propagation through the semi-implicit step")
    if settings.get("loss", "mean_square") != "mean_square":
        said.append("the loss in dB")
    return ", ".join(filter(None, said))


# Where iterations start, see `rglib.training.objectives.equilibrium.STARTS`; the paper's is test.
STARTS_SAID = {
    "test": "",
    "interpolated": "from interpolated pixels in completion",
    "adjoint": "from A^T y",
}


def _way_to_fixed_points(settings: Mapping[str, Any]) -> str:
    if keep := settings.get("keep"):
        return (
            f"fixed points by iterates kept for {keep['visits']} updates, {keep['first_steps']} "
            f"steps in the first and {keep['steps']} in each later one"
        )
    most = settings.get("max_iterations", paper.FIXED_POINT_ITERATIONS)
    if most == paper.FIXED_POINT_ITERATIONS:
        return ""
    return f"fixed points after {most} iterations at most"


def _other_than_the_papers(section: Mapping[str, Any]) -> str:
    """What ``training_problems`` has that is not the paper's, in words."""
    theirs = paper.TRAINING_PROBLEMS
    ours = {**theirs, **section}
    return ", ".join(
        f"{words.format(value(ours))} instead of {value(theirs)}"
        for words, value in PROBLEMS_SAID.items()
        if value(ours) != value(theirs)
    )


def _noise(section: Mapping[str, Any]) -> str:
    drawn = " with a uniform logarithm" if section["noise"] == "log_uniform" else ""
    return f"{section['sigma_min_255']:g} to {section['sigma_max_255']:g}/255{drawn}"


def _factors(section: Mapping[str, Any]) -> str:
    *first, last = map(str, sorted(section["factors"]))
    return f"{', '.join(first)} or {last}" if first else last


PROBLEMS_SAID: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "noise of {}": _noise,
    "blur of up to {} pixels": lambda section: f"{section['sigma_b_max']:g}",
    "super-resolution by {}": _factors,
    "up to {} % of the pixels missing": lambda section: f"{100 * section['drop_max']:g}",
}


def _origin(card: ModelCard) -> str:
    """Files or addresses, of one network or by role."""
    said = card.to_dict()
    origins = [said[key] for key in ("source", "file", "url") if said.get(key)]
    names = [[origin] if isinstance(origin, str) else origin.values() for origin in origins]
    return ", ".join(dict.fromkeys(itertools.chain(*names))) or "origin not recorded"


def digest_of_images(images: Sequence[Mapping[str, Any]]) -> str:
    """Hash names and contents, not places: the same images in another folder are the same set."""
    content = [[image["name"], image["sha256"]] for image in images]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:DIGITS]


def _distinct(machines: Sequence[Mapping[str, Any]], key: str) -> str:
    return " and ".join(dict.fromkeys(_get(entry, "machine", key) for entry in machines))


def _read_json(path: Path) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def _get(mapping: Mapping[str, Any], what: str, key: str) -> Any:
    if key not in mapping:
        raise KeyError(f"the {what} has no key {key!r}; it has: {', '.join(mapping) or 'none'}")
    return mapping[key]


# --------------------------------------------------------------------------------------- records


def record_path(result: Path) -> Path:
    """Where the record of a result lies: beside it."""
    return result.with_name(result.name + RECORD_SUFFIX)


def write_record(
    result: Path, *, title: str, provenance: Provenance, table: Mapping[str, Any] | None = None
) -> None:
    """Write beside a result, once it is written, what made it and the sha256 of its bytes.

    Args:
        result: the file.
        title: one line on what it holds.
        provenance: what made it.
        table: for a CSV, its ``tableSchema`` in the manner of CSV on the Web.
    """
    content = {
        "url": result.name,
        "dc:title": title,
        CHECKSUM: file_digest(result),
        "dc:provenance": provenance.to_dict(),
    }
    if table is not None:
        content = {"@context": "http://www.w3.org/ns/csvw"} | content | {"tableSchema": table}
    with replacing(record_path(result)) as partial:
        partial.write_bytes(sealed(content))


def sealed(content: Mapping[str, Any]) -> bytes:
    """The bytes of a record: its content, and a hash of that, which shows any later change."""
    unsealed = {key: value for key, value in content.items() if key != SEAL}
    seal = hashlib.sha256(_rendered(unsealed)).hexdigest()
    return _rendered(unsealed | {SEAL: seal})


def _rendered(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
