"""Whether results are what was written, and whether what made them is still the same.

Beside each result lies its record (`rglib.records.provenance.write_record`). Against it are
compared the bytes of the result, the code, the configuration, and, where they are at hand, the
networks and images under ``work/<run>/``. Nothing is run and nothing written.

A record is sealed by a hash of itself, which shows a change made by hand or by accident. It is no
signature: whoever means to deceive can compute it too. No PyTorch here, as this is to answer at
once.
"""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import cache, partial
from pathlib import Path
from typing import Any

import yaml
from tabulate import tabulate

from rglib.data.datasets import DOWNLOADS, mirror_folders, slug
from rglib.data.listing import changes
from rglib.data.manifest import Manifest
from rglib.files import file_digest
from rglib.plan.ablations import overlaid, without_nulls
from rglib.records.code_hash import code_hash
from rglib.records.provenance import (
    CHECKSUM,
    RECORD_SUFFIX,
    SEAL,
    SECTIONS_APART,
    configuration_hash,
    digest_of_images,
    record_path,
    sealed,
    section_hash,
)

CRATE = "ro-crate-metadata.json"  # in a folder that `rglib.integrations.rocrate` has written
CRATE_RESULTS = "results"  # the folder of results in it

WIDTH = 76  # characters of a line of the reasons


class VerifyError(ValueError):
    """What was asked cannot be answered; the message names the file or folder and what to do."""


class Status(StrEnum):
    """What became of a result; the worst first, and of several the worst counts."""

    MISSING = "missing"  # there is a record and no result
    UNRECORDED = "unrecorded"  # there is a result and no record
    TOUCHED = "touched"  # the result or its record is not what was written
    STALE = "stale"  # it would be another today, or belongs to another run than its neighbours
    OK = "ok"


WHAT_TO_DO = {
    Status.MISSING: "run snakemake again, with the same targets and --configfile",
    Status.UNRECORDED: "made by hand, or before there were records: delete it and run snakemake",
    Status.TOUCHED: "delete it and its record and run snakemake, with the same --configfile",
    Status.STALE: "run snakemake again, with the same targets and --configfile",
}


@dataclass(frozen=True)
class Finding:
    """What was found out about one result.

    ``reasons`` say why it is not ok, ``unchecked`` what could not be compared and why.
    """

    file: str
    status: Status
    reasons: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()


@dataclass(frozen=True)
class Remark:
    """One comparison that failed, or if not ``stale`` could not be made."""

    text: str
    stale: bool = True


# --------------------------------------------------------------------------------------- records


class TouchedError(ValueError):
    """A record is not as it was written; the message says how that shows."""


@dataclass(frozen=True)
class StageWeights:
    """A stage of training: the sha256 of its weights by role, and of its images if it ran here."""

    stage: str
    weights: Mapping[str, str]
    data_digest: str | None

    @classmethod
    def of(cls, stage: Mapping[str, Any]) -> StageWeights:
        """From a stage of a record; images of a training elsewhere cannot be compared."""
        digest = stage["data_digest"] if stage["given"] is None else None
        return cls(stage["name"], stage["weights"], digest)


@dataclass(frozen=True, order=True)
class Origin:
    """The run and configuration hash that made a result: all files of one folder should agree."""

    run: str
    configuration: str

    def __str__(self) -> str:
        return f"run {self.run} ({self.configuration})"


@dataclass(frozen=True)
class Record:
    """What a record says of a result, as far as it can be compared with something."""

    checksum: str
    origin: Origin
    sections: Mapping[str, str]
    python: str
    modules: Mapping[str, str]
    networks: tuple[StageWeights, ...]
    test_set_digest: str

    @classmethod
    def read(cls, path: Path) -> Record | None:
        """Read the record of a result, None if there is none that this version understands.

        Raises:
            TouchedError: it is not as it was written, or is of another file.
        """
        if not path.is_file():
            return None
        written = path.read_bytes()
        content = _json_object(written)
        if not {CHECKSUM, SEAL} & content.keys():
            return None  # from before there were checksums
        if sealed(content) != written:
            raise TouchedError(f"its record {path.name} is not as it was written")
        try:
            if content["url"] + RECORD_SUFFIX != path.name:
                raise TouchedError(f"its record is that of {content['url']}")
            return cls._of(content[CHECKSUM], content["dc:provenance"])
        except KeyError:
            return None

    @classmethod
    def _of(cls, checksum: str, made: Mapping[str, Any]) -> Record:
        return cls(
            checksum=checksum,
            origin=Origin(made["run"], made["configuration"]),
            sections=made["sections"],
            python=made["versions"]["Python"],
            modules=made["modules"],
            networks=tuple(map(StageWeights.of, made["stages"])),
            test_set_digest=made["test_set_digest"],
        )


def _json_object(text: bytes) -> dict[str, Any]:
    """Raises TouchedError for anything else: what the workflow writes is one."""
    try:
        content = json.loads(text)
        json.dumps(content, ensure_ascii=False).encode()  # halves of characters are no text
    except ValueError:
        raise TouchedError("its record is not JSON") from None
    if not isinstance(content, dict):
        raise TouchedError("its record is not a JSON object")
    return content


# --------------------------------------------------------------------------------------- project


@dataclass(frozen=True)
class Configuration:
    """A configuration: the files that it was read from, and what of it is in a record."""

    name: str
    origin: Origin
    sections: Mapping[str, str]
    mirrors: tuple[Path, ...]


@dataclass(frozen=True)
class Project:
    """What results are compared with.

    Attributes:
        root: the project's folder, None where there is none around the results.
        configurations: those that the results may have been made with.
        named: whether these are what the caller named, or else all that the project has.
        code_hash: of code, by its entry points.
        digest: of a file.
    """

    root: Path | None
    configurations: tuple[Configuration, ...]
    named: bool
    code_hash: Callable[[str], str]
    digest: Callable[[Path], str]

    def relisted(self, manifest: Path, run: str) -> list[str]:
        """What of a data set is no longer as a manifest lists it, with the mirrors of a run."""
        if self.root is None or not manifest.is_file():
            return []
        mirrors = [c.mirrors for c in self.configurations if c.origin.run == run]
        return changes(
            Manifest.of(_read_json(manifest, self.root)),
            mirrors=[self.root / mirror for mirror in (mirrors or [mirror_folders()])[0]],
            data_dir=self.root / DOWNLOADS,
            root=self.root,
        )

    @classmethod
    def around(cls, folder: Path, configfiles: Sequence[Path] = ()) -> Project:
        """The project that a folder of results lies in, or else the working folder.

        Raises:
            VerifyError: a configuration cannot be read, or there is none for ``configfiles`` to
                lie over.
        """
        starts = (folder.resolve(), Path.cwd())
        places = [place for start in starts for place in (start, *start.parents)]
        root = next((place for place in places if _is_project(place)), None)
        if root is None and configfiles:
            raise VerifyError(f"no project around {folder}, for {configfiles[0]} to lie over")
        return cls(
            root=root,
            configurations=_configurations(root, configfiles) if root else (),
            named=bool(configfiles),
            code_hash=cache(partial(code_hash, root=root)),
            digest=cache(file_digest),
        )


def _is_project(folder: Path) -> bool:
    return all((folder / name).is_file() for name in ("Snakefile", "config.yaml"))


def _configurations(root: Path, configfiles: Sequence[Path]) -> tuple[Configuration, ...]:
    """The named overlays over config.yaml; without any, it alone and under each in config/."""
    base = root / "config.yaml"
    overlays = sorted((root / "config").glob("*.yaml"))
    stacks = [configfiles] if configfiles else [[], *([overlay] for overlay in overlays)]
    return tuple(_configuration(base, stack) for stack in stacks)


def _configuration(base: Path, overlays: Sequence[Path]) -> Configuration:
    merged = _read_yaml(base)
    for overlay in overlays:  # as Snakemake does with --configfile
        merged = overlaid(merged, _read_yaml(overlay))
    merged = without_nulls(merged)
    name = " + ".join(_within(path, base.parent) for path in overlays) or base.name
    return Configuration(
        name,
        Origin(str(merged.get("run")), configuration_hash(merged)),
        {key: section_hash(merged[key]) for key in SECTIONS_APART if key in merged},
        mirror_folders(merged.get("mirrors", ())),
    )


def _within(path: Path, root: Path) -> str:
    """A path to show: from the project's folder if it lies there."""
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise VerifyError(f"the configuration {path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise VerifyError(f"the configuration {path} holds no keys")
    return content


# ----------------------------------------------------------------------------------- comparisons


def check_code(record: Record, project: Project) -> Iterator[Remark]:
    """Compare the hashes of the code that computed a result with today's."""
    recorded, current = (
        version.rpartition(".")[0] for version in (record.python, platform.python_version())
    )
    if recorded != current:
        # `code_hash` goes by Python's syntax tree, which differs between its versions
        yield Remark(f"the code: recorded with Python {recorded}, this is {current}", stale=False)
        return
    for entries, expected in record.modules.items():
        code = entries.split()[0]
        try:
            if project.code_hash(entries) != expected:
                yield Remark(f"the code of {code} has changed")
        except (ModuleNotFoundError, ValueError) as error:
            if isinstance(error, ModuleNotFoundError) and project.root is None:
                yield Remark(f"the code of {code}: there is no project around", stale=False)
            else:
                yield Remark(f"the code of {code} is gone: {error}")
        except SyntaxError as error:
            yield Remark(f"the code of {code} cannot be read: {error}")


def check_configuration(record: Record, project: Project) -> Iterator[Remark]:
    """Compare the hashes of the configuration with today's of the same run."""
    same_run = [c for c in project.configurations if c.origin.run == record.origin.run]
    same = [c for c in same_run if c.origin == record.origin]
    names = " or ".join(c.name for c in same or same_run or project.configurations)
    if same:
        for section, digest in record.sections.items():
            if digest not in [c.sections.get(section) for c in same]:
                yield Remark(f"`{section}` in {names} is no longer what it was")
    elif same_run:
        several = "" if project.named else " alone; if it was of several, name all: --configfile"
        yield Remark(
            f"its configuration {record.origin.configuration} is no longer {names}{several}"
        )
    elif project.named:
        yield Remark(f"it is of {record.origin}, not of {names}")
    else:
        yield Remark(
            f"the configuration: none here has `run: {record.origin.run}`; name it: --configfile",
            stale=False,
        )


def check_networks(record: Record, project: Project) -> Iterator[Remark]:
    """Compare weights and images of training with those under ``work/<run>/``."""
    work = _work(record, project)
    if project.root is None or work is None or not (work / "models").is_dir():
        yield Remark(f"the networks: there is no work/{record.origin.run}/models", stale=False)
        return
    for network in record.networks:
        for role, expected in network.weights.items():
            weights = work / "models" / network.stage / f"{role}.safetensors"
            if not weights.is_file():
                gone = _within(weights, project.root)
                yield Remark(f"the network {network.stage} {role}: no {gone}", stale=False)
            elif project.digest(weights) != expected:
                yield Remark(f"the weights of {network.stage} {role} have changed")
    store = work / "store" / "train" / "store.json"
    trained = {network.stage: network.data_digest for network in record.networks}
    if store.is_file() and any(trained.values()):
        current = _read_json(store, project.root).get("digest")
        others = [stage for stage, digest in trained.items() if digest not in (None, current)]
        if others:
            yield Remark(f"the training images of {', '.join(others)} have changed")
        for dataset in _read_json(store, project.root).get("datasets", []):
            manifest = project.root / "work" / "data" / f"{slug(dataset['dataset'])}.json"
            for change in project.relisted(manifest, record.origin.run):
                yield Remark(f"the training images of {dataset['title']}: {change}")


def check_test_set(record: Record, project: Project) -> Iterator[Remark]:
    """Compare the test set with the one under ``work/<run>/``, and that with what is there now."""
    work = _work(record, project)
    manifest = work and work / "test_set.json"
    if project.root is None or manifest is None or not manifest.is_file():
        yield Remark(f"the test set: no work/{record.origin.run}/test_set.json", stale=False)
        return
    images = _read_json(manifest, project.root).get("images", [])
    if digest_of_images(images) != record.test_set_digest:
        yield Remark("the test set has changed")
    if changed := project.relisted(manifest, record.origin.run):
        yield from (Remark(f"the test set: {change}") for change in changed)
        return
    for image in images:
        path = project.root / image["path"]
        if not path.is_file():
            yield Remark(f"the test image {image['name']}: no {path}", stale=False)
        elif project.digest(path) != image["sha256"]:
            yield Remark(f"the test image {image['name']} has changed")


CHECKS = (check_configuration, check_code, check_networks, check_test_set)


def _work(record: Record, project: Project) -> Path | None:
    return None if project.root is None else project.root / "work" / record.origin.run


def _read_json(path: Path, root: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise VerifyError(
            f"{path} is not JSON ({error}): delete it, and `snakemake {_within(path, root)}` with "
            "the same --configfile writes it anew"
        ) from None


# ---------------------------------------------------------------------------------------- verify


def verify(folder: Path, *, configfiles: Sequence[Path] = ()) -> list[Finding]:
    """Compare each result in a folder, not in its subfolders, with its record.

    Args:
        folder: ``results/``, or a copy of it such as ``results/published/embedded``, or an RO-Crate
            of results, whose checksums are compared too.
        configfiles: the overlays that the results were made with, as for Snakemake. Without any,
            config.yaml and each file of config/ are tried.

    Returns:
        A finding for each result and each missing one, by name.

    Raises:
        VerifyError: there is no such folder or no result in it, or a configuration or an
            intermediate file cannot be read.
    """
    if (folder / CRATE).is_file():
        found = verify(folder / CRATE_RESULTS, configfiles=configfiles)
        return [_as_the_crate_has_it(finding, folder) for finding in found]
    paths = [folder / name for name in _results(folder)]
    project = Project.around(folder, configfiles)
    looked_at = {path: _record_or_finding(path) for path in paths}
    records = {path: found for path, found in looked_at.items() if isinstance(found, Record)}
    rivals = mixed({record.origin for record in records.values()}, project)
    return [
        _compared(path, found, rivals, project) if isinstance(found, Record) else found
        for path, found in looked_at.items()
    ]


def _as_the_crate_has_it(finding: Finding, crate: Path) -> Finding:
    """The finding, touched if the crate's description has another checksum for the file."""
    try:
        entities = json.loads((crate / CRATE).read_text(encoding="utf-8"))["@graph"]
        said = {entity["@id"]: entity.get("sha256") for entity in entities}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VerifyError(f"{crate / CRATE}: cannot be read as an RO-Crate ({error})") from error
    name, path = f"{CRATE_RESULTS}/{finding.file}", crate / CRATE_RESULTS / finding.file
    if not path.is_file() or said.get(name) == file_digest(path):
        return finding
    reason = f"{CRATE} has {'another' if said.get(name) else 'no'} checksum for it"
    return replace(finding, status=Status.TOUCHED, reasons=(reason, *finding.reasons))


def _record_or_finding(path: Path) -> Record | Finding:
    """What a result is to be compared with, or why it cannot be."""
    if not path.is_file():
        return Finding(path.name, Status.MISSING, ("there is only its record",))
    try:
        record = Record.read(record_path(path))
    except TouchedError as error:
        return Finding(path.name, Status.TOUCHED, (str(error),))
    nothing = "no record speaks of it that this version understands"
    return record or Finding(path.name, Status.UNRECORDED, (nothing,))


def mixed(origins: set[Origin], project: Project) -> dict[Origin, tuple[Origin, ...]]:
    """For each origin the others that it must not lie beside: another run, or as current a one.

    A folder holds what one configuration made. Of an older and the current configuration of a run
    only the older is at fault, and `check_configuration` says so.
    """
    expected = {c.origin for c in project.configurations}
    known = {origin.run for origin in expected}
    outdated = {o for o in origins if o not in expected and o.run in known}

    def against(own: Origin) -> Iterator[Origin]:
        for other in sorted(origins - {own}):
            if other.run != own.run or not {own, other} & outdated:
                yield other

    faultless = expected if project.named else set()
    return {own: tuple(against(own)) for own in origins - faultless}


def _results(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise VerifyError(f"there is no folder {folder}: `snakemake --cores 8` makes results/")
    files = {path.name for path in folder.iterdir() if path.is_file()}
    names = {name.removesuffix(RECORD_SUFFIX) for name in files if not name.startswith(".")}
    if not names:
        inside = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_dir()))
        hint = (
            f"name one of its folders: {inside}" if inside else "`snakemake --cores 8` makes some"
        )
        raise VerifyError(f"there are no results in {folder}: {hint}")
    return sorted(names)


def _compared(
    path: Path, record: Record, rivals: Mapping[Origin, Sequence[Origin]], project: Project
) -> Finding:
    remarks = [remark for check in CHECKS for remark in check(record, project)]
    reasons = [remark.text for remark in remarks if remark.stale]
    if others := rivals.get(record.origin):
        beside = ", ".join(map(str, others))
        reasons.insert(0, f"results are mixed: it is of {record.origin}, beside {beside}")
    status = Status.STALE if reasons else Status.OK
    if project.digest(path) != record.checksum:
        status = Status.TOUCHED
        reasons.insert(0, "its bytes are not those that were written")
    unchecked = tuple(remark.text for remark in remarks if not remark.stale)
    return Finding(path.name, status, tuple(reasons), unchecked)


# ---------------------------------------------------------------------------------------- report


def as_table(findings: Sequence[Finding]) -> str:
    """The findings for a terminal: a line each, then what to do and what was not checked."""
    rows = [(f.file, f.status.value, "; ".join(f.reasons)) for f in findings]
    counted = Counter(f.status for f in findings)
    notes = dict.fromkeys(note for f in findings for note in f.unchecked)
    return "\n".join(
        [
            tabulate(rows, headers=("file", "status", "why"), maxcolwidths=[None, None, WIDTH]),
            "",
            ", ".join(f"{counted[status]} {status}" for status in Status if counted[status]),
            *(f"{status}: {WHAT_TO_DO[status]}" for status in WHAT_TO_DO if counted[status]),
            *(f"not checked: {note}" for note in notes),
        ]
    )


def as_json(findings: Sequence[Finding]) -> str:
    """The findings as a list of JSON objects with the fields of `Finding`."""
    return json.dumps([asdict(finding) for finding in findings], indent=1, ensure_ascii=False)
