"""Look for known vulnerabilities in what constraints.txt pins: .ci/audit.py path/to/pip-audit.

Fails on one that a newer version fixes, unless .ci/audit_ignored.txt lists it with a reason. Where
no advisories can be had it says why, and passes: a machine without them is not at fault.
"""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
CONSTRAINTS = HERE.parent / "constraints.txt"
IGNORED = HERE / "audit_ignored.txt"


def main(pip_audit: str) -> int:
    """Return the exit status."""
    command = [pip_audit, "-r", str(CONSTRAINTS), "--no-deps", "--disable-pip", "--format=json"]
    done = subprocess.run(
        [*command, "--progress-spinner=off"], capture_output=True, text=True, check=False
    )
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except ValueError:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return _skipped(said[-1])
    audited = [package for package in packages if "skip_reason" not in package]
    left_out = [package["skip_reason"] for package in packages if "skip_reason" in package]
    if not audited:  # pip-audit calls this "No known vulnerabilities found"
        return _skipped(left_out[0])
    for reason in left_out:
        print(f"not audited: {reason}")
    return _judged(audited, _ignored(IGNORED.read_text(encoding="utf-8")))


def _skipped(reason: str) -> int:
    print(f"SKIPPED, no advisories could be had: {reason}")
    return 0


def _ignored(text: str) -> dict[str, str]:
    """Reasons by the id of an advisory."""
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line[:1] not in ("", "#")]
    if without := [line[0] for line in lines if len(line) == 1]:
        raise SystemExit(f"{IGNORED}: {without[0]} needs a reason beside it")
    return dict(lines)


def _judged(audited: list[dict], ignored: dict[str, str]) -> int:
    open_ones = 0
    for package in audited:
        for advisory in package["vulns"]:
            names = [advisory["id"], *advisory.get("aliases", [])]
            reason = next((ignored[name] for name in names if name in ignored), None)
            fixes = ", ".join(advisory["fix_versions"])
            open_ones += bool(fixes) and reason is None
            verdict = f"ignored: {reason}" if reason else f"fixed in {fixes or 'no version yet'}"
            print(f"{package['name']} {package['version']}: {names[0]}, {verdict}")
    print(f"{len(audited)} packages audited, {open_ones} to be updated")
    return 1 if open_ones else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
