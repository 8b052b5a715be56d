"""What a user installs: the lists of dependencies agree, and nothing points at one machine."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import skimage
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from PIL import Image

from rglib import __version__

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
CONDA_NAMES = {
    "torch": "pytorch",
    "snakemake": "snakemake-minimal",
}  # where they differ from PyPI's
# deepinv needs torchvision, which does not go with every build of the pinned torch
UNPINNED = {"deepinv", "lpips"}
PAPER = "Training Methods for Regularizing Gradients on Multi-Task Image Restoration Problems"


def requirements(extra=None):
    entries = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    return [Requirement(entry) for entry in entries]


def pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = [Requirement(line) for line in lines if not line.startswith("#")]
    return {canonicalize_name(pin.name): pin.specifier for pin in found}


def shipped_files():
    """What git tracks or would track."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "-co", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a checkout of git")
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_the_conda_environment_has_the_same_packages():
    conda = [Requirement(entry.replace(" ", "")) for entry in CONDA["dependencies"]]
    conda = {entry.name: entry.specifier for entry in conda}
    assert conda.pop("pip") == SpecifierSet()
    assert conda.pop("python") == SpecifierSet(PROJECT["requires-python"])
    needed = [*requirements(), *requirements("workflow")]
    assert conda == {CONDA_NAMES.get(r.name, r.name): r.specifier for r in needed}


def test_snakemake_comes_from_bioconda_and_the_rest_from_conda_forge():
    assert CONDA["channels"] == ["conda-forge", "bioconda"]


@pytest.mark.parametrize(
    "extra", [None, *sorted(PROJECT["optional-dependencies"].keys() - UNPINNED)]
)
def test_every_dependency_is_pinned_within_its_bounds(extra):
    for requirement in requirements(extra):
        if requirement.name == PROJECT["name"]:
            continue
        name = canonicalize_name(requirement.name)
        assert name in pins(), f"{requirement} has no pin: refresh constraints.txt"
        (pin,) = pins()[name]
        assert requirement.specifier.contains(pin.version), f"{requirement} excludes {pin}"


def test_constraints_pin_one_version_of_each_without_a_build():
    assert len(pins()) > len(PROJECT["dependencies"])
    for name, specifier in pins().items():
        (pin,) = specifier
        assert pin.operator == "==" and "+" not in pin.version, f"{name}{pin}"


def test_what_is_imported_is_required():
    files = [*ROOT.glob("rglib/**/*.py"), *ROOT.glob("workflow/**/*.py"), ROOT / "Snakefile"]
    imports = re.compile(r"^ *(?:from (?=\S+ import )|import )(\w+)", re.M)
    imported = {name for path in files for name in imports.findall(path.read_text())}
    foreign = imported - set(sys.stdlib_module_names) - {"rglib"}
    names = {
        "PIL": "pillow",
        "yaml": "pyyaml",
        "skimage": "scikit-image",
    }  # where a module is not called as its package
    assert {"torch", "PIL", "yaml"} <= foreign, "the search misses imports"
    # an integration needs the libraries of the extra that it is called after
    extras = {path.stem for path in ROOT.glob("rglib/integrations/*.py")} - {"__init__"}
    assert extras <= PROJECT["optional-dependencies"].keys()
    optional = {r.name for extra in extras for r in requirements(extra)}
    required = {r.name for r in [*requirements(), *requirements("workflow")]} | optional
    assert {names.get(name, name) for name in foreign} <= required


# --- the base install, without the extra ----------------------------------------------------------

MODULES = {"scikit-learn": "sklearn"}  # where they are not called as their packages
OF_WORKFLOW = [MODULES.get(r.name, r.name) for r in requirements("workflow")]
WITHOUT = """
import sys


class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Refused())
"""


def run_without_the_extra(code, *arguments, cwd):
    return subprocess.run(
        [sys.executable, "-c", WITHOUT.format(names=OF_WORKFLOW) + code, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def command_without_the_extra(*arguments, cwd):
    code = "from rglib.__main__ import main\nsys.exit(main(sys.argv[1:]))"
    return run_without_the_extra(code, *arguments, cwd=cwd)


def test_the_extra_brings_what_is_heavy_and_nothing_that_is_there_already():
    heavy = {"snakemake", "pandas", "plotly", "sklearn", "tensorboard", "requests"}
    assert heavy <= set(OF_WORKFLOW)
    base = {r.name for r in requirements()}
    assert not base & {r.name for r in requirements("workflow")}


def test_a_prior_restores_with_the_base_install(tmp_path):
    code = (
        "import torch, rglib\n"
        "y = torch.rand(1, 3, 8, 8)\n"
        "prior = rglib.load('rerg').adjusted(iterations=1)\n"
        "print(*prior.restore(y, 'sr2_bicubic_n0.01').shape)"
    )
    done = run_without_the_extra(code, cwd=tmp_path)
    assert (done.returncode, done.stdout.split()) == (0, ["1", "3", "16", "16"]), done.stderr


def test_images_are_degraded_and_restored_with_the_base_install(tmp_path):
    Image.fromarray(skimage.data.astronaut()[:40, 160:200]).save(tmp_path / "x.png")
    problem = ("--problem", "deblur_s1.6")
    restored = ("--iterations", "1", "--estimate-noise", "-o", "z.png")
    for command in (
        ("degrade", "x.png", *problem, "-o", "y.npy"),
        ("restore", "y.npy", *problem, *restored),
        ("models",),
        ("kit", "-o", "kit.safetensors"),
    ):
        done = command_without_the_extra(*command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "z.png").exists()


@pytest.mark.parametrize(("command", "file"), [("claims", "tables.csv"), ("verify", "results")])
def test_a_command_that_needs_the_extra_says_so_in_one_line(tmp_path, command, file):
    done = command_without_the_extra(command, file, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"rglib {command}: needs ")
    assert line.endswith(': pip install "rglib[workflow]"')


# --- nothing points at one machine ----------------------------------------------------------------

PATHS = re.compile(r"(?<![\w.~/}$-])/(?:home|root|Users|mnt|media|opt|work|data)/[\w.]")
INDEX = re.compile(
    r"index-url|find-links|files\.pythonhosted|pypi\.org/|registry\.npmjs|://[^/]*pypi"
)


@pytest.mark.parametrize("pattern", [PATHS, INDEX], ids=["path", "registry"])
def test_no_file_names_a_path_of_one_machine_or_a_package_registry(pattern):
    found = []
    for path in shipped_files():
        if path == Path(__file__):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # pictures, weights
            continue
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(f"{path.relative_to(ROOT)}:{line}: {match.group()}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("text", ["see /home/ann/x", "'/work/x'", '"/opt/x"', "(/root/.a)"])
def test_the_search_finds_paths(text):
    assert PATHS.search(text)


@pytest.mark.parametrize(
    "text", ["work/main", "../work/test", "{RUN}/data/x", "~/data/x", "a/opt/b"]
)
def test_the_search_passes_over_relative_paths(text):
    assert not PATHS.search(text)


# --- licence and citation -------------------------------------------------------------------------


def test_the_licence_is_the_one_declared():
    text = (ROOT / "LICENSE").read_text()
    assert PROJECT["license"] == "MIT" and PROJECT["license-files"] == ["LICENSE"]
    assert text.startswith("MIT License\n\nCopyright (c) 2026 the rglib authors\n")
    assert 'THE SOFTWARE IS PROVIDED "AS IS"' in text


def test_the_citation_names_software_and_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert citation["version"] == PROJECT["version"] and citation["license"] == PROJECT["license"]
    (paper,) = citation["references"]
    assert paper["title"] == PAPER
    assert paper["doi"] == "10.5220/0012368100003660"
    names = [f"{author['given-names']} {author['family-names']}" for author in paper["authors"]]
    assert names == ["Samuel Willingham", "Mårten Sjöström", "Christine Guillemot"]


def test_the_metadata_are_what_people_look_for():
    assert PROJECT["authors"] and PROJECT["keywords"] and PROJECT["urls"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert [author["name"] for author in PROJECT["authors"]] == [
        author["name"] for author in citation["authors"]
    ]
    assert set(citation["keywords"]) <= set(PROJECT["keywords"])
    assert PROJECT["urls"]["Paper"].endswith(citation["references"][0]["doi"])
    assert __version__ == PROJECT["version"]


def test_the_classifiers_name_the_versions_of_python_that_were_tried():
    """Newer ones are allowed; one is named once `.ci/release` has passed with it."""
    prefix = "Programming Language :: Python :: 3."
    minors = [int(c.removeprefix(prefix)) for c in PROJECT["classifiers"] if c.startswith(prefix)]
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert minors == [11] and all(f"3.{minor}.9" in allowed for minor in minors)


def test_the_catalog_of_workflows_finds_what_it_looks_for():
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert set(usage["software-stack-deployment"].values()) == {False} and usage["report"]
    assert set(yaml.safe_load((ROOT / "config/config.yaml").read_text())) == {"run"}
    page = (ROOT / "config/README.md").read_text()
    for overlay in (ROOT / "config").glob("*.yaml"):
        assert f"`{overlay.name}`" in page, overlay.name


def test_every_subpackage_is_installed_and_the_weights():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "packages"
    ]
    inits = (path.parent.relative_to(ROOT) for path in ROOT.glob("rglib/**/__init__.py"))
    assert set(packages) == {"rglib.weights", *(".".join(path.parts) for path in inits)}


@pytest.mark.slow
def test_a_wheel_restores_images_without_the_repository(tmp_path):
    source, site, away = tmp_path / "source", tmp_path / "site", tmp_path / "away"
    away.mkdir()
    for path in shipped_files():
        (source / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, source / path.relative_to(ROOT))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(source)]
    subprocess.run(build, check=True)
    shutil.rmtree(source)
    (wheel,) = tmp_path.glob("rglib-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)
    Image.fromarray(skimage.data.astronaut()[:128, 160:288]).save(away / "x.png")

    def run(*command):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=away,
            env=os.environ | {"PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    rglib = str(site / "bin" / "rglib")
    assert Path(run("-c", "import rglib; print(rglib.__file__)").strip()).is_relative_to(site)
    run(rglib, "degrade", "x.png", "--problem", "deblur_s1.6", "-o", "y.npy")
    told = run(
        *(rglib, "restore", "y.npy", "-o", "z.png", "--method", "pnpreg"),
        *("--problem", "deblur_s1.6", "--border", "circular", "--truth", "x.png"),
    )
    before, after = map(float, re.findall(r"(\d+\.\d+) dB", told))
    assert after > before + 1
    assert Image.open(away / "z.png").size == (128, 128)
    shape = (
        "import torch, rglib; "
        "print(*rglib.load('pnpreg').restore(torch.rand(1, 3, 16, 16), 'sr2_bicubic_n0').shape)"
    )
    assert run("-c", shape).split() == ["1", "3", "32", "32"]


def test_rglib_is_the_one_of_this_checkout():
    assert Path(importlib.util.find_spec("rglib").origin).parent == ROOT / "rglib"
