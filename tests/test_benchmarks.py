"""That benchmarks compare what computes the same, and write what they say. Never a time."""

import io
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

import rglib
from benchmarks import __main__ as command
from benchmarks import convolutions, evaluation, memory, methods, plain, solvers, training, updates
from benchmarks.convolutions import flops
from benchmarks.subjects import Case, Setup, frozen, middle, network, shipped_size
from benchmarks.table import Row, as_markdown
from benchmarks.timing import Measured, Spread, Time, in_turns, rate, ratio, seconds
from rglib.core.algorithms import GradientDescent
from rglib.core.fixed_point import Adam
from rglib.core.metrics import psnr, ssim
from rglib.core.problems import PROBLEMS, observe_image, observe_test_image
from rglib.core.tensors import centre, to_tensor
from rglib.data.datasets import resolve
from rglib.data.images import read_listed

CPU = torch.device("cpu")
SIZE = shipped_size()
QUICK = Setup(device=CPU, rounds=2, least=1e-4, quick=True)


def relative_error(x, expected):
    return ((x - expected).norm() / expected.norm()).item()


# --- what is counted ------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "side", "batch"), [(4, 8, 1), (6, 10, 3)])
def test_flops_of_a_convolution_are_two_per_tap_channel_pair_and_pixel(width, side, batch):
    convolution = nn.Conv2d(width, width, 3, padding=1, bias=False)
    x = torch.rand(batch, width, side, side)
    with torch.no_grad():
        counted = convolutions.flops(lambda: convolution(x))
    assert counted == 2 * 9 * width**2 * batch * side**2


def test_flops_of_a_drunet_are_those_of_its_layers():
    side, blocks = 32, SIZE.blocks
    w1, w2, w3, w4 = SIZE.widths
    residual = sum(
        count * blocks * 2 * 9 * w**2 / 4**level
        for level, (w, count) in enumerate(((w1, 2), (w2, 2), (w3, 2), (w4, 1)))
    )
    between = 2 * sum(
        a * b / 4**level for level, (a, b) in enumerate(((w1, w2), (w2, w3), (w3, w4)))
    )
    macs = side**2 * (residual + between + 9 * (3 * w1 + w1 * 3))
    G = frozen("G", SIZE, "float32", CPU)
    assert convolutions.flops(convolutions.forward(G, torch.rand(1, 3, side, side))) == 2 * macs


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_all_convolutions_of_a_network_are_among_those_timed_alone(precision):
    G = frozen("G", SIZE, precision, CPU)
    x = torch.rand(1, 3, 32, 32)
    parts = convolutions.convolutions_of(G, x)
    layers = [m for m in G.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert sum(part.count for part in parts) == len(layers)
    alone = sum(part.count * convolutions.flops(part.work) for part in parts)
    assert alone == convolutions.flops(convolutions.forward(G, x))


def test_convolutions_of_a_trained_network_have_their_backward_passes():
    G, x = network("G", SIZE, "float32", CPU), torch.rand(1, 3, 16, 16)
    parts = convolutions.convolutions_of(G, x)
    alone = sum(part.count * convolutions.flops(part.work) for part in parts)
    assert alone == convolutions.flops(convolutions.training_step(G, x))


# --- what is timed side by side computes the same -------------------------------------------------


@torch.no_grad()
def test_the_plain_networks_are_ours():
    x = middle(32)
    G, P = (frozen(role, SIZE, "float32", CPU) for role in "GP")
    assert relative_error(plain.PlainDRUNet(G)(x), G(x)) < 1e-5
    assert relative_error(plain.PlainDRUNet(P)(x, 0.1), P(x, 0.1)) < 1e-5


def test_the_plain_loop_has_our_iterates_and_metrics():
    seen = observe_test_image(evaluation.PROBLEM, middle(32))
    G = frozen("G", SIZE, "float32", CPU)
    iterates = []
    method = GradientDescent(
        G, solver=Adam(lr=evaluation.LR), s=evaluation.S, iterations=evaluation.ITERATES
    )
    ours = method.restore(seen, iterates.append)
    theirs, curve = evaluation.plain_loop(plain.PlainDRUNet(G), seen, [plain.psnr, plain.ssim])()
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4)
    assert len(curve) == len(iterates) == evaluation.ITERATES
    expected = [[psnr(x, seen.x_hat).item(), ssim(x, seen.x_hat).item()] for x in iterates]
    torch.testing.assert_close(torch.tensor(curve), torch.tensor(expected), rtol=0, atol=1e-3)
    assert curve[-1][0] > curve[0][0] + 0.1  # it does restore


def test_our_timed_loop_is_that_of_an_evaluation():
    seen = observe_test_image(evaluation.PROBLEM, middle(32))
    G = frozen("G", SIZE, "float32", CPU)
    theirs, curve = evaluation.plain_loop(plain.PlainDRUNet(G), seen, [plain.psnr])()
    x, values = evaluation.own_loop(G, seen)()
    torch.testing.assert_close(x, theirs, rtol=0, atol=1e-4)
    assert values == pytest.approx([value for (value,) in curve], abs=1e-3)


@pytest.mark.parametrize("name", training.OBJECTIVES)
def test_deepinv_takes_the_same_training_step(name):
    pytest.importorskip("deepinv", exc_type=Exception)
    from benchmarks.with_deepinv import DeepinvStep

    objective = training.of_length(training.OBJECTIVES[name], 5)
    networks = {role: network(role, SIZE, "float32", CPU) for role in "PG"}
    x_hat = Case(2, 32).images()
    training.Step(objective, networks, x_hat)()
    ours = {
        f"{role}.{key}": parameter.grad
        for role, module in networks.items()
        for key, parameter in module.named_parameters()
        if parameter.grad is not None
    }
    simple = {role: plain.PlainDRUNet(module) for role, module in networks.items()}
    DeepinvStep(objective, simple, x_hat)()
    theirs = {
        f"{role}.{key.removeprefix('weights.').replace('/', '.')}": parameter.grad
        for role, module in simple.items()
        for key, parameter in module.named_parameters()
        if parameter.grad is not None
    }
    assert theirs.keys() == ours.keys()
    for key, gradient in ours.items():
        assert relative_error(theirs[key], gradient) < 1e-3, key


def test_a_step_takes_as_many_iterations_as_it_is_told():
    objective = training.of_length(training.OBJECTIVES["RERG"], 4)
    networks = {role: network(role, SIZE, "float32", CPU) for role in "PG"}
    statistics = training.Step(objective, networks, Case(2, 32).images())()
    assert statistics["f_iterations"] == statistics["g_iterations"] == 4


def test_a_course_counts_every_call_of_the_gradient():
    seen = observe_test_image("deblur_s1.6", middle(32))
    method = GradientDescent(
        frozen("G", SIZE, "float32", CPU), solver=Adam(lr=0.01), s=0.01, iterations=4
    )
    found = solvers.course(method, seen)
    assert found.calls == [0, 1, 2, 3]
    assert found.after(2) == found.psnr[2]
    assert found.reaching(found.psnr[0]) == 0
    assert found.reaching(1000.0) is None


# --- times ----------------------------------------------------------------------------------------


def test_ratios_are_taken_round_by_round():
    times = {"a": [Time(2, 1), Time(20, 1), Time(6, 1)], "b": [Time(1, 1), Time(10, 1), Time(2, 1)]}
    measured = Measured(times, ("clock",))
    found = measured.spread(ratio(seconds("a"), seconds("b")), "clock")
    assert found == Spread(median=2, q25=2, q75=2.5)
    assert measured.spread(rate("a", 4), "clock").median == pytest.approx(4 / 6)
    assert measured.fastest({"a": 1, "b": 1}) == "b"
    assert measured.fastest({"a": 10, "b": 1}) == "a"


def test_works_are_called_in_turns():
    called = []
    works = {name: lambda name=name: called.append(name) for name in "ab"}
    measured = in_turns(works, rounds=3, least=0.0, device=CPU)
    assert {name: len(times) for name, times in measured.times.items()} == {"a": 3, "b": 3}
    assert "".join(called) == "ab" * (1 + 1 + 3)  # to warm up, to see how long it takes, rounds


# --- updates --------------------------------------------------------------------------------------


QUICK = Setup(device=CPU, rounds=1, least=0.0, quick=True)


def test_the_work_of_updates_is_that_of_their_passes(tmp_path):
    run = updates.trainer("deqgd", QUICK, tmp_path)
    passes = {True: 0, False: 0}  # of one batch each, with and without gradients

    def count(network, inputs, output):
        passes[torch.is_grad_enabled()] += 1

    network = run.networks["G"]
    hook = network.register_forward_hook(count)
    counted = flops(updates.Updates(run, 4))
    hook.remove()
    forward = flops(lambda: network(run.batch().x_hat))
    assert passes[True] == 4 and passes[False] >= 4
    expected = (passes[False] + 3 * passes[True]) * forward
    assert counted == pytest.approx(expected, rel=0.02)  # no gradient of the images is taken


def test_updates_are_shares_of_a_matrix_product_timed_in_turns():
    rows = list(updates.measure(QUICK))
    of = {row.case.split(",")[0] for row in rows}
    assert of == {"forward", updates.PROBLEM, *updates.OBJECTIVES}
    assert {row.unit for row in rows} == {"seconds", "ratio"}
    assert all(row.value > 0 for row in rows)
    assert not any("compiled" in row.quantity for row in rows)  # on a GPU alone


# --- the command ----------------------------------------------------------------------------------


def test_the_command_writes_the_sections_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    command.main(
        ["--quick", "--only", "convolutions,data", "--device", "cpu", "--out", str(tmp_path)]
    )
    table = pd.read_csv(tmp_path / "benchmarks.csv", keep_default_na=False)
    assert list(table.columns) == list(Row.__annotations__)
    assert set(table.section) == {"convolutions", "data"}
    assert (table.q25.astype(float) <= table.value.astype(float)).all()
    assert (table.value.astype(float) <= table.q75.astype(float)).all()
    assert not table.drop(columns=["value", "q25", "q75"]).duplicated().any()
    page = (tmp_path / "benchmarks.md").read_text()
    assert "## convolutions" in page and "machine:" in page and torch.__version__ in page


def test_an_unknown_section_is_refused_with_those_there_are(capsys):
    with pytest.raises(SystemExit):
        command.main(["--only", "evaluation,speed"])
    assert "'speed'; there are convolutions" in capsys.readouterr().err


def test_what_was_not_measured_is_said():
    page = as_markdown([Row("training", "deepinv / rglib", "RG1", note=training.NOT_INSTALLED)], {})
    assert "not measured: deepinv is not installed" in page


def test_which_method_for_what_has_the_psnr_that_a_restoration_has(tmp_path, capsys):
    methods.main(["--method", "gauss", "--side", "48"])
    table = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert tuple(table) == methods.COLUMNS
    assert len(table) == len(methods.KINDS) * methods.PHOTOGRAPHS
    found = resolve(methods.DATASET, mirrors=[], data_dir=tmp_path, offline=True)
    pixels = centre(to_tensor(read_listed(found.images[1])), 48)
    seen = observe_image(PROBLEMS["sr2_bicubic_n0.01"], pixels)
    x = rglib.load("gauss").restore(seen.y, "sr2_bicubic_n0.01")
    row = table[(table.problem_id == "sr2_bicubic_n0.01") & (table.image == found.images[1].name)]
    assert row.psnr_db.item() == pytest.approx(psnr(x, seen.x_hat).item(), abs=1e-3)
    assert (table.seconds > 0).all() and (table.memory_mb > 50).all()


def test_which_method_for_what_marks_the_best_of_each_problem():
    rows = [
        (method, problem, image, level + shift, seconds, memory)
        for method, level, seconds, memory in (("mtdeq", 30.0, 2.0, 400), ("rerg", 29.0, 20.0, 600))
        for problem, shift in (("completion80", 0.0), ("deblur_s1.6", 1.0))
        for image in ("one", "two")
    ]
    table = pd.DataFrame(rows, columns=methods.COLUMNS)
    table.loc[table.method + table.problem_id == "rergdeblur_s1.6", "psnr_db"] = 31.5
    labels = {"mtdeq": "MTDEQ", "rerg": "RERG"}
    lines = methods.markdown(table, labels=labels, said="S.").splitlines()
    cells = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line[:3] != "|:-"
    ]
    assert ["MTDEQ", "**30.00**", "31.00", "2.0", "400"] in cells
    problems = ["completion, 80 % missing", "deblurring, blur 1.6 px"]
    assert ["PSNR (dB)", *problems, "seconds", "memory (MB)"] in cells
    assert ["RERG", "29.00", "**31.50**", "20.0", "600"] in cells


@pytest.mark.slow
def test_peak_memory_is_of_the_process_itself():
    """And not of the one that started it: the array here is in no row."""
    held = torch.ones(300_000_000, dtype=torch.uint8)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", "evaluation", "2", "--device", "cpu"],
        cwd=Path(memory.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    small = float(done.stdout)
    assert held.sum() > 0 and 50 < small < 2000
