"""Whether `python -m rglib verify` tells every change of results from none."""

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rglib.__main__ import main
from rglib.data.datasets import slug
from rglib.files import file_digest
from rglib.records.code_hash import code_hash
from rglib.records.provenance import read_provenance, sealed, write_machine
from rglib.records.verify import Status, VerifyError, verify
from rglib.report.evaluations import write_csv, write_text
from rglib.report.figures import new_figure, save

ROOT = Path(__file__).parent.parent
CONFIG = {
    "run": "trial",
    "seeds": [3],
    "precision": {"train": "auto", "evaluate": "float32"},
    "network": {"widths": [8], "blocks": 1},
    "evaluation": {
        "solver": "adam",
        "iterations": 2,
        "tolerance": None,
        "average": False,
        "x0": "released",
    },
    "bound": {"crop": 32},
}
MODULES = ("workflow/scripts/report.py", "workflow/scripts/evaluate.py rglib.evaluation:WAYS[a]")
FILES = ["fig.pdf", "fig.png", "table.csv", "table.md"]


@dataclass(frozen=True)
class Tree:
    """A project with what verify looks at, and results that it made."""

    folder: Path

    @classmethod
    def made(cls, folder):
        tree = cls(folder)
        work = tree / "work/trial"
        for name, text in {
            "Snakefile": "",
            "rglib/__init__.py": "",
            "rglib/results.py": "def table():\n    return 1\n",
            "rglib/evaluation.py": "WAYS = {'a': 1, 'b': 2}\n",
            "workflow/scripts/report.py": "from rglib.results import table\ntable()\n",
            "workflow/scripts/evaluate.py": "from rglib.evaluation import WAYS\nprint(WAYS)\n",
            "work/trial/models/rerg/G.safetensors": "weights",
            "work/trial/store/train/store.json": json.dumps({"digest": "da7a"}),
            "images/bird.png": "bird",
        }.items():
            tree.write(name, text)
        tree.write("config.yaml", yaml.safe_dump(CONFIG))
        tree.write("config/other.yaml", "run: other\nevaluation: { iterations: 5 }\n")
        image = {"name": "bird", "path": "images/bird.png"}
        image |= {"sha256": file_digest(tree / "images/bird.png")}
        test_set = {"title": "images", "stand_in_for": None, "images": [image]}
        test_set |= {"dataset": "folder:images", "origin": "folder"}
        tree.write("work/trial/test_set.json", json.dumps(test_set))
        card = {
            "stage": "rerg",
            "given": False,
            "network": {"widths": [1, 1, 1, 1], "blocks": 1},
            "data_digest": "da7a",
            "weights": {"G": file_digest(work / "models/rerg/G.safetensors")},
        }
        tree.write("work/trial/models/rerg/card.json", json.dumps(card))
        write_machine(work / "evaluation/rerg.json", device="cpu", code={})
        tree.report()
        return tree

    def __truediv__(self, name):
        return self.folder / name

    def write(self, name, text):
        (self / name).parent.mkdir(parents=True, exist_ok=True)
        (self / name).write_text(text)

    def report(self, *names, sections=(), **changes):
        """Write some results, or all, with the configuration changed."""
        config = CONFIG | changes
        work = self / "work/trial"
        made = read_provenance(
            config,
            test_set=work / "test_set.json",
            cards=[work / "models/rerg/card.json"],
            machines=[work / "evaluation/rerg.json"],
            modules={module: code_hash(module, root=self.folder) for module in MODULES},
            sections=sections,
        )
        about = {"title": "A title", "provenance": made}
        for name in names or FILES:
            path = self / "results" / name
            if path.suffix == ".csv":
                write_csv(pd.DataFrame({"psnr_db": [30.0]}), path, **about)
            elif path.suffix == ".md":
                write_text("thirty\n", path, **about)
            else:
                save(new_figure(1, 1, foot=""), path, **about)

    def verify(self, **options):
        return {f.file: f for f in verify(self / "results", **options)}

    def statuses(self, **options):
        return {name: str(finding.status) for name, finding in self.verify(**options).items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A project to look at, or to put back as it was."""
    return Tree.made(tmp_path_factory.mktemp("made") / "project")


@pytest.fixture
def tree(made, tmp_path):
    """A project to change."""
    shutil.copytree(made.folder, tmp_path / "project")
    return Tree(tmp_path / "project")


OK = dict.fromkeys(FILES, "ok")
STALE = dict.fromkeys(FILES, "stale")


def test_untouched_results_are_ok_and_everything_was_checked(made):
    assert made.statuses() == OK
    assert not any(f.reasons or f.unchecked for f in made.verify().values())


def test_the_same_results_have_the_same_records(tree):
    before = {path: path.read_bytes() for path in (tree / "results").iterdir()}
    tree.report()
    assert {path: path.read_bytes() for path in (tree / "results").iterdir()} == before


def test_a_record_says_all_that_made_the_result(made):
    provenance = json.loads((made / "results/fig.png-metadata.json").read_text())["dc:provenance"]
    assert set(provenance["modules"]) == set(MODULES)
    (stage,) = provenance["stages"]
    assert stage["data_digest"] == "da7a" and set(stage["weights"]) == {"G"}
    assert provenance["device"] == "cpu" and "cores" in provenance["machine"]
    for key in ("configuration", "code", "test_set_digest", "seeds", "versions", "precision"):
        assert provenance[key], key


@given(st.data())
def test_any_flipped_bit_is_reported(made, data):
    """In a result or in a record: the finding of that result changes, and no other's."""
    path = data.draw(st.sampled_from(sorted((made / "results").iterdir())))
    content = path.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    flipped = bytearray(content)
    flipped[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        path.write_bytes(flipped)
        touched = path.name.removesuffix("-metadata.json")
        assert made.statuses() == OK | {touched: "touched"}
    finally:
        path.write_bytes(content)


def test_a_deleted_result_is_missing(tree):
    (tree / "results/table.md").unlink()
    assert tree.statuses() == OK | {"table.md": "missing"}


def test_a_stray_file_and_one_without_its_record_are_unrecorded(tree):
    tree.write("results/mine.csv", "psnr_db\n99\n")
    (tree / "results/table.md-metadata.json").unlink()
    expected = {"mine.csv": "unrecorded", "table.md": "unrecorded"}
    assert tree.statuses() == OK | expected


def test_hidden_files_and_other_folders_are_not_results(tree):
    tree.write("results/.gitkeep", "")
    tree.write("results/published/trial/table.csv", "old")
    assert tree.statuses() == OK


def test_a_record_of_another_file_does_not_pass(tree):
    for suffix in ("", "-metadata.json"):
        shutil.copy(tree / f"results/table.md{suffix}", tree / f"results/better.md{suffix}")
    finding = tree.verify()["better.md"]
    assert finding.status == Status.TOUCHED and "that of table.md" in finding.reasons[0]


@pytest.mark.parametrize("text", ["", "[]", '"x"', "{", "\x00", r'{"dc:identifier": "\ud800"}'])
def test_a_record_that_is_none_is_reported(tree, text):
    tree.write("results/table.md-metadata.json", text)
    assert tree.statuses() == OK | {"table.md": "touched"}


def test_a_record_of_another_version_speaks_of_nothing(tree):
    path = tree / "results/table.md-metadata.json"
    content = json.loads(path.read_text())
    del content["dc:provenance"]["modules"]
    path.write_bytes(sealed(content))
    assert tree.statuses() == OK | {"table.md": "unrecorded"}


def test_changed_code_is_named(tree):
    tree.write("rglib/results.py", "# only a comment\ndef table():\n    return 1\ny = 2\n")
    tree.write("rglib/evaluation.py", "WAYS = {'a': 1, 'b': 3}\n")
    assert tree.statuses() == OK
    tree.write("rglib/results.py", "def table():\n    return 2\n")
    assert tree.statuses() == STALE
    changed = ("the code of workflow/scripts/report.py has changed",)
    assert tree.verify()["fig.png"].reasons == changed
    tree.write("rglib/results.py", "def :\n")
    assert "cannot be read" in tree.verify()["fig.png"].reasons[0]
    (tree / "workflow/scripts/report.py").unlink()
    (reason,) = tree.verify()["fig.png"].reasons
    assert reason.startswith("the code of workflow/scripts/report.py is gone")


def test_a_choice_that_there_is_no_longer_is_named(tree):
    tree.write("rglib/evaluation.py", "WAYS = {'b': 2}\n")
    (reason,) = tree.verify()["fig.png"].reasons
    assert "is gone" in reason and "no key a" in reason


def test_code_of_another_python_is_not_compared(tree):
    path = tree / "results/table.md-metadata.json"
    content = json.loads(path.read_text())
    content["dc:provenance"]["versions"]["Python"] = "3.1.4"
    path.write_bytes(sealed(content))
    tree.write("rglib/evaluation.py", "WAYS = {'a': 2}\n")
    finding = tree.verify()["table.md"]
    assert finding.status == Status.OK and "recorded with Python 3.1" in finding.unchecked[0]


def test_a_changed_configuration_is_named(tree):
    tree.write("config.yaml", yaml.safe_dump(CONFIG | {"seeds": [4]}))
    assert tree.statuses() == STALE
    (reason,) = tree.verify()["table.csv"].reasons
    assert reason.startswith("its configuration")
    assert reason.endswith(
        "is no longer config.yaml alone; if it was of several, name all: --configfile"
    )
    tree.write("config.yaml", yaml.safe_dump(CONFIG | {"mirrors": ["elsewhere"]}))
    assert tree.statuses() == OK


def test_a_changed_section_makes_stale_what_reads_it(tree):
    tree.report("fig.pdf", sections=["bound"])
    tree.write("config.yaml", yaml.safe_dump(CONFIG | {"bound": {"crop": 64}}))
    assert tree.statuses() == OK | {"fig.pdf": "stale"}
    assert tree.verify()["fig.pdf"].reasons == ("`bound` in config.yaml is no longer what it was",)


def test_overlays_are_merged_as_snakemake_does(tree):
    tree.report(
        run="other",
        evaluation={
            "solver": "adam",
            "iterations": 5,
            "tolerance": None,
            "average": False,
            "x0": "released",
        },
    )
    assert tree.statuses() == OK  # found under config/
    assert tree.statuses(configfiles=[tree / "config/other.yaml"]) == OK
    tree.write("more.yaml", "evaluation: { iterations: 6 }\n")
    stacked = [tree / "config/other.yaml", tree / "more.yaml"]
    assert tree.statuses(configfiles=stacked) == STALE
    reason = tree.verify(configfiles=stacked)["table.md"].reasons[0]
    assert reason.endswith("is no longer config/other.yaml + more.yaml")


def test_what_an_overlay_takes_away_by_null_is_not_there(tree):
    tree.write("config.yaml", yaml.safe_dump(CONFIG | {"methods": {"rg1": {}, "rerg": {}}}))
    tree.write("config/fewer.yaml", "run: fewer\nmethods: { rg1: null }\n")
    tree.report(run="fewer", methods={"rerg": {}})
    assert tree.statuses() == OK


def test_a_run_without_a_configuration_is_ok_but_not_checked(tree):
    tree.report(run="elsewhere")
    assert tree.statuses() == OK
    unchecked = "\n".join(tree.verify()["table.md"].unchecked)
    assert "none here has `run: elsewhere`" in unchecked and "work/elsewhere/models" in unchecked


def test_results_of_two_runs_are_called_mixed(tree):
    tree.report("table.csv", "table.md", run="elsewhere")
    assert tree.statuses() == STALE
    for finding in tree.verify().values():
        assert finding.reasons[0].startswith("results are mixed: it is of run ")
    named = tree.verify(configfiles=[tree / "config.yaml"])
    stale = {name for name, finding in named.items() if finding.status == Status.STALE}
    assert stale == {"table.csv", "table.md"}


def test_results_of_two_configurations_of_one_run_are_called_mixed(tree):
    tree.report(run="elsewhere")
    tree.report("table.md", run="elsewhere", seeds=[4])
    assert tree.statuses() == STALE
    assert all("mixed" in finding.reasons[0] for finding in tree.verify().values())


def test_of_an_older_and_the_current_configuration_only_the_older_is_stale(tree):
    tree.report("table.md", seeds=[4])
    assert tree.statuses() == OK | {"table.md": "stale"}


@pytest.mark.parametrize(
    ("path", "text", "reason"),
    [
        ("work/trial/models/rerg/G.safetensors", "other", "the weights of rerg G have changed"),
        (
            "work/trial/store/train/store.json",
            '{"digest": "0"}',
            "the training images of rerg have changed",
        ),
        ("images/bird.png", "cat", "the test set: bird.png has changed"),
        ("images/more.png", "more", "the test set: more.png was added"),
        ("images/bird.png", None, "the test set: bird.png is gone"),
    ],
)
def test_changed_networks_and_images_are_named(tree, path, text, reason):
    tree.write(path, text) if text else (tree / path).unlink()
    assert {finding.reasons for finding in tree.verify().values()} == {(reason,)}


@pytest.mark.parametrize(
    ("gone", "note"),
    [
        ("work", "there is no work/trial/models"),
        ("work/trial/models/rerg/G.safetensors", "no work/trial/models/rerg/G.safetensors"),
        ("images", "the test image bird"),
    ],
)
def test_what_is_not_at_hand_is_not_held_against_the_results(tree, gone, note):
    path = tree / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert tree.statuses() == OK
    assert note in "\n".join(tree.verify()["table.md"].unchecked)


def test_another_list_of_test_images_is_named(tree):
    listed = json.loads((tree / "work/trial/test_set.json").read_text())
    listed["images"][0]["name"] = "crow"
    tree.write("work/trial/test_set.json", json.dumps(listed))
    assert tree.verify()["table.md"].reasons == ("the test set has changed",)


def test_a_folder_of_training_images_is_listed_anew(tree):
    image = {"name": "cat", "path": "cats/cat.png", "sha256": hashlib.sha256(b"cat").hexdigest()}
    tree.write("cats/cat.png", "cat")
    listed = {"dataset": "folder:cats", "title": "cats", "origin": "folder", "images": [image]}
    tree.write(f"work/data/{slug('folder:cats')}.json", json.dumps(listed))
    store = {"digest": "da7a", "datasets": [{"dataset": "folder:cats", "title": "cats"}]}
    tree.write("work/trial/store/train/store.json", json.dumps(store))
    assert tree.statuses() == OK
    tree.write("cats/kitten.png", "kitten")
    reason = "the training images of cats: kitten.png was added"
    assert tree.verify()["table.md"].reasons == (reason,)


def test_images_of_given_networks_are_not_compared(tree):
    card = json.loads((tree / "work/trial/models/rerg/card.json").read_text())
    card |= {"given": True, "source": {"G": "w.st"}, "data_digest": "of-long-ago"}
    tree.write("work/trial/models/rerg/card.json", json.dumps(card))
    tree.report()
    assert tree.statuses() == OK


def test_a_copy_is_compared_with_the_project_around_it(tree, monkeypatch):
    copy = tree / "results/published/trial"
    copy.mkdir(parents=True)
    for path in (tree / "results").glob("table.*"):
        shutil.copy(path, copy)
    monkeypatch.chdir(tree / "images")
    assert {f.file: str(f.status) for f in verify(copy)} == {"table.csv": "ok", "table.md": "ok"}
    tree.write("rglib/evaluation.py", "WAYS = {'a': 2}\n")
    assert {str(f.status) for f in verify(copy)} == {"stale"}


def test_a_copy_outside_of_any_project_is_compared_with_the_working_folder(tree, monkeypatch):
    shutil.move(tree / "results", tree.folder.parent / "results")
    monkeypatch.chdir(tree.folder)
    assert not any(f.unchecked for f in verify(tree.folder.parent / "results"))


# --- the command ----------------------------------------------------------------------------------


def test_exit_status_and_table(tree, capsys):
    results = str(tree / "results")
    assert main(["verify", results]) == 0
    assert "4 ok" in capsys.readouterr().out
    (tree / "results/table.md").write_text("forty\n")
    assert main(["verify", results]) == 1
    said = capsys.readouterr().out
    assert "1 touched, 3 ok" in said and "its bytes are not those that were written" in said
    tree.write("results/mine.csv", "")
    assert main(["verify", results]) == 1
    assert "1 unrecorded" in capsys.readouterr().out


def test_json(tree, capsys):
    (tree / "results/table.md").write_text("forty\n")
    assert main(["verify", str(tree / "results"), "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert [entry["file"] for entry in said] == FILES
    assert said[-1] == {
        "file": "table.md",
        "status": "touched",
        "reasons": ["its bytes are not those that were written"],
        "unchecked": [],
    }


def test_what_was_published_before_there_were_records_is_unrecorded(tree, capsys):
    for path in (tree / "results").glob("*-metadata.json"):
        path.write_text('{"dc:provenance": {}}')
    assert main(["verify", str(tree / "results")]) == 2
    said = capsys.readouterr()
    assert "4 unrecorded" in said.out and "has no records" in said.err


def test_what_cannot_be_verified_is_named(tree, capsys, monkeypatch):
    monkeypatch.chdir(tree.folder)
    (tree / "empty/inner").mkdir(parents=True)
    (tree / "mistaken.yaml").write_text("a: [")
    for arguments, words in (
        (["nowhere"], "there is no folder nowhere"),
        (["empty"], "name one of its folders: inner"),
        (["empty/inner"], "there are no results in empty/inner"),
        (["results", "--configfile", "gone.yaml"], "gone.yaml cannot be read"),
        (["results", "--configfile", "mistaken.yaml"], "mistaken.yaml cannot be read"),
    ):
        assert main(["verify", *arguments]) == 2
        assert words in capsys.readouterr().err


def test_a_configuration_needs_a_project_to_lie_over(tree, tmp_path, monkeypatch):
    shutil.move(tree / "results", tmp_path / "results")
    (tree / "Snakefile").unlink()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VerifyError, match="no project around"):
        verify(tmp_path / "results", configfiles=[tree / "config.yaml"])


@pytest.mark.parametrize("arguments", [[], ["verify"], ["verify", "a", "--jsno"], ["veri"]])
def test_unknown_arguments_exit_with_2(arguments):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2


def test_it_starts_without_pytorch_or_pandas(made):
    code = (
        "import sys; from rglib.__main__ import main; status = main(sys.argv[1:]); "
        "assert not {'torch', 'pandas', 'snakemake'} & set(sys.modules); sys.exit(status)"
    )
    command = [sys.executable, "-c", code, "verify", str(made / "results")]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr
