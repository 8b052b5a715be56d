"""The kit is what rglib computes, agrees with other codes, and finds mistakes where they are."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from skimage.metrics import structural_similarity

from rglib import paper
from rglib.__main__ import main
from rglib.conformance.cases import DEGRADATIONS, LOPSIDED
from rglib.conformance.checks import CHECKS, Status
from rglib.conformance.kit import (
    FORMAT,
    SHIPPED,
    Kit,
    KitError,
    as_text,
    conform,
    first_departure,
    make,
    write,
)
from rglib.conformance.reference import Reference
from rglib.core.fixed_point import StoppingRule
from rglib.core.problems import PROBLEMS, SeededStep, observe
from rglib.training.objectives.equilibrium import Equilibrium
from rglib.training.objectives.losses import Batch

ROOT = Path(__file__).parent.parent
SCIPY = (ROOT / "examples/conform_scipy.py").read_text()


@pytest.fixture(scope="module")
def kit():
    return Kit.read()


def adapter_of(source):
    """The adapter of a module's source text."""
    module = {}
    exec(source, module)
    return module["Adapter"]()


def departures(adapter, kit):
    found = conform(adapter, kit)
    return [(one.check, one.case) for one in found if one.status == Status.DEPARTS]


# --- the file -------------------------------------------------------------------------------------


def test_rglib_still_computes_the_kit(kit):
    findings = conform(Reference(), kit)
    assert {one.status for one in findings} == {Status.AGREES}, as_text(findings)
    assert {one.check for one in findings} == {check.name for check in CHECKS}


def test_the_command_makes_the_file_again(kit, tmp_path, capsys):
    assert main(["kit", "-o", str(tmp_path / "again.safetensors")]) == 0
    again = Kit.read(tmp_path / "again.safetensors")
    assert again.tensors.keys() == kit.tensors.keys()
    for name, expected in kit.tensors.items():
        found = again.tensors[name]
        assert found.dtype == expected.dtype, name
        # to tell a rounding error of another machine from another number
        scale = max(1e-30, expected.abs().max().item())
        assert (found - expected).abs().max().item() <= 1e-4 * scale, name
    assert main(["kit", "-o", str(tmp_path / "again.safetensors")]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_the_file_is_small_and_its_parts_are_named_on_the_page(kit):
    assert SHIPPED.stat().st_size < 1_000_000
    page = (ROOT / "docs/conformance.md").read_text()
    own = {name.rpartition("/")[2] for name in kit.tensors if not name.startswith("weights/")}
    assert not [name for name in own if f"`{name}`" not in page]


def test_the_twelve_problems_are_in_it_and_a_blur_that_is_not_symmetric(kit):
    assert [*PROBLEMS, LOPSIDED] == list(DEGRADATIONS)
    kernel = kit.tensors[f"{LOPSIDED}/kernel"]
    assert (kernel - kernel.flip(0, 1)).abs().max() > 0.01
    assert kernel.sum().item() == pytest.approx(1)


def test_a_file_that_is_no_kit_is_refused(tmp_path, capsys):
    (tmp_path / "a.safetensors").write_bytes(b"nothing of the kind")
    line = ["conform", "examples.conform_scipy:Adapter", "--kit", str(tmp_path / "a.safetensors")]
    assert main(line) == 2
    assert "a.safetensors: cannot be read as a conformance kit" in capsys.readouterr().err
    assert main([*line[:-1], str(ROOT / "weights/rerg_G.safetensors")]) == 2
    assert "rerg_G.safetensors: is no conformance kit" in capsys.readouterr().err


def test_a_kit_without_a_case_is_refused(kit, tmp_path):
    some = {name: t for name, t in kit.tensors.items() if not name.startswith("completion90/")}
    save_file(some, tmp_path / "some.safetensors", {"kit": FORMAT})
    with pytest.raises(KitError, match="has no completion90/crop"):
        Kit.read(tmp_path / "some.safetensors")


# --- independent codes agree ----------------------------------------------------------------------


def test_numpy_and_scipy_agree_on_operators_noise_and_masks(kit):
    findings = conform(adapter_of(SCIPY), kit)
    assert first_departure(findings) is None, as_text(findings)
    agreeing = {one.check for one in findings if one.status == Status.AGREES}
    assert agreeing == {"mask", "kernel", "forward", "observe", "psnr"}


class WithTorch:
    """Autograd, torch.optim.Adam and scikit-image, around the operators of `Reference`."""

    def adjoint(self, case, y):
        x = torch.zeros(1, 3, case.height, case.width, requires_grad=True)
        (Reference().forward(case, x) * y).sum().backward()
        return x.grad

    def data_gradient(self, case, x, y):
        x = x.clone().requires_grad_()
        (Reference().forward(case, x) - y).square().sum().div(2).backward()
        return x.grad

    def prox(self, case, u, y, rho):
        """By conjugate gradients on (A^T A + rho) (v - u) = -D(u)."""
        step, residual = torch.zeros_like(u), -self.data_gradient(case, u, y)
        direction = residual
        for _ in range(200):
            image = self.data_gradient(case, direction, torch.zeros_like(y)) + rho * direction
            length = residual.square().sum() / (direction * image).sum().clamp_min(1e-30)
            step, new = step + length * direction, residual - length * image
            direction = new + new.square().sum() / residual.square().sum() * direction
            residual = new
            if residual.norm() < 1e-7:
                break
        return u + step

    def descend(self, case, G, x0, y, lr, steps):
        """The eight transforms as the released code names them, and torch's own optimiser."""
        turn = [torch.rot90, *(lambda x, k, dims, n=n: torch.rot90(x, n, dims) for n in (2, 3))]
        flip = torch.flipud

        def rotated(x, i):
            image = x[0].permute(1, 2, 0)  # (H, W, 3)
            transforms = [
                lambda v: v,
                lambda v: flip(turn[0](v, 1, (0, 1))),
                flip,
                lambda v: turn[2](v, 1, (0, 1)),
                lambda v: flip(turn[1](v, 1, (0, 1))),
                lambda v: turn[0](v, 1, (0, 1)),
                lambda v: turn[1](v, 1, (0, 1)),
                lambda v: flip(turn[2](v, 1, (0, 1))),
            ]
            inverse = {3: 5, 5: 3}.get(i, i)
            value = G(transforms[i](image).permute(2, 0, 1)[None].contiguous())[0]
            return transforms[inverse](value.permute(1, 2, 0)).permute(2, 0, 1)[None]

        x = x0.clone().requires_grad_()
        optimiser = torch.optim.Adam([x], lr=lr)
        shown = []
        for i in range(steps):
            with torch.no_grad():
                gradient = rotated(x, i % 8)
            x.grad = self.data_gradient(case, x.detach(), y) + case.s**2 * gradient
            optimiser.step()
            shown.append(x.detach().clone())
        return torch.cat(shown)

    def ssim(self, x, x_hat):
        x, x_hat = (image[0].double().numpy() for image in (x, x_hat))
        options = dict(win_size=11, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
        _, full = structural_similarity(
            x, x_hat, data_range=1.0, channel_axis=0, full=True, **options
        )
        return full[:, 5:-5, 5:-5].mean()


def test_autograd_torchs_adam_conjugate_gradients_and_scikit_image_agree(kit):
    findings = conform(WithTorch(), kit)
    assert first_departure(findings) is None, as_text(findings)
    agreeing = {one.check for one in findings if one.status == Status.AGREES}
    assert agreeing == {"adjoint", "data_gradient", "prox", "descend", "ssim"}


@pytest.mark.parametrize("name", ["completion80", "deblur_s2.0", "sr2_bicubic_n0.01"])
def test_the_losses_are_those_of_training(kit, name):
    """Algorithm 1 with no iteration allowed, so that x_f and x_g are x0."""
    inputs, s = kit.inputs(name), 0.1
    degradation = replace(DEGRADATIONS[name], sigma=s)

    class Distribution:
        def draw(self, randomness):
            return degradation

    plan = Equilibrium(
        link=1.0,
        forward_backward=1.0,
        gradient_descent=1.0,
        eta_fb=paper.ETA_FB,
        eta_gd=paper.ETA_GD,
        stop=StoppingRule(max_iterations=0),
        distribution=Distribution(),
    )
    networks = {"P": inputs.P, "G": inputs.G}
    losses = plan(networks, Batch(inputs.x_hat, step=3, seed=0))
    seen = observe(degradation, inputs.x_hat, SeededStep(0, 3))
    case = replace(inputs.case, sigma=s, s=s)

    class Same(Reference):
        def _operator(self, case):
            return seen.problem.A

    x0, y, x_hat = seen.x0, seen.y, seen.x_hat
    found = {
        "link": Same().loss_link(case, inputs.P, inputs.G, x0, y, paper.ETA_FB),
        "FB": Same().loss_fb(case, inputs.P, x0, y, x_hat, paper.ETA_FB),
        "GD": Same().loss_gd(case, inputs.G, x0, y, x_hat, paper.ETA_GD),
    }
    weights = [weight for network in networks.values() for weight in network.parameters()]
    for term, loss in found.items():
        torch.testing.assert_close(loss, losses.terms[term])
        ours, theirs = (
            torch.autograd.grad(one, weights, retain_graph=True, materialize_grads=True)
            for one in (loss, losses.terms[term])
        )
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b)


# --- mistakes are found where they are ------------------------------------------------------------

BICUBIC = [name for name in PROBLEMS if "bicubic" in name]

MISTAKES = {
    "a = -0.5": (
        "a=-0.75",
        "a=-0.5",
        ("kernel", "sr2_bicubic_n0"),
        {(check, name) for check in ("kernel", "forward", "observe") for name in BICUBIC},
    ),
    "the mask after the noise": (
        "np.random.seed(0)\n        return np.random.uniform",
        "np.random.seed(0)\n        np.random.normal(size=(3, case.height, case.width))\n"
        "        return np.random.uniform",
        ("mask", "completion80"),
        {
            (check, name)
            for check in ("mask", "forward", "observe")
            for name in ("completion80", "completion90")
        },
    ),
    "correlated, not convolved": (
        "ndimage.convolve(",
        "ndimage.correlate(",
        ("forward", LOPSIDED),
        {("forward", LOPSIDED), ("observe", LOPSIDED)},
    ),
    "the noise in the order row, column, channel": (
        "np.random.normal(size=y.shape)",
        "np.random.normal(size=(*y.shape[2:], 3)).transpose(2, 0, 1)",
        ("observe", "deblur_s1.6"),
        {("observe", name) for name, problem in DEGRADATIONS.items() if problem.sigma},
    ),
    "PSNR with the peak value 255": (
        "-10 * np.log10(",
        "20 * np.log10(255) - 10 * np.log10(",
        ("psnr", "completion80"),
        {("psnr", name) for name in DEGRADATIONS},
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_departs_where_it_is_made_and_nowhere_else(kit, mistake):
    right, wrong, first, everywhere = MISTAKES[mistake]
    assert SCIPY.count(right) == 1
    adapter = adapter_of(SCIPY.replace(right, wrong))
    findings = conform(adapter, kit)
    departure = first_departure(findings)
    assert (departure.check, departure.case) == first
    assert departure.deviation > 1e-3 and "instead of" in departure.detail
    assert set(departures(adapter, kit)) == everywhere


STRANGER = """
import numpy as np
import torch

A = -0.75


class Adapter:
    def mask(self, case):
        np.random.seed(0)
        keep = 0.2 if case.name == "completion80" else 0.1
        return torch.from_numpy(np.random.rand(case.height, case.width) > 1 - keep).float()

    def kernel(self, case):
        if case.name == "deblur_lopsided":
            return case.kernel
        x = torch.arange(len(case.kernel), dtype=torch.float64)
        if case.task == "deblurring":
            g = torch.exp(-0.5 * ((x - 12) / float(case.name.removeprefix("deblur_s"))) ** 2)
            return torch.outer(g, g) / g.sum() ** 2
        x = ((x + case.first) / case.factor - (case.factor - 1) / (2 * case.factor)).abs()
        near = ((A + 2) * x - (A + 3)) * x**2 + 1
        far = A * (((x - 5) * x + 8) * x - 4)
        cubic = torch.where(x <= 1, near, torch.where(x < 2, far, 0 * x))
        k = cubic if "bicubic" in case.name else torch.exp(-2 * x**2)
        return k / k.sum()

    def forward(self, case, x):
        if case.task != "deblurring":
            raise NotImplementedError
        h, w = case.kernel.shape
        padded = torch.zeros(x.shape[-2:], dtype=torch.float64)
        padded[:h, :w] = self.kernel(case)
        spectrum = torch.fft.fft2(padded.roll((-(h // 2), -(w // 2)), (0, 1)))
        return torch.fft.ifft2(torch.fft.fft2(x.double()) * spectrum).real
"""
OF_A_STRANGER = {
    "a = -0.5": ("A = -0.75", "A = -0.5", "kernel of sr2_bicubic_n0"),
    "the mask after the noise": (
        "np.random.seed(0)",
        "np.random.seed(0); np.random.randn(3, case.height, case.width)",
        "mask of completion80",
    ),
    "correlated, not convolved": (
        "* spectrum)",
        "* spectrum.conj())",
        "forward of deblur_lopsided",
    ),
}


@pytest.fixture
def asked(tmp_path, monkeypatch, capsys):
    """``rglib conform`` of a stranger's file in the working folder."""

    def ask(source, *words):
        (tmp_path / "stranger.py").write_text(source)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.delitem(sys.modules, "stranger", raising=False)
        status = main(["conform", "stranger:Adapter", *words])
        return status, capsys.readouterr().out

    return ask


def test_a_strangers_adapter_of_thirty_lines_agrees(asked):
    assert sum(bool(line.strip()) for line in STRANGER.splitlines()) < 35
    status, said = asked(STRANGER)
    assert status == 0 and said.endswith("Everything that is offered agrees.\n"), said


@pytest.mark.parametrize("mistake", OF_A_STRANGER)
def test_a_strangers_mistake_is_told_where_it_is_made(asked, mistake):
    right, wrong, where = OF_A_STRANGER[mistake]
    assert STRANGER.count(right) == 1
    status, said = asked(STRANGER.replace(right, wrong))
    assert status == 1 and f"It first departs at {where} by " in said, said


def test_of_all_three_mistakes_each_is_told(asked):
    source = STRANGER
    for right, wrong, _ in OF_A_STRANGER.values():
        source = source.replace(right, wrong)
    status, said = asked(source, "--json")
    departing = {
        f"{one['check']} of {one['case']}" for one in json.loads(said) if one["status"] == "departs"
    }
    assert status == 1 and {where for *_, where in OF_A_STRANGER.values()} <= departing
    assert {one.split()[0] for one in departing} == {"mask", "kernel", "forward"}


class Literal(Reference):
    """L_link with sigma^2 instead of eta sigma^2, as eq. (28) may be read."""

    def loss_link(self, case, P, G, x, y, eta):
        f = self._f(case, P, y, eta)
        z = f.forward_step(x).detach()
        return (case.s**2 * G(f.prox(z)) - (z - f.prox(z))).square().mean()


class Attached(Reference):
    """L_link whose p is cut from the graph, so that P learns nothing of G."""

    def loss_link(self, case, P, G, x, y, eta):
        with torch.no_grad():
            p = self._f(case, P, y, eta)(x)
            z = self._f(case, P, y, eta).forward_step(x)
        return (eta * case.s**2 * G(p) - (z - p)).square().mean()


class WithoutEnsemble(Reference):
    def descend(self, case, G, x0, y, lr, steps):
        x, shown = x0.clone().requires_grad_(), []
        adam = torch.optim.Adam([x], lr=lr)
        for _ in range(steps):
            x.grad = self.data_gradient(case, x.detach(), y) + case.s**2 * G(x.detach()).detach()
            adam.step()
            shown.append(x.detach().clone())
        return torch.cat(shown)


class PaddedByZeros(Reference):
    def regularizing_gradient(self, weights, x):
        height, width = x.shape[-2:]
        padded = torch.nn.functional.pad(x, (0, -width % 16, 0, -height % 16))
        return super().regularizing_gradient(weights, padded)[..., :height, :width]


@pytest.mark.parametrize(
    ("adapter", "checks"),
    [
        (Literal, {"loss_link", "loss_link_gradient"}),
        (Attached, {"loss_link_gradient"}),
        (WithoutEnsemble, {"descend"}),
        (PaddedByZeros, {"regularizing_gradient"}),
    ],
)
def test_mistakes_in_maps_and_losses_show_too(kit, adapter, checks):
    found = departures(adapter(), kit)
    assert {check for check, _ in found} == checks
    # 32x32 pixels need no padding, so that only the others depart by it
    padded = {name for name in DEGRADATIONS if "sr2" not in name and "deblur_s" not in name}
    assert {case for _, case in found} == (
        padded if adapter is PaddedByZeros else set(DEGRADATIONS)
    )


# --- what a stranger's adapter may do -------------------------------------------------------------

STRANGE = """
import numpy as np

class Raises:
    def forward(self, case, x):
        raise KeyError("no such\\n  operator")

class Shape:
    def forward(self, case, x):
        return x[..., :5, :5]

class NotANumber:
    def psnr(self, x, x_hat):
        return float("nan")

class NothingYet:
    def ssim(self, x, x_hat):
        raise NotImplementedError("later")
    def psnr(self, x, x_hat):
        return -10 * np.log10(np.mean((x - x_hat).numpy() ** 2))

class Empty:
    pass
"""


@pytest.fixture
def strange(tmp_path, monkeypatch, capsys):
    """A function that runs `rglib conform`: its status and what it said."""
    (tmp_path / "strange.py").write_text(STRANGE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "strange", raising=False)

    def run(*words):
        status = main(["conform", *words])
        return status, "".join(capsys.readouterr())

    return run


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Raises", "It first departs at forward of completion80: it raises KeyError: 'no such"),
        ("Shape", "its shape is (1, 3, 1, 1) instead of (1, 3, 7, 8), of every 5th row"),
        ("NotANumber", "first departs at psnr of completion80: nan instead of 13.1685.\n"),
    ],
)
def test_what_goes_wrong_is_said_and_the_rest_is_compared(strange, name, said):
    status, text = strange(f"strange:{name}")
    assert status == 1 and said in text


def test_what_is_not_offered_is_no_departure(strange):
    status, text = strange("strange:NothingYet", "--json")
    found = json.loads(text)
    assert status == 0
    assert {one["status"] for one in found if one["check"] == "psnr"} == {"agrees"}
    assert {one["status"] for one in found if one["check"] != "psnr"} == {"not offered"}


def test_one_case_alone(strange):
    status, text = strange("strange:Raises", "--case", "deblur_s1.6", "--json")
    assert status == 1 and {one["case"] for one in json.loads(text)} == {"deblur_s1.6"}
    (forward,) = [one for one in json.loads(text) if one["check"] == "forward"]
    assert forward["deviation"] is None and forward["status"] == "departs"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["strange:Empty"], "strange:Empty has none of the methods crop, mask, "),
        (["strange:Emty"], 'has no Emty; did you mean "Empty"?'),
        (["strange"], "strange: must be MODULE:CLASS"),
        ([":Strange"], ":Strange: must be MODULE:CLASS"),
        (["nowhere:Adapter"], "there is no file nowhere.py"),
        (["strange:Empty", "--case", "deblur_s1"], "--case: unknown 'deblur_s1'; did you mean \""),
    ],
)
def test_what_cannot_be_compared_is_said_in_a_line(strange, words, said):
    status, text = strange(*words)
    assert status == 2 and said in text and text.count("\n") == 1


def test_the_page_can_be_followed_in_an_empty_folder(tmp_path):
    """The first adapter of the page, as a reader has it."""
    page = (ROOT / "docs/conformance.md").read_text()
    source = page.partition("```python\n")[2].partition("```")[0]
    (tmp_path / "my_module.py").write_text(source)
    done = subprocess.run(
        [sys.executable, "-m", "rglib", "conform", "my_module:Adapter"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    said = page.partition("```text\n")[2].partition("```")[0]
    assert done.stdout.strip().splitlines()[-2:] == said.strip().splitlines()[-2:]


def test_numbers_are_those_of_the_page(kit):
    """The kit's x0 of completion80 by a line of NumPy alone."""
    x0, x_hat = (kit.tensors[f"completion80/{name}"].numpy() for name in ("start", "crop"))
    assert -10 * np.log10(np.mean((x0 - x_hat) ** 2)) == pytest.approx(
        kit.tensors["completion80/psnr"].item(), rel=1e-5
    )


def test_a_kit_is_whole_or_not_there(tmp_path, full_disk):
    kit = make()
    with full_disk(2000), pytest.raises(OSError, match="cannot write"):
        write(kit, tmp_path / "kit.safetensors")
    assert not list(tmp_path.iterdir())
