"""What made a result: code, configuration, data, networks, training, machine.

Every file under ``results/`` carries a `Provenance`, in words (`Provenance.lines`), in one line
(`Provenance.short`) or as data (`Provenance.to_dict`). It says loudly where a run departs from the
paper and holds no date, so that the same run writes the same bytes.

`code_hash` is what lets the workflow rerun a stage when the library code it uses has changed, and
only then.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import itertools
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

SOURCE_ROOT = Path(__file__).resolve().parent.parent
DIGITS = 12  # of a shortened sha256: 48 bits, beyond any accident among the versions of one project

# Of the configuration: they move no result; the last three move only what is named after them.
KEYS_WITHOUT_NUMBERS = ("mirrors", "threads", "processes", "ablations", "bound", "tuning")

PAPER_ITERATIONS = 1500
PAPER_IMAGES = 8394
PAPER_TEST_SET = "Set5"
PAPER_DATA = "DIV2K, BSD500, Flickr2K and WED"


# ------------------------------------------------------------------------------------- code hash


def code_hash(module_name: str, *, root: Path = SOURCE_ROOT) -> str:
    """Hash what a module computes: its statements and those of all it imports from its package.

    Comments, docstrings and formatting do not count; nor do other packages, whose versions are in
    the provenance. Imports are read from the source, nothing is executed. A package's
    ``__init__.py`` counts for each of its modules, as importing one runs it. Like `ast.dump`, the
    hash may differ between versions of Python.

    Args:
        module_name: dotted name such as ``"rglib.results"``.
        root: the folder that holds the top-level package.

    Returns:
        12 hexadecimal digits.

    Raises:
        ModuleNotFoundError: there is no such module under ``root``.
        SyntaxError: one of the modules cannot be parsed.
    """
    if _source_file(module_name, root) is None:
        raise ModuleNotFoundError(f"no module {module_name!r} under {root}", name=module_name)
    return _digest(_reachable(module_name, root), root)


def _digest(modules: Iterable[str], root: Path) -> str:
    digest = hashlib.sha256()
    for name in sorted(modules):
        source = _source_file(name, root).read_text(encoding="utf-8")
        digest.update(f"{name}\n{_parse(source).statements}\n".encode())
    return digest.hexdigest()[:DIGITS]


def _reachable(module_name: str, root: Path) -> set[str]:
    found: set[str] = set()
    waiting = [module_name]
    while waiting:
        name = waiting.pop()
        path = _source_file(name, root)
        if name in found or path is None:
            continue
        found.add(name)
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        imported = _imported_names(_parse(path.read_text(encoding="utf-8")), package)
        for candidate in (name, *imported):
            if candidate.split(".")[0] == module_name.split(".")[0]:
                waiting += _with_parents(candidate)
    return found


def _with_parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts) + 1)]


def _source_file(module_name: str, root: Path) -> Path | None:
    stem = Path(root, *module_name.split("."))
    candidates = (stem / "__init__.py", stem.with_name(f"{stem.name}.py"))
    return next((path for path in candidates if path.is_file()), None)


@dataclass(frozen=True)
class _Parsed:
    statements: str
    imports: tuple[tuple[int, str, tuple[str, ...]], ...]  # (level of "from", module, names)


@functools.cache  # keyed by the source itself: a workflow hashes the same few modules many times
def _parse(source: str) -> _Parsed:
    tree = ast.parse(source)
    imports: list[tuple[int, str, tuple[str, ...]]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [(0, alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names)
            imports.append((node.level, node.module or "", names))
    return _Parsed(ast.dump(_WithoutDocstrings().visit(tree)), tuple(imports))


class _WithoutDocstrings(ast.NodeTransformer):
    """Drops every statement that is a bare string: those say something and do nothing."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        is_string = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_string else node


def _imported_names(parsed: _Parsed, package: str) -> list[str]:
    """Full names an import may load: ``from a.b import c`` may load ``a.b`` and ``a.b.c``."""
    full: list[str] = []
    for level, module, names in parsed.imports:
        if level:
            parts = package.split(".")
            base = ".".join(parts[: len(parts) - level + 1])
            module = f"{base}.{module}" if module else base
        full += [module, *(f"{module}.{name}" for name in names)]
    return full


def configuration_hash(config: Mapping) -> str:
    """Hash the part of a configuration that can change a number.

    Args:
        config: the whole configuration, of JSON types. The order of keys does not count.

    Returns:
        12 hexadecimal digits.
    """
    counted = {key: value for key, value in config.items() if key not in KEYS_WITHOUT_NUMBERS}
    canonical = json.dumps(counted, sort_keys=True, separators=(",", ":"))
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
        files = (path.relative_to(root) for path in (root / "rglib").rglob("*.py"))
        modules = [".".join(path.with_suffix("").parts) for path in files]
        return f"{_version('rglib')} (source {_digest(modules, root)})"
    return f"{_version('rglib')} (git {commit})"


def _git_describe(root: Path) -> str | None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # An installed copy may lie inside some other project's checkout: that commit is not ours.
        git("ls-files", "--error-unmatch", "rglib/provenance.py")
        return git("describe", "--always", "--dirty")
    except (OSError, subprocess.CalledProcessError):
        return None


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown version"


# ------------------------------------------------------------------------------------ provenance


@dataclass(frozen=True)
class Network:
    """Size of a DRUNet: channels per scale and residual blocks per scale."""

    widths: tuple[int, ...]
    blocks: int

    def __str__(self) -> str:
        plural = "" if self.blocks == 1 else "s"
        return f"{'-'.join(map(str, self.widths))}, {self.blocks} block{plural} per scale"


@dataclass(frozen=True)
class Budget:
    """How long a stage was trained: optimiser steps of ``batch`` square crops, in pixels."""

    steps: int
    batch: int
    crop: int

    @property
    def pixels(self) -> int:
        """Pixels seen in all."""
        return self.steps * self.batch * self.crop**2

    def __str__(self) -> str:
        return f"{self.steps:,} steps of {self.batch} crops {self.crop}x{self.crop}"


PAPER_NETWORK = Network(widths=(64, 128, 256, 512), blocks=4)
PAPER_BUDGETS = {"pnpreg": Budget(steps=800_000, batch=16, crop=128)} | {
    stage: Budget(steps=78_750, batch=16, crop=128) for stage in ("mtdeq", "rg1", "deqgd", "rerg")
}


@dataclass(frozen=True)
class Stage:
    """One training stage as its model card tells it.

    ``given`` names weights that were not trained in this run. ``budget``, ``images`` and ``data``
    (titles of data sets) are None or empty where the card of given weights does not know them.
    """

    name: str
    budget: Budget | None
    given: str | None
    device: str
    data: tuple[str, ...]
    images: int | None

    @property
    def departure(self) -> str:
        """``""`` or the loud words for what is unlike the paper."""
        paper = PAPER_BUDGETS.get(self.name)
        if self.budget is None or paper is None or self.budget == paper:
            return ""
        return "SHORTER TRAINING" if self.budget.pixels < paper.pixels else "OTHER TRAINING"

    def __str__(self) -> str:
        facts = [f"weights given, {self.given}"] if self.given else []
        if self.budget:
            facts.append(f"{self.budget} on {self.device}")
        published = "given" if self.name == "denoiser" else "not in the paper"
        paper = PAPER_BUDGETS.get(self.name, published)
        return f"{self.name}: {', '.join(facts)} (the paper: {paper})"


@dataclass(frozen=True)
class Provenance:
    """Everything that made a result. Hashes are shortened sha256; no dates."""

    run: str
    configuration: str
    code: str
    test_set: str
    test_set_digest: str
    stand_in_for: str | None
    network: Network
    stages: tuple[Stage, ...]
    iterations: int
    seeds: tuple[int, ...]
    precision: tuple[tuple[str, str], ...]
    machine: str
    versions: tuple[tuple[str, str], ...]

    def departures(self) -> list[str]:
        """Where this run is not the paper's, loudest first; one sentence each, perhaps none."""
        said: list[str] = []
        if self.stand_in_for:
            said.append(
                f"STAND-IN TEST SET: {self.test_set} instead of {self.stand_in_for}; "
                "these numbers cannot be compared with the paper's."
            )
        elif self.test_set != PAPER_TEST_SET:
            said.append(f"OTHER TEST SET: {self.test_set}; the paper's values are on Set5.")
        if self.iterations != PAPER_ITERATIONS:
            word = "FEWER" if self.iterations < PAPER_ITERATIONS else "MORE"
            said.append(
                f"{word} ITERATIONS of gradient descent: {self.iterations} "
                f"instead of {PAPER_ITERATIONS}."
            )
        if self.network != PAPER_NETWORK:
            smaller = max(self.network.widths) < max(PAPER_NETWORK.widths)
            word = "SMALLER" if smaller else "OTHER"
            said.append(f"{word} NETWORK: {self.network}; the paper: {PAPER_NETWORK}.")
        said += [f"{stage.departure}: {stage}." for stage in self.stages if stage.departure]
        said += [
            f"OTHER TRAINING DATA of {data}; the paper: {PAPER_DATA}, {PAPER_IMAGES} images."
            for images, data in self._training_data()
            if images != PAPER_IMAGES
        ]
        return said

    def lines(self) -> list[str]:
        """Footnotes for a table, without markup; what departs from the paper comes first."""
        agreeing = []
        if not self.stand_in_for:
            agreeing.append(f"Test set: {self.test_set} (digest {self.test_set_digest}).")
        if self.iterations == PAPER_ITERATIONS:
            agreeing.append(f"Iterations of gradient descent: {self.iterations}.")
        if self.network == PAPER_NETWORK:
            agreeing.append(f"Network: {self.network}.")
        agreeing += [f"Training: {stage}." for stage in self.stages if not stage.departure]
        agreeing += [
            f"Training data of {data}."
            for images, data in self._training_data()
            if images == PAPER_IMAGES
        ]
        versions = ", ".join(f"{name} {version}" for name, version in self.versions)
        return [
            *self.departures(),
            *agreeing,
            f"Run {self.run}, configuration {self.configuration}, {self._seeds()}; "
            f"rglib {self.code}.",
            f"Arithmetic inside the networks: {', '.join(map(' '.join, self.precision))}.",
            f"Machine: {self.machine}; {versions}.",
        ]

    def short(self) -> str:
        """One line for the foot of a figure."""
        test_set = f"test set {self.test_set}"
        if self.stand_in_for:
            test_set = f"STAND-IN test set {self.test_set} (not {self.stand_in_for})"
        return (
            f"run {self.run} ({self.configuration}) \N{MIDDLE DOT} {test_set} \N{MIDDLE DOT} "
            f"network {self.network} \N{MIDDLE DOT} {self.iterations} iterations"
        )

    def to_dict(self) -> dict:
        """The same as JSON types, with the departures from the paper in words."""
        mappings = {"versions": dict(self.versions), "precision": dict(self.precision)}
        return asdict(self) | mappings | {"departures": self.departures()}

    def _seeds(self) -> str:
        return f"seed{'' if len(self.seeds) == 1 else 's'} {', '.join(map(str, self.seeds))}"

    def _training_data(self) -> list[tuple[int, str]]:
        """Number of images and words for each mix of data, with the stages that saw it."""
        stages: dict[tuple[int, str], list[str]] = {}
        for stage in self.stages:
            if stage.images is not None:
                mix = (stage.images, f"{', '.join(stage.data)}, {stage.images} images")
                stages.setdefault(mix, []).append(stage.name)
        return [
            (images, f"{', '.join(names)}: {words}") for (images, words), names in stages.items()
        ]


def make_provenance(config: Mapping, *, test_set: Mapping, cards: Sequence[Mapping]) -> Provenance:
    """Gather the provenance of a run, on the machine that calls this.

    Args:
        config: the active configuration; ``run``, ``seeds``, ``precision``, ``network`` and
            ``evaluation: iterations`` are read, the rest only hashed.
        test_set: the manifest of the test set: ``title``, ``stand_in_for`` and ``images``, each
            with ``name`` and ``sha256``.
        cards: model cards of the stages, in the order they are to be named.

    Raises:
        KeyError: one of these lacks a key; the message says which.
    """
    network = _get(config, "configuration", "network")
    return Provenance(
        run=_get(config, "configuration", "run"),
        configuration=configuration_hash(config),
        code=code_version(),
        test_set=_get(test_set, "test-set manifest", "title"),
        test_set_digest=_content_digest(_get(test_set, "test-set manifest", "images")),
        stand_in_for=_get(test_set, "test-set manifest", "stand_in_for"),
        network=Network(widths=tuple(network["widths"]), blocks=network["blocks"]),
        stages=tuple(_stage(card) for card in cards),
        iterations=_get(_get(config, "configuration", "evaluation"), "evaluation", "iterations"),
        seeds=tuple(_get(config, "configuration", "seeds")),
        precision=tuple(_get(config, "configuration", "precision").items()),
        machine=machine(),
        versions=(
            ("Python", platform.python_version()),
            ("torch", _version("torch")),
            ("numpy", _version("numpy")),
        ),
    )


def read_provenance(config: Mapping, *, test_set: Path, cards: Sequence[Path]) -> Provenance:
    """`make_provenance` from files: the manifest of the test set and the model cards (JSON)."""
    return make_provenance(
        config,
        test_set=json.loads(Path(test_set).read_text(encoding="utf-8")),
        cards=[json.loads(Path(card).read_text(encoding="utf-8")) for card in cards],
    )


def machine() -> str:
    """Name the processor, the usable cores and the NVIDIA GPUs of this machine."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count())
    # From the driver's files: asking torch would cost every report seconds of import.
    gpus = [
        model
        for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
        for model in _values(path, "Model")[:1]
    ]
    processor = _values(Path("/proc/cpuinfo"), "model name")[:1] or [platform.processor()]
    return ", ".join([processor[0] or platform.machine(), f"{len(usable)} cores", *gpus])


def _values(path: Path, key: str) -> list[str]:
    """Values of the lines ``key : value`` of a file of the kernel; none if it has no such file."""
    if not path.is_file():
        return []
    pairs = (line.partition(":") for line in path.read_text(errors="replace").splitlines())
    return [value.strip() for name, _, value in pairs if name.strip() == key]


def _stage(card: Mapping) -> Stage:
    numbers = [card.get(key) for key in ("steps", "batch", "crop")]
    return Stage(
        name=_get(card, "model card", "stage"),
        budget=None if None in numbers else Budget(*numbers),
        given=_origin(card) if card.get("given") else None,
        device=card.get("device") or "unknown device",
        data=tuple(card.get("data") or ()),
        images=card.get("images"),
    )


def _origin(card: Mapping) -> str:
    """Files or addresses, of one network or by role."""
    origins = [card[key] for key in ("source", "file", "url") if card.get(key)]
    names = [[origin] if isinstance(origin, str) else origin.values() for origin in origins]
    return ", ".join(dict.fromkeys(itertools.chain(*names))) or "origin not recorded"


def _content_digest(images: Sequence[Mapping]) -> str:
    """Hash names and contents, not places: the same images in another folder are the same set."""
    content = [[image["name"], image["sha256"]] for image in images]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:DIGITS]


def _get(mapping: Mapping, what: str, key: str):
    if key not in mapping:
        raise KeyError(f"the {what} has no key {key!r}; it has: {', '.join(mapping) or 'none'}")
    return mapping[key]
