"""What people who report or change something are given; a form with a mistake is never shown."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from rglib.records.provenance import RECORD_SUFFIX

ROOT = Path(__file__).parents[1]
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").iterdir())


def form(name):
    return yaml.safe_load((ROOT / f".github/ISSUE_TEMPLATE/{name}.yml").read_text())


def said(content):
    """All that a form says, as one text."""
    return yaml.safe_dump(content, width=10_000, allow_unicode=True)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_is_one_as_github_wants_it(path):
    content = yaml.safe_load(path.read_text())
    assert set(content) <= {"name", "description", "title", "labels", "assignees", "body"}
    assert content["name"] and content["description"]
    fields = content["body"]
    assert any(field["type"] != "markdown" for field in fields)
    assert len({field["id"] for field in fields}) == len(fields)
    assert len({field["attributes"]["label"] for field in fields}) == len(fields)
    for field in fields:
        assert field["type"] in ("input", "textarea")
        assert re.fullmatch(r"[A-Za-z0-9_-]+", field["id"])
        assert set(field) <= {"type", "id", "attributes", "validations"}
        assert set(field["attributes"]) <= {
            "label",
            "description",
            "placeholder",
            "value",
            "render",
        }
        assert isinstance(field.get("validations", {}).get("required", False), bool)


def test_the_forms_are_those_that_were_meant():
    assert [path.stem for path in FORMS] == ["bug", "feature", "number"]


@pytest.mark.parametrize("name", ["bug", "number"])
def test_who_reports_a_result_is_asked_for_its_record_and_for_verify(name):
    assert RECORD_SUFFIX in said(form(name))
    assert "rglib verify results/" in said(form(name))


def test_the_changelog_tells_of_the_present_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert re.fullmatch(re.escape(project["version"]) + r" - \d{4}-\d\d-\d\d", headings[1])
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == project["version"]


def test_the_changelog_has_the_kinds_of_change_that_it_says_it_has():
    kinds = re.findall(r"^### (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_guide_names_what_there_is():
    """Files and folders in backquotes."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    places = re.findall(r"`((?:rglib|workflow|config|tests|\.ci|profiles)/[\w./]*)`", text)
    assert len(places) > 5
    missing = [place for place in places if not (ROOT / place).exists()]
    assert missing == ["tests/test_x.py"]  # it stands for all


OF_THE_WHOLE = {
    *("workflow", "deployment", "listing_workflow", "slurm", "verify_workflow"),
    *("audit", "contributing", "docs", "packaging", "remedies"),
    *("against_deepinv", "benchmarks", "examples", "precision"),
}


def test_a_test_is_called_after_what_it_is_about():
    modules = {path.stem for path in ROOT.glob("rglib/**/*.py")}
    rooms = {path.parent.name for path in ROOT.glob("rglib/**/__init__.py")}
    tests = {path.stem.removeprefix("test_") for path in ROOT.glob("tests/test_*.py")}
    assert tests - modules - rooms == OF_THE_WHOLE
