"""The script that takes weights from files or addresses."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from rglib.data import download
from rglib.training import stage

SCRIPT = Path(__file__).parents[1] / "workflow/scripts/given.py"


class Outputs(dict):
    card = "card.json"


@pytest.fixture
def given(monkeypatch):
    """Run the script for the sources of a stage; the files that it takes, by role."""
    monkeypatch.setattr(download, "download", lambda archive, folder: folder / archive.file)
    taken = {}
    monkeypatch.setattr(stage, "import_stage", lambda stage, files, **rest: taken.update(files))

    def run(sources):
        snakemake = SimpleNamespace(
            params=SimpleNamespace(stage="pnpreg", sources=sources, network={}, downloads="there"),
            output=Outputs({role: role for role in sources}),
        )
        runpy.run_path(str(SCRIPT), init_globals={"snakemake": snakemake})
        return dict(taken)

    return run


def test_addresses_that_end_in_one_name_are_different_files(given):
    files = given({role: {"url": f"https://host/{role}/weights.pth"} for role in "PG"})
    assert files["P"].name == files["G"].name == "weights.pth"
    assert files["P"] != files["G"] and files["P"].parts[0] == "there"


def test_an_address_is_the_same_file_every_time(given):
    source = {"P": {"url": "https://host/weights.pth"}}
    assert given(source) == given(source)


def test_a_file_is_taken_as_it_is(given):
    assert given({"G": {"file": "mine.pth"}}) == {"G": Path("mine.pth")}
