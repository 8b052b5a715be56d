"""What the pages tell a reader to type: commands that exist, configurations that are allowed."""

import importlib
import re
import shlex
import sys
from collections import defaultdict
from pathlib import Path

import nbformat
import numpy as np
import pytest
import yaml
from snakemake.cli import get_argument_parser
from test_check import DEFAULT, SCHEMA
from test_workflow import Project

from rglib.commands.arguments import parser
from rglib.data.images import read_image, write_png
from rglib.plan import between
from rglib.plan.ablations import overlaid
from rglib.plan.check import check

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
INLINE = re.compile(r"`((?:snakemake|rglib \w+) [^`]+)`")  # `rglib restore` alone is a name
PLACEHOLDERS = {"N", "COMMAND", "..."}
OF_THE_READER = ("config/mine.yaml", "profiles/mine", "rglib.sif")  # what a page has just made


def blocks(language):
    return [
        pytest.param(text, id=f"{page.name}-{n}")
        for page in PAGES
        for n, (found, text) in enumerate(FENCED.findall(page.read_text(encoding="utf-8")))
        if found == language
    ]


def commands(program):
    """Each command of a program, in blocks and in the text."""
    found = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        shell = "\n".join(body for language, body in FENCED.findall(text) if language == "bash")
        lines = shell.replace("\\\n", " ").splitlines()
        inline = [" ".join(command.split()) for command in INLINE.findall(FENCED.sub("", text))]
        for line in [*lines, *inline]:
            for part in re.split(r"&&|;", line):
                words = shlex.split(part, comments=True)
                if words[:1] == [program] and not PLACEHOLDERS & set(words):
                    found[" ".join(words)] = pytest.param(
                        words[1:], id=f"{page.name}: {part.strip()}"
                    )
    return list(found.values())


@pytest.mark.parametrize("words", commands("snakemake"))
def test_a_command_has_options_that_snakemake_knows_and_files_that_exist(words):
    chosen = get_argument_parser().parse_args(words)
    for file in [*(chosen.configfile or ()), chosen.workflow_profile]:
        if file and str(file) not in OF_THE_READER:
            assert (ROOT / file).exists(), file


@pytest.mark.parametrize("words", commands("rglib"))
def test_a_command_has_arguments_that_rglib_knows(words):
    parser().parse_args(words)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_a_configuration_is_allowed(text, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(between, "isfile", lambda file: True)  # the reader's own weights
    overlay = yaml.safe_load(text)
    if "default-resources" in overlay:
        return  # a profile of snakemake, not a configuration
    check(overlaid(DEFAULT, overlay), SCHEMA)


def test_the_picture_of_the_rooms_shows_the_imports_of_today(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    rooms = importlib.import_module("rooms")
    assert rooms.TARGET.read_text(encoding="utf-8") == rooms.svg(), "run python docs/rooms.py"
    there = {path.parent.name for path in ROOT.glob("rglib/*/__init__.py")} | {
        path.stem for path in ROOT.glob("rglib/*.py") if not path.stem.startswith("__")
    }
    assert {room for row in rooms.layers() for room in row} == there == set(rooms.COLUMNS)


def test_where_things_are_is_where_they_are():
    text = (ROOT / "docs/where.md").read_text(encoding="utf-8")
    places = re.findall(r"`((?:rglib|workflow|tests)/[\w./]*)`", text)
    assert len(places) > 15
    assert not [place for place in places if not (ROOT / place).exists()]
    for names, file in re.findall(r"`([A-Z_]+)` (?:of|in) `(rglib/[\w/]+\.py)`", text):
        assert re.search(rf"^{names}\b", (ROOT / file).read_text(encoding="utf-8"), re.M)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_leads_to_a_file(page):
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        if target != "api/modules.rst":  # made with the pages
            assert (page.parent / target).exists(), target


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_png(Path("photo.png"), np.full((24, 16, 3), 128, np.uint8))
    found = FENCED.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    (code,) = [text for language, text in found if language == "python"]
    exec(code, {})
    assert read_image(Path("out.png")).shape == (48, 32, 3)


def test_the_notebook_is_kept_without_what_it_shows():
    for cell in nbformat.read(ROOT / "docs/photograph.ipynb", as_version=4).cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None


@pytest.mark.slow
def test_the_targets_that_pages_name_can_be_planned(tmp_path):
    project = Project.copied(tmp_path / "project")
    (project / "config/mine.yaml").write_text("stages: { rerg: { options: { link: 0.2 } } }\n")
    for published in ("drunet_color.pth", "ReG.pth"):  # which a reader has fetched
        (project / published).touch()
    targets = defaultdict(set)
    for param in commands("snakemake"):
        chosen = get_argument_parser().parse_args(param.values[0])
        if not chosen.unlock and "lpips" not in chosen.targets:  # it needs AlexNet's weights
            targets[tuple(map(str, chosen.configfile or ()))] |= set(chosen.targets or ["all"])
    assert len(targets) > 5 and len(targets[()]) > 5
    for configuration, of_it in targets.items():
        project.snakemake("--dry-run", *of_it, config=None, also=configuration)
