"""No run replaces, or lies among, the results of another one."""

import pytest
from toys import toy_provenance

from rglib.files import file_digest
from rglib.records.earlier import set_aside
from rglib.records.provenance import RECORD_SUFFIX, write_record


@pytest.fixture
def results(tmp_path):
    """A folder with two results of run ``r``, and a file of the user's own."""
    for name in ("table1.md", "report.html"):
        (tmp_path / name).write_text(f"{name} of r")
        write_record(tmp_path / name, title="T", provenance=toy_provenance())
    (tmp_path / "notes.txt").write_text("mine")
    return tmp_path


def everything(folder):
    return {
        str(path.relative_to(folder)): file_digest(path)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_results_of_another_run_move_with_their_records_and_nothing_is_lost(results):
    before = everything(results)
    assert set_aside(results, run="other") == {"r": 2}
    after = everything(results)
    moved = {name: digest for name, digest in before.items() if name != "notes.txt"}
    assert after == {"notes.txt": before["notes.txt"]} | {
        f"earlier/r/{name}": digest for name, digest in moved.items()
    }


def test_a_runs_own_results_stay(results):
    before = everything(results)
    assert set_aside(results, run="r") == {}
    assert everything(results) == before


def test_what_a_run_left_before_is_replaced_by_what_it_left_last(results):
    old = results / "earlier/r/table1.md"
    old.parent.mkdir(parents=True)
    old.write_text("older")
    set_aside(results, run="other")
    assert old.read_text() == "table1.md of r"


def test_a_move_that_was_cut_off_is_finished_the_next_time(results):
    (results / "table1.md").unlink()  # moved, and its record not yet
    assert set_aside(results, run="other") == {"r": 2}
    assert not list(results.glob(f"*{RECORD_SUFFIX}"))


@pytest.mark.parametrize(
    "record", ["", "[]", "{}", '{"dc:provenance": {"run": "../../up"}}', '{"dc:provenance": null}']
)
def test_a_record_that_names_no_run_moves_nothing(results, record):
    path = results / f"table1.md{RECORD_SUFFIX}"
    path.write_text(record)
    assert set_aside(results, run="other") == {"r": 1}
    assert path.read_text() == record and (results / "table1.md").is_file()


def test_no_folder_has_nothing_to_set_aside(tmp_path):
    assert set_aside(tmp_path / "results", run="r") == {}
