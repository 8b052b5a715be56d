"""The records of a run, and what verify says of it, at the scale of config/test.yaml."""

import json
import os
import subprocess
import sys

import pytest
from test_workflow import Project, restored

pytestmark = pytest.mark.slow

MADE = {
    *(f"table{table}.{suffix}" for table in (1, 2) for suffix in ("csv", "md", "tex")),
    *("results.csv", "convergence.csv", "claims.csv", "claims.md", "report.html"),
    *(f"fig{figure}.{suffix}" for figure in (1, 2) for suffix in ("pdf", "png")),
}


def verify(project, *arguments):
    """The exit status, and the findings by file."""
    command = [sys.executable, "-m", "rglib", "verify", "results", "--json", *arguments]
    env = os.environ | {"PYTHONPATH": str(project.folder)}
    said = subprocess.run(command, cwd=project.folder, env=env, capture_output=True, text=True)
    assert said.stdout, said.stderr
    return said.returncode, {finding["file"]: finding for finding in json.loads(said.stdout)}


def found(findings, status):
    return {name for name, finding in findings.items() if finding["status"] == status}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Two methods on two problems, all tables and figures; a test puts back what it changes."""
    project = Project.copied(tmp_path_factory.mktemp("verified") / "project")

    def reduce(config):
        for key, kept in {
            "methods": ("gauss", "pnpreg"),
            "problems": ("completion90", "sr2_bicubic_n0"),
        }.items():
            config[key] = {name: config[key][name] for name in kept}

    project.configure(reduce)
    project.snakemake()
    return project


def test_a_finished_run_is_ok_and_all_of_it_is_checked(project):
    status, findings = verify(project)
    assert status == 0 and found(findings, "ok") == MADE
    assert not [finding for finding in findings.values() if finding["unchecked"]]
    assert verify(project, "--configfile", "config/test.yaml") == (status, findings)


def test_every_record_names_hashes_seeds_versions_and_device(project):
    cards = {
        stage: json.loads((project / f"work/test/models/{stage}/card.json").read_text())
        for stage in ("denoiser", "residual", "pnpreg")
    }
    for name in MADE:
        record = json.loads((project / f"results/{name}-metadata.json").read_text())
        made = record["dc:provenance"]
        scripts = {entries.split()[0].rpartition("/")[2] for entries in made["modules"]}
        assert {"evaluate.py", "train.py", "store.py", "test_set.py"} <= scripts
        assert any("OBJECTIVES[pnpreg]" in entries for entries in made["modules"])
        assert {stage["name"]: stage["weights"] for stage in made["stages"]} == {
            stage: card["weights"] for stage, card in cards.items()
        }
        assert {stage["data_digest"] for stage in made["stages"]} == {
            card["data_digest"] for card in cards.values()
        }
        assert made["device"] == "cpu" and made["seeds"] == [0] and made["versions"]["torch"]


def test_a_touched_result_is_found_and_made_anew(project):
    path = project / "results/table1.md"
    path.write_text(path.read_text().replace(".", ",", 1))
    status, findings = verify(project)
    assert status == 1 and found(findings, "ok") == MADE - {"table1.md"}
    path.unlink()
    assert found(verify(project)[1], "missing") == {"table1.md"}
    (project / "results/table1.md-metadata.json").unlink()
    project.snakemake()
    assert verify(project)[0] == 0


def test_a_deleted_record_is_written_again(project):
    (project / "results/fig2.png-metadata.json").unlink()
    assert found(verify(project)[1], "unrecorded") == {"fig2.png"}
    assert project.planned() == {"make_fig2", "all"}
    project.snakemake()
    assert verify(project)[0] == 0


def test_stale_is_what_snakemake_makes_again(project):
    with restored(project / "rglib/report/claims.py"):
        project.mutate("rglib/report/claims.py", "check_claims")
        assert found(verify(project)[1], "stale") == {"claims.csv", "claims.md"}
        assert project.planned() - {"all"} == {"make_claims", "make_page"}
    with restored(project / "rglib/training/objectives/pnpreg.py"):
        project.mutate("rglib/training/objectives/pnpreg.py", "PnPReG.__call__")
        assert found(verify(project)[1], "stale") == MADE
    (project / "more.yaml").write_text("evaluation: { iterations: 4 }\n")
    arguments = ("--configfile", "config/test.yaml", "more.yaml")
    assert found(verify(project, *arguments)[1], "stale") == MADE


def test_a_replaced_network_is_found(project):
    weights = project / "work/test/models/pnpreg/G.safetensors"
    with restored(weights):
        weights.write_bytes(b"another network")
        status, findings = verify(project)
    assert status == 1 and found(findings, "stale") == MADE
    assert findings["fig1.pdf"]["reasons"] == ["the weights of pnpreg G have changed"]
