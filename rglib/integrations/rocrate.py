"""The records of a run as a Workflow Run RO-Crate, for archives that go by it.

Needs rocrate: ``rglib[rocrate]``. The crate follows the profile Workflow Run Crate 0.5: each file
is the result of an action whose instrument is the workflow, and whose objects are the networks and
the test set that its record names by checksum; these are named and not copied.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rocrate.model.contextentity import ContextEntity
from rocrate.rocrate import ROCrate

from rglib.records.provenance import CHECKSUM, RECORD_SUFFIX
from rglib.records.verify import CRATE_RESULTS, Finding, Status, verify

PROFILES = (
    "https://w3id.org/ro/wfrun/process/0.5",
    "https://w3id.org/ro/wfrun/workflow/0.5",
)  # and that of a Workflow RO-Crate, which rocrate adds


class CrateError(ValueError):
    """A crate that cannot be made as asked; the message names the file and what to do."""


def write_crate(results: Path, target: Path, *, snakefile: Path, licence: str) -> list[str]:
    """Write a folder with the results that have records, their records, and their description.

    Args:
        results: ``results/``, or a copy of it.
        target: the folder of the crate, which must not exist.
        snakefile: the workflow that made the results.
        licence: address of the licence of the results.

    Returns:
        The names of the results in it.

    Raises:
        CrateError: there is nothing to put in, a result was touched, or the target is there.
        VerifyError: there is no such folder of results.
        OSError: it cannot be written; then there is no target.
    """
    if target.exists():
        raise CrateError(f"{target} is there already: name another folder")
    if not snakefile.is_file():
        raise CrateError(f"there is no workflow {snakefile}: name it with --snakefile")
    findings = verify(results)
    for finding in findings:
        if finding.status in (Status.TOUCHED, Status.MISSING):
            why = "; ".join(finding.reasons)
            raise CrateError(f"{results / finding.file}: {finding.status}, {why}")
    recorded = [finding for finding in findings if finding.status != Status.UNRECORDED]
    if not recorded:
        raise CrateError(f"no file in {results} has a record: make them anew with snakemake")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        whole = Path(scratch) / "crate"
        _crate(results, recorded, snakefile, licence).write(whole)
        shutil.move(whole, target)
    return [finding.file for finding in recorded]


def _crate(results: Path, recorded: list[Finding], snakefile: Path, licence: str) -> Any:
    crate = ROCrate(gen_preview=False)
    crate.name = f"Results of rglib in {results.name}/"
    crate.description = (
        "Tables and figures of a benchmark of regularizing gradients, each with the record of what "
        "made it. `rglib verify` compares them with their records."
    )
    crate.license = licence
    profiles = [_context(crate, url, "CreativeWork") for url in PROFILES]
    crate.root_dataset.append_to("conformsTo", profiles)
    workflow = crate.add_workflow(snakefile, "workflow/Snakefile", main=True, lang="snakemake")
    actions = []
    for finding in recorded:
        record = json.loads((results / f"{finding.file}{RECORD_SUFFIX}").read_text("utf-8"))
        made = record["dc:provenance"]
        file = crate.add_file(
            results / finding.file,
            f"{CRATE_RESULTS}/{finding.file}",
            properties={"name": record["dc:title"], "sha256": record[CHECKSUM]},
        )
        beside = crate.add_file(
            results / f"{finding.file}{RECORD_SUFFIX}",
            f"{CRATE_RESULTS}/{finding.file}{RECORD_SUFFIX}",
            properties={"name": f"record of {finding.file}", "encodingFormat": "application/json"},
        )
        beside["about"] = file
        action = _context(
            crate,
            f"#made-{finding.file}",
            "CreateAction",
            {
                "name": f"{finding.file} of run {made['run']} ({made['configuration']})",
                "description": " ".join(made["departures"]) or "As in the paper.",
            },
        )
        action["instrument"] = [workflow, _software(crate, made)]
        action["object"] = _inputs(crate, made)
        action["result"] = [file, beside]
        actions.append(action)
    crate.root_dataset["mentions"] = actions
    return crate


def _software(crate: Any, made: Mapping[str, Any]) -> Any:
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    return _context(
        crate,
        f"#rglib-{made['code']}".replace(" ", "-"),
        "SoftwareApplication",
        {"name": "rglib", "softwareVersion": made["code"], "softwareRequirements": versions},
    )


def _inputs(crate: Any, made: Mapping[str, Any]) -> list[Any]:
    """What went in, by checksum: the test set, the configuration, and the weights of each stage."""
    inputs = [
        _context(
            crate,
            f"#test-set-{made['test_set_digest']}",
            "Dataset",
            {"name": f"test set {made['test_set']}", "identifier": made["test_set_digest"]},
        ),
        _context(
            crate,
            f"#configuration-{made['configuration']}",
            "PropertyValue",
            {"name": "hash of the configuration", "value": made["configuration"]},
        ),
    ]
    for stage in made["stages"]:
        for role, digest in stage["weights"].items():
            inputs.append(
                _context(
                    crate,
                    f"#weights-{digest}",
                    "CreativeWork",
                    {
                        "name": f"weights of {stage['name']}, {role}",
                        "identifier": f"sha256:{digest}",
                    },
                )
            )
    return inputs


def _context(
    crate: Any, identifier: str, kind: str, properties: Mapping[str, str] | None = None
) -> Any:
    """An entity that is no file, once for each identifier."""
    there = crate.dereference(identifier)
    return there or crate.add(
        ContextEntity(crate, identifier, properties={"@type": kind, **(properties or {})})
    )
