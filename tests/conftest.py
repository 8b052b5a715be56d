"""What several test files share: Set5, small networks, and a prior with a closed form."""

import json
import logging
import os
import resource
import select
import subprocess
import termios
import tty
from collections import Counter
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import settings

from rglib.core.networks import build, save_weights
from rglib.core.tensors import to_tensor
from rglib.data.datasets import mirror_folders, resolve
from rglib.data.images import read_image
from rglib.restoration.weights_folder import write_settings

# the speed of a machine proves nothing, and CI must not fail by chance
settings.register_profile("rglib", deadline=None, derandomize=True)
settings.load_profile("rglib")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of commands too, which else measure what is fastest
torch.set_num_threads(1)  # these tensors are too small to share, and machines are often busy


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Of `pytest -n 2` each worker takes whole files: what their tests share is dear."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


def pytest_collection_modifyitems(config, items):
    """With several workers the files with most slow tests come first, to end together."""
    if hasattr(config, "workerinput"):
        slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
        items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def set5(tmp_path_factory):
    """The images of Set5 by name, (1, 3, H, W) in [0, 1]."""
    mirrors = mirror_folders()
    if not any((mirror / "Set5").is_dir() for mirror in mirrors):
        pytest.skip("RGLIB_MIRRORS names no folder with Set5/ in it")
    found = resolve("set5", mirrors=mirrors, data_dir=tmp_path_factory.mktemp("data"), offline=True)
    return {file.name: to_tensor(read_image(file.path)) for file in found.images}


@pytest.fixture(scope="session")
def tiny():
    """A function from a role and a seed to a small DRUNet of that role."""

    def make(role, seed=0, widths=(4, 6, 8, 8)):
        torch.manual_seed(seed)
        return build(role, widths=widths, blocks=1)

    return make


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory, tiny):
    """A folder as weights/, with small networks of no use for all methods of the default."""
    folder = tmp_path_factory.mktemp("models")
    config = yaml.safe_load((Path(__file__).parent.parent / "config.yaml").read_text())
    write_settings(config, folder / "settings.json")
    for seed, (name, stage) in enumerate(config["stages"].items()):
        for role in stage["init"]:
            weights = tiny(role, seed).state_dict()
            save_weights(folder / f"{name}_{role}.safetensors", weights)
        card = {"stage": name, "network": {"widths": [4, 6, 8, 8], "blocks": 1}}
        (folder / f"{name}.card.json").write_text(json.dumps(card))
    return folder


@pytest.fixture(scope="session")
def in_double():
    """A function from an operator to the same operator with float64 numbers."""

    def convert(A):
        tensors = {f.name: value for f in fields(A) if torch.is_tensor(value := getattr(A, f.name))}
        wide = {n: t.to(torch.promote_types(t.dtype, torch.float64)) for n, t in tensors.items()}
        return replace(A, **wide)

    return convert


@pytest.fixture(scope="session")
def dense(in_double):
    """A function from an operator to its float64 matrix on flattened images (C, H, W)."""

    def matrix(A, shape):
        basis = torch.eye(shape[0] * shape[1] * shape[2], dtype=torch.float64)
        return in_double(A)(basis.view(-1, *shape)).flatten(1).T

    return matrix


@dataclass(frozen=True)
class LinearPrior:
    """R(x) = 1/2 x^T Q x on images (B, C, H, W): P and G are matrices, the MAP is solved for."""

    Q: torch.Tensor

    def _apply(self, matrix, x):
        return (x.flatten(1) @ matrix.T).view(x.shape)

    def P(self, z, sigma):
        """(I + sigma^2 Q)^-1 z."""
        return self._apply(torch.linalg.inv(torch.eye(len(self.Q)).to(z) + sigma**2 * self.Q), z)

    def G(self, x):
        """Q x."""
        return self._apply(self.Q, x)

    def minimiser(self, matrix, y, sigma):
        """(A^T A + sigma^2 Q)^-1 A^T y, flattened images (B, C H W), for A as a matrix."""
        hessian = matrix.T @ matrix + sigma**2 * self.Q
        return torch.linalg.solve(hessian, matrix.T @ y.flatten(1).T).T


@pytest.fixture(scope="session")
def linear_prior():
    """A function from an image's number of entries to a LinearPrior with 1 <= Q <= 3, float64."""

    def make(entries, seed=0):
        generator = torch.Generator().manual_seed(seed)
        square = torch.randn(entries, entries, generator=generator, dtype=torch.float64)
        vectors = torch.linalg.qr(square).Q
        return LinearPrior(vectors @ torch.diag(torch.linspace(1, 3, entries).double()) @ vectors.T)

    return make


@pytest.fixture
def told(caplog, monkeypatch):
    """A function that returns the lines of progress so far, of which there is one for each step."""
    monkeypatch.setattr("rglib.progress.INTERVAL", 0.0)
    caplog.set_level(logging.INFO, "rglib.progress")
    return lambda: [r.getMessage() for r in caplog.records if r.name == "rglib.progress"]


@pytest.fixture(scope="session")
def terminal():
    """A context in which stderr is a terminal; its value returns what came up there since."""

    @contextmanager
    def opened():
        ours, theirs = os.openpty()
        tty.setraw(theirs)
        termios.tcsetwinsize(theirs, (24, 100))

        def seen():
            text = b""
            while select.select([ours], [], [], 0.1)[0]:  # it takes a moment to arrive
                text += os.read(ours, 1 << 16)
            return text.decode()

        with open(theirs, "w", encoding="utf-8") as screen, redirect_stderr(screen):
            yield seen
        os.close(ours)

    return opened


@pytest.fixture
def full_disk():
    """A context in which no file can grow beyond a number of bytes: a full disk without a disk."""

    @contextmanager
    def limited(size):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.fixture
def mount():
    """A function that lays an empty file system in memory over a folder; only root may."""
    mounted = []

    def over(folder, options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("there is no mount on this machine")
        if done.returncode:
            pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
        mounted.append(folder)

    yield over
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def read_only(mount):
    """A function that makes a folder read-only, for root, whom no mode stops, by a mount."""
    changed = []

    def make(folder):
        if os.geteuid() == 0:
            mount(folder, "ro,size=1m")
        else:
            folder.chmod(0o555)
            changed.append(folder)

    yield make
    for folder in changed:
        folder.chmod(0o755)
