"""The workflow as a module of another one, which is what snakedeploy makes."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SNAKEFILE = f"""
configfile: "config/config.yaml"


module benchmark:
    snakefile:
        "{ROOT}/Snakefile"
    config:
        config


use rule * from benchmark
"""

pytestmark = pytest.mark.slow


@pytest.fixture
def deployed(tmp_path):
    """A function that plans targets in a folder with a configuration and nothing else of ours."""
    (tmp_path / "workflow").mkdir()
    (tmp_path / "workflow/Snakefile").write_text(SNAKEFILE)
    (tmp_path / "config").mkdir()

    def plan(configuration, *targets):
        (tmp_path / "config/config.yaml").write_text(configuration)
        done = subprocess.run(
            [sys.executable, "-m", "snakemake", "--cores", "1", "--dry-run", *targets],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return plan


def test_everything_can_be_planned_with_a_few_keys_of_the_readers_own(deployed):
    status, said = deployed((ROOT / "config/test.yaml").read_text(), "all")
    assert status == 0, said
    assert "train_rerg" in said and "make_page" in said


def test_the_configuration_that_is_deployed_starts_from_the_networks_that_ship(deployed, tmp_path):
    configuration = (ROOT / "config/config.yaml").read_text()
    status, said = deployed(configuration, "tables")
    assert status != 0 and "weights/denoiser_P.safetensors" in said
    (tmp_path / "weights").symlink_to(ROOT / "weights")
    status, said = deployed(configuration, "tables")
    assert status == 0, said
    assert "given_mtdeq" in said and "work/mine/logs/train_rerg.log" in said


def test_a_mistake_is_named_there_too(deployed):
    status, said = deployed("run: mine\nevaluaton: { iterations: 3 }\n", "tables")
    assert status != 0 and "the configuration has mistakes" in said and "evaluaton" in said
