"""A run's records as an RO-Crate: read by rocrate itself, and by verify."""

import hashlib
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from rocrate.rocrate import ROCrate

from rglib.__main__ import main
from rglib.records.verify import Status, verify

ROOT = Path(__file__).parent.parent
BOUND = ROOT / "results/published/bound"


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command line in the project's folder; its status and what it said."""
    monkeypatch.chdir(ROOT)

    def call(*words):
        status = main([*map(str, words)])
        return status, "".join(capsys.readouterr())

    return call


@pytest.fixture
def crate(run, tmp_path):
    status, said = run("crate", BOUND, "-o", tmp_path / "crate")
    assert status == 0 and "2 results with their records" in said
    return tmp_path / "crate"


def test_rocrate_reads_what_is_in_it(crate):
    read = ROCrate(crate)
    assert read.mainEntity.id == "workflow/Snakefile"
    assert "ComputationalWorkflow" in read.mainEntity.type
    profiles = {entity.id for entity in read.root_dataset["conformsTo"]}
    assert "https://w3id.org/ro/wfrun/workflow/0.5" in profiles
    assert any("workflow-ro-crate" in profile for profile in profiles)
    for path in BOUND.iterdir():
        entity = read.dereference(f"results/{path.name}")
        assert entity is not None and (crate / entity.id).read_bytes() == path.read_bytes()
    assert (crate / "workflow/Snakefile").read_bytes() == (ROOT / "Snakefile").read_bytes()


def test_an_action_says_what_made_a_file_from_what(crate):
    read = ROCrate(crate)
    record = json.loads((BOUND / "bound.csv-metadata.json").read_text())
    made = record["dc:provenance"]
    file = read.dereference("results/bound.csv")
    assert file["sha256"] == hashlib.sha256((BOUND / "bound.csv").read_bytes()).hexdigest()
    assert file["name"] == record["dc:title"]
    actions = read.root_dataset["mentions"]
    assert {action.type for action in actions} == {"CreateAction"} and len(actions) == 2
    (action,) = [one for one in actions if file in one["result"]]
    assert read.mainEntity in action["instrument"]
    assert any(one.get("softwareVersion") == made["code"] for one in action["instrument"])
    weights = {f"sha256:{d}" for stage in made["stages"] for d in stage["weights"].values()}
    assert weights <= {entity.get("identifier") for entity in action["object"]}
    assert made["departures"][0] in action["description"]
    assert read.root_dataset["license"] == "https://spdx.org/licenses/MIT"


def test_verify_finds_in_it_what_it_finds_in_the_folder(crate):
    before = [(one.file, one.status, one.reasons) for one in verify(BOUND)]
    assert [(one.file, one.status, one.reasons) for one in verify(crate)] == before


def test_verify_sees_a_result_that_was_touched_in_it(crate):
    with (crate / "results/bound.csv").open("a") as file:
        file.write("\n")
    found = {one.file: one for one in verify(crate)}
    assert found["bound.csv"].status == Status.TOUCHED
    assert "ro-crate-metadata.json has another checksum for it" in found["bound.csv"].reasons
    assert found["bound.png"].status != Status.TOUCHED


def test_verify_sees_a_checksum_that_was_touched_in_it(crate):
    path = crate / "ro-crate-metadata.json"
    content = json.loads(path.read_text())
    for entity in content["@graph"]:
        if entity["@id"] == "results/bound.png":
            del entity["sha256"]
    path.write_text(json.dumps(content))
    found = {one.file: one for one in verify(crate)}
    assert found["bound.png"].reasons[0] == "ro-crate-metadata.json has no checksum for it"
    path.write_text("{}")
    with pytest.raises(Exception, match=r"ro-crate-metadata\.json: cannot be read as an RO-Crate"):
        verify(crate)


def test_what_cannot_be_put_in_is_named_and_nothing_is_left(run, crate, tmp_path):
    status, said = run("crate", BOUND, "-o", crate)
    assert status == 2 and "crate is there already" in said
    status, said = run("crate", BOUND, "-o", tmp_path / "new", "--snakefile", "nowhere")
    assert status == 2 and "there is no workflow nowhere" in said
    shutil.copytree(BOUND, tmp_path / "copy")
    with (tmp_path / "copy/bound.csv").open("a") as file:
        file.write("\n")
    status, said = run("crate", tmp_path / "copy", "-o", tmp_path / "new")
    assert status == 2 and "bound.csv: touched, its bytes are not those" in said
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain/a.csv").write_text("a\n")
    status, said = run("crate", tmp_path / "plain", "-o", tmp_path / "new")
    assert status == 2 and "has a record: make them anew with snakemake" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "crate", "plain"]


def test_a_crate_is_made_as_the_messages_say(run, crate, tmp_path):
    workflow = tmp_path / "Mine"
    shutil.copy(ROOT / "Snakefile", workflow)
    status, said = run("crate", BOUND, "-o", crate)
    assert status == 2 and said.strip().endswith("is there already: name another folder")
    status, said = run("crate", BOUND, "-o", tmp_path / "another", "--snakefile", "nowhere")
    (option,) = re.findall(r"there is no workflow nowhere: name it with (--\w+)$", said.strip())
    assert status == 2
    assert run("crate", BOUND, "-o", tmp_path / "another", option, workflow)[0] == 0
    assert (tmp_path / "another/ro-crate-metadata.json").is_file()


def test_without_rocrate_it_is_said_what_to_install(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rglib.integrations.rocrate", None)
    status, said = run("crate", BOUND, "-o", tmp_path / "new")
    assert status == 2 and "needs rocrate: pip install rocrate" in said
