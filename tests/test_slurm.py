"""The workflow on a cluster: planned with profiles/slurm, and run on a Slurm of one node."""

import re
import subprocess

import pandas as pd
import pytest
from filelock import FileLock
from slurm import cluster
from test_workflow import LIMIT, Project, changed, wait_for

pytestmark = pytest.mark.slow

PROFILE = ["--workflow-profile", "profiles/slurm"]
STEPS = 1000


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Gauss on one problem: two stores, a training and an evaluation for the cluster."""
    project = Project.copied(tmp_path_factory.mktemp("slurm"))

    def change(config):
        config["methods"] = {"gauss": config["methods"]["gauss"]}
        config["problems"] = {"completion80": config["problems"]["completion80"]}

    project.configure(change)
    return project


@pytest.fixture
def slurm():
    """A cluster without a job; tests that run at the same time wait for each other."""
    if reason := cluster.obstacle():
        pytest.skip(reason)
    with FileLock(cluster.FOLDER.with_suffix(".lock"), timeout=LIMIT):
        cluster.down()  # what a killed test may have left
        cluster.up()
        yield
        cluster.down()


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """A login node that seems to have a GPU, so that `device: auto` asks for one in each job."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


def resources(said):
    """What the jobs of a dry run ask for, by rule."""
    found = re.findall(r"^rule (\w+):\n(?: .*\n)*? +resources: (.*)$", said, re.M)
    return {rule: dict(pair.split("=") for pair in line.split(", ")) for rule, line in found}


def test_the_profile_plans_the_same_jobs(project):
    assert project.planned("tables", *PROFILE) == project.planned("tables")


def test_on_cuda_only_trainings_and_evaluations_ask_for_a_gpu(project):
    said = project.snakemake("--dry-run", "tables", *PROFILE, overlay={"device": "cuda"})
    asked = resources(said)
    assert {rule for rule in asked if "gpu" in asked[rule]} == {"train_denoiser", "evaluate"}
    assert all({"mem_mb", "runtime"} <= asked[rule].keys() for rule in asked)


def test_auto_asks_for_what_the_login_node_has_whatever_a_node_has(nvidia_smi, project):
    overlay = {"device": "auto"}
    planned = project.snakemake("--dry-run", "tables", overlay=overlay)
    on_a_node = project.snakemake("--dry-run", "tables", "--mode", "remote", overlay=overlay)
    assert resources(planned)["evaluate"]["gpu"] == "1"
    assert resources(on_a_node)["evaluate"]["gpu"] == "0"


def test_a_cancelled_training_is_submitted_again_and_resumes(slurm, nvidia_smi, project):
    overlay = {"device": "auto"} | changed("stages/denoiser/budget/steps", STEPS)
    often = ["--slurm-init-seconds-before-status-checks", "1"]
    log = project / "work/test/logs/train_denoiser.log"
    process = project.start("results/table1.csv", *PROFILE, *often, overlay=overlay)
    wait_for(lambda: log.exists() and log.read_text().count("'step'") > 5, process)
    (running,) = [job for job in cluster.jobs() if job["JobState"] == "RUNNING"]
    assert running["GRES"] == "gpu:pretended:1(IDX:0)"
    subprocess.run(["scancel", running["JobId"]], check=True)
    said, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, said
    assert list(pd.read_csv(project / "results/table1.csv").method) == ["gauss"]

    resumed = re.search(rf"resumed at step (\d+) of {STEPS}", log.read_text())
    assert resumed and int(resumed.group(1)) > 5
    jobs = [(job["Comment"], job["JobState"], job.get("TresPerJob")) for job in cluster.jobs()]
    gpu = "gres:gpu:1"
    assert sorted(jobs) == [
        ("rule_evaluate_wildcards_gauss", "COMPLETED", gpu),
        ("rule_store_wildcards_train", "COMPLETED", None),
        ("rule_store_wildcards_validation", "COMPLETED", None),
        ("rule_train_denoiser", "CANCELLED", gpu),
        ("rule_train_denoiser", "COMPLETED", gpu),
    ]
