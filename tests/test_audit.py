"""The search for known vulnerabilities in CI, with a pip-audit that says what it is told to."""

import importlib.util
import json
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / ".ci" / "audit.py"
CLEAN = {"name": "tqdm", "version": "4.70", "vulns": []}
UNKNOWN = {"name": "absl-py", "skip_reason": "Dependency not found on PyPI"}


def vulnerable(*fix_versions):
    advisory = {"id": "PYSEC-2026-7", "aliases": ["CVE-2026-42"], "fix_versions": fix_versions}
    return {"name": "pillow", "version": "9.0", "vulns": [advisory]}


@pytest.fixture
def audit(tmp_path, monkeypatch, capfd):
    """A function from what pip-audit writes, and the ignored advisories, to status and words."""
    spec = importlib.util.spec_from_file_location("audit", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "IGNORED", tmp_path / "ignored.txt")

    def run(*packages, ignored="# nothing\n", says=None):
        output = json.dumps({"dependencies": packages}) if says is None else says
        (tmp_path / "output").write_text(output)
        (tmp_path / "ignored.txt").write_text(ignored)
        stub = tmp_path / "pip-audit"
        stub.write_text(
            f"#!/bin/sh\ncat '{tmp_path}/output'\necho 'no route to host' >&2\nexit 1\n"
        )
        stub.chmod(0o755)
        return module.main(str(stub)), capfd.readouterr().out

    return run


def test_without_a_vulnerability_it_passes(audit):
    assert audit(CLEAN) == (0, "1 packages audited, 0 to be updated\n")


def test_a_vulnerability_that_has_a_fix_fails(audit):
    status, said = audit(CLEAN, vulnerable("9.1", "10.0"))
    assert status == 1 and "pillow 9.0: PYSEC-2026-7, fixed in 9.1, 10.0" in said


def test_one_without_a_fix_is_told_and_passes(audit):
    status, said = audit(vulnerable())
    assert status == 0 and "PYSEC-2026-7, fixed in no version yet" in said


@pytest.mark.parametrize("name", ["PYSEC-2026-7", "CVE-2026-42"])
def test_one_that_is_ignored_with_a_reason_is_told_and_passes(audit, name):
    status, said = audit(vulnerable("9.1"), ignored=f"# of images\n\n{name} we read no FPX files\n")
    assert status == 0 and "ignored: we read no FPX files" in said


def test_to_ignore_one_needs_a_reason(audit):
    with pytest.raises(SystemExit, match="PYSEC-2026-7 needs a reason"):
        audit(vulnerable("9.1"), ignored="PYSEC-2026-7\n")


def test_without_advisories_it_says_so_and_passes(audit):
    status, said = audit(says="")
    assert status == 0 and said == "SKIPPED, no advisories could be had: no route to host\n"


def test_packages_that_nothing_is_known_of_are_not_called_sound(audit):
    status, said = audit(UNKNOWN, UNKNOWN)
    assert status == 0 and said.startswith("SKIPPED") and "not found on PyPI" in said
    status, said = audit(UNKNOWN, vulnerable("9.1"))
    assert status == 1 and "not audited: Dependency not found on PyPI" in said


def test_the_list_that_is_shipped_can_be_read(audit):
    shipped = SCRIPT.with_name("audit_ignored.txt").read_text(encoding="utf-8")
    assert audit(CLEAN, ignored=shipped)[0] == 0
