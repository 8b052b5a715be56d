import errno
import io
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import killing
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from rglib.core.fixed_point import Adam, SemiImplicit, StoppingRule
from rglib.core.kept import Keep
from rglib.core.networks import build
from rglib.core.problems import SeededStep
from rglib.training import trainer as training
from rglib.training.checkpoint import Checkpoints
from rglib.training.objectives.denoising import Denoising
from rglib.training.objectives.equilibrium import Equilibrium
from rglib.training.objectives.losses import Batch, Losses
from rglib.training.objectives.pnpreg import PnPReG
from rglib.training.objectives.score_start import ScoreStart
from rglib.training.optimisers import step_if
from rglib.training.trainer import Cosine, Interrupted, Recipe, StepDecay, Trainer, TrainingError

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")
WIDTHS = (4, 16, 16, 8)  # some for Muon, which takes 16 channels and more
RERG = Equilibrium(
    link=0.1, forward_backward=1.0, gradient_descent=0.1, stop=StoppingRule(max_iterations=3)
)
DENOISER = Recipe(
    objective=Denoising(),
    steps=12,
    lr=1e-3,
    schedule=Cosine(warmup=3),
    ema=0.9,
    log_every=3,
    checkpoint_seconds=0,  # after every step
)


class Noise:
    """Crops of noise, and something that happens before a step."""

    def __init__(self, before=lambda step: None):
        self.before = before

    def crops(self, step):
        self.before(step)
        return np.random.default_rng(step).integers(0, 256, (2, 3, 32, 32), np.uint8)


@pytest.fixture
def make(tiny, tmp_path):
    """A function that makes a Trainer with networks of its own."""

    def trainer(
        recipe=DENOISER, crops=None, *, folder="run", seed=0, monitor=None, description=None
    ):
        return Trainer(
            recipe,
            {role: tiny(role, seed=seed, widths=WIDTHS) for role in recipe.objective.learns},
            crops or Noise(),
            folder=tmp_path / folder,
            fingerprint="test",
            device=CPU,
            monitor=monitor,
            description=description,
        )

    return trainer


def assert_same_bits(ours, expected):
    assert ours.keys() == expected.keys()
    for role, weights in expected.items():
        for name, tensor in weights.items():
            assert torch.equal(ours[role][name], tensor), f"{role} {name}"


def without_speed(history):
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in history]


# --- schedules ------------------------------------------------------------------------------------


def test_step_decay_is_the_papers():
    halved = StepDecay(every=100_000, gamma=0.5)
    steps = (0, 99_999, 100_000, 799_999)
    assert [halved.factor(step, 800_000) for step in steps] == [1, 1, 0.5, 0.5**7]
    quartered = StepDecay(every=15 * 525, gamma=0.25)
    assert quartered.factor(150 * 525 - 1, 150 * 525) == 0.25**9


def test_cosine_warms_up_and_falls_to_zero():
    factors = [Cosine(warmup=10).factor(step, 1000) for step in range(1000)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == pytest.approx(1, abs=1e-3)
    assert factors[500] == pytest.approx(0.5)
    assert factors[999] == pytest.approx(0, abs=1e-5)
    assert all(a > b for a, b in pairwise(factors[9:]))
    assert Cosine().factor(0, 10) == 1


# --- resuming -------------------------------------------------------------------------------------


class PowerCut(BaseException):
    pass


def cut_at(step):
    def before(now):
        if now == step:
            raise PowerCut

    return Noise(before)


KEEPING = replace(
    DENOISER,
    objective=replace(RERG, solver=SemiImplicit(), backward_map="semi_implicit"),
    keep=Keep(batches=3, visits=2, first_steps=3, steps=1),
)


def cut(run, step):
    """The trainer, but the power goes before a step."""
    batch = run.batch

    def until_then():
        if run.step == step:
            raise PowerCut
        return batch()

    run.batch = until_then
    return run


@pytest.mark.parametrize(
    "recipe",
    [
        DENOISER,
        replace(DENOISER, muon=0.01),
        replace(DENOISER, objective=RERG),
        KEEPING,
        replace(KEEPING, objective=replace(RERG, solver=Adam(lr=0.05))),
    ],
    ids=["adam", "muon", "at fixed points", "kept", "kept, adam"],
)
@pytest.mark.parametrize("cuts", [[1], [5], [4, 11]])
def test_an_interrupted_training_ends_with_the_same_bits(recipe, cuts, make):
    whole = make(recipe, folder="whole")
    expected = whole.run()
    for i, step in enumerate(cuts):
        with pytest.raises(PowerCut):
            cut(make(recipe, seed=i), step).run()
    last = make(recipe, seed=99)  # what it starts with is forgotten
    assert_same_bits(last.run(), expected)
    assert without_speed(last.history) == without_speed(whole.history)


def test_a_cut_between_checkpoints_goes_back_to_the_last_one(make):
    rare = replace(DENOISER, checkpoint_seconds=1e9)
    expected = make(folder="whole").run()
    with pytest.raises(PowerCut):
        make(rare, cut_at(5)).run()  # before any checkpoint
    assert_same_bits(make(rare).run(), expected)


def test_a_finished_training_is_not_trained_again(make):
    expected = make().run()
    again = make(crops=cut_at(0), seed=99)
    assert_same_bits(again.run(), expected)
    assert again.step == 12


def test_sigterm_writes_a_checkpoint_from_which_the_same_bits_follow(make):
    handler = signal.getsignal(signal.SIGTERM)
    rare = replace(DENOISER, checkpoint_seconds=1e9)

    def terminate(step):
        if step == 6:
            signal.raise_signal(signal.SIGTERM)

    stopped = make(rare, Noise(terminate))
    with pytest.raises(Interrupted, match="stopped at step 7"):
        stopped.run()
    assert signal.getsignal(signal.SIGTERM) is handler
    assert stopped.checkpoints.load()["step"] == 7
    steps = []
    result = make(rare, Noise(steps.append), seed=99).run()
    assert steps == [7, 8, 9, 10, 11]
    assert_same_bits(result, make(folder="whole").run())


def train_in(folder):
    torch.manual_seed(0)
    networks = {"P": build("P", widths=(4, 6, 8, 8), blocks=1)}
    recipe = replace(DENOISER, steps=300)
    run = Trainer(recipe, networks, Noise(), folder=folder, fingerprint="test", device=CPU)
    torch.save(run.run(), folder / "weights.pt")


def a_whole_state_is_there(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a damaged checkpoint is one
        state = Checkpoints(folder / "checkpoints", "test").load()
    with (folder.parent / "steps").open("a") as steps:
        steps.write(f"{state['step'] if state else 0}\n")


def newest_checkpoint(folder):
    newest = folder / "checkpoints" / "newest.ckpt"
    try:
        return newest.stat().st_ino
    except FileNotFoundError:  # not yet, or between two renames
        return None


@pytest.mark.slow
def test_a_training_killed_at_any_moment_ends_with_the_same_bits(tmp_path):
    killing.at_random_moments(
        train_in,
        tmp_path,
        kills=20,
        share=1 / 30,
        check=a_whole_state_is_there,
        progress=newest_checkpoint,
    )
    whole, killed = (
        torch.load(tmp_path / name / "weights.pt", weights_only=True)
        for name in ("whole", "killed")
    )
    assert_same_bits(killed, whole)
    steps = [int(step) for step in (tmp_path / "steps").read_text().split()]
    assert steps == sorted(steps) and len(set(steps)) > 5 and steps[-1] == 300


def test_two_trainings_in_one_folder_are_refused(make):
    refused = []

    def train_too(step):
        if step == 3:
            with pytest.raises(TrainingError, match="is being trained by process"):
                make(seed=1).run()
            refused.append(step)

    make(crops=Noise(train_too)).run()
    assert refused == [3]
    make(seed=1).run()  # the lock was given back


HOLDS_THE_LOCK = """
import sys, time
from pathlib import Path
from rglib.training.trainer import _lock
with _lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_the_lock_names_another_process_and_falls_when_that_is_killed(make, tmp_path):
    (tmp_path / "run").mkdir()
    command = [sys.executable, "-c", HOLDS_THE_LOCK, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(TrainingError, match=f"run is being trained by process {process.pid} "):
            make().run()
        process.kill()
    make().run()


def holds(folder, held, done):
    """Train in a folder until `done`."""
    with training._lock(folder):
        held.set()
        done.wait()


@pytest.mark.parametrize("remedy", ["wait", "stop"])
def test_a_folder_in_use_is_free_after_each_remedy_that_is_named(remedy, make, tmp_path):
    (tmp_path / "run").mkdir()
    fork = multiprocessing.get_context("fork")
    held, done = fork.Event(), fork.Event()
    process = fork.Process(target=holds, args=(tmp_path / "run", held, done), daemon=True)
    process.start()
    assert held.wait(60)
    with pytest.raises(TrainingError) as caught:
        make().run()
    found = re.findall(r"by process (\d+) on \S+; (wait) or (stop) it$", str(caught.value))
    (pid, *remedies) = found[0]
    assert remedy in remedies
    done.set() if remedy == "wait" else os.kill(int(pid), signal.SIGTERM)
    process.join(60)
    make().run()


def test_a_clock_that_goes_backwards_changes_nothing(make, monkeypatch):
    expected = make(folder="whole").run()
    now = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    seldom = replace(DENOISER, checkpoint_seconds=1e9)
    with pytest.raises(PowerCut):
        make(seldom, cut_at(9)).run()
    assert make(seldom).checkpoints.load() is None  # no time has passed
    with pytest.raises(PowerCut):
        make(crops=cut_at(5)).run()
    assert make().checkpoints.load()["step"] == 5
    assert_same_bits(make().run(), expected)


def test_a_disk_that_is_full_names_the_file_and_costs_no_more_than_a_checkpoint(make, full_disk):
    """A checkpoint of this network has some 60 KB."""
    expected = make(folder="whole").run()
    with pytest.raises(PowerCut):
        make(crops=cut_at(5)).run()
    with full_disk(40_000), pytest.raises(OSError, match=r"checkpoints/newest\.ckpt") as caught:
        make().run()
    assert caught.value.errno == errno.EFBIG
    assert make().checkpoints.load()["step"] == 5
    assert_same_bits(make().run(), expected)


# --- updates --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sometimes:
    """Draws the weights towards zero, but has no finite loss (or gradient) in some steps."""

    nan_steps: frozenset = frozenset()
    broken: str = "loss"
    learns: tuple[str, ...] = ("P",)
    uses: tuple[str, ...] = ()

    def __call__(self, networks, batch):
        loss = sum(p.square().sum() for p in networks["P"].parameters())
        if batch.step in self.nan_steps:
            weight = next(iter(networks["P"].parameters()))
            # the square root of 0 has an infinite slope
            loss = loss * torch.nan if self.broken == "loss" else loss + (0 * weight).sum().sqrt()
        return Losses({"size": loss})


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_non_finite_update_is_skipped_and_counted(broken, make):
    objective = Sometimes(frozenset({2, 3}), broken)
    run = make(replace(DENOISER, objective=objective, ema=None, log_every=1, clip=1.0))
    seen = []
    for _ in range(6):
        run.update(Batch(torch.zeros(1, 3, 8, 8), run.step, 0))
        seen.append((run.parameters[0].detach().clone(), run.skipped_in_a_row))
    assert [skipped for _, skipped in seen] == [0, 0, 1, 2, 0, 0]
    moved = [not torch.equal(a, b) for (a, _), (b, _) in pairwise(seen)]
    assert moved == [True, False, False, True, True]
    assert all(p.isfinite().all() for p in run.parameters)


def test_a_skipped_update_changes_nothing_that_adam_remembers(make):
    recipe = replace(DENOISER, ema=None, schedule=StepDecay(every=100, gamma=1.0))
    results = []
    for nan_steps, steps in (frozenset(), 5), (frozenset({1, 3, 4}), 8):
        run = make(replace(recipe, objective=Sometimes(nan_steps)))
        for _ in range(steps):
            run.update(Batch(torch.zeros(1, 3, 8, 8), run.step, 0))
        results.append(run.result())
    assert_same_bits(*results)


def test_a_training_without_finite_updates_gives_up_and_says_where(make):
    objective = Sometimes(frozenset(range(3, 99)))
    run = make(replace(DENOISER, objective=objective, steps=99))
    with pytest.raises(TrainingError, match="20 non-finite updates in a row at step 22") as caught:
        run.run()
    assert "Try a smaller lr or clip" in str(caught.value)
    assert str(run.checkpoints.folder) in str(caught.value)
    assert all(p.isfinite().all() for p in run.parameters)


def test_the_good_checkpoint_that_it_names_is_there_even_before_the_first(make):
    seldom = replace(DENOISER, objective=Sometimes(frozenset(range(3, 99))), steps=99)
    run = make(replace(seldom, checkpoint_seconds=1e9))
    with pytest.raises(TrainingError):
        run.run()
    state = run.checkpoints.load()
    assert state["step"] == 22 and state["optimisers"]["adam"]["state"][0]["step"] == 3
    assert all(tensor.isfinite().all() for tensor in state["networks"]["P"].values())


@dataclass(frozen=True)
class Ledge:
    """Pushes the weights to and fro, once much harder; beyond 2 there is no finite loss."""

    learns: tuple[str, ...] = ("P",)
    uses: tuple[str, ...] = ()

    def __call__(self, networks, batch):
        push = 1e4 if batch.step == 6 else (-1) ** batch.step
        pushed = list(networks["P"].parameters())
        beyond = any(p.abs().max() > 2 for p in pushed)
        return Losses({"push": push * sum(p.sum() for p in pushed) * (torch.nan if beyond else 1)})


LOST = replace(
    DENOISER, objective=Ledge(), steps=30, lr=1.0, clip=1e9, ema=None, checkpoint_seconds=1e9
)


@pytest.mark.parametrize("number", [0, 1])
def test_a_lost_training_reaches_its_end_with_each_smaller_number_that_is_named(number, make):
    with pytest.raises(TrainingError) as caught:
        make(LOST).run()
    named = re.findall(r"Try a smaller (\w+) or (\w+)\.$", str(caught.value))[0]
    stages = yaml.safe_load((ROOT / "config.yaml").read_text())["stages"]
    assert all(set(named) <= stage["optimiser"].keys() for stage in stages.values())
    smaller = {"lr": 0.01, "clip": 1.0}[named[number]]
    again = make(replace(LOST, **{named[number]: smaller}))
    again.checkpoints = replace(again.checkpoints, fingerprint="smaller")  # as a stage's would be
    with pytest.warns(UserWarning, match="of another configuration, not resumed"):
        again.run()
    assert again.step == 30 and again.skipped_in_a_row == 0


class Waits(TorchDispatchMode):
    """Counts what a GPU would be waited for: numbers read off a tensor, and copies to the host."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            self.seen.append(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "objective",
    [
        Denoising(),
        PnPReG(probe_noise=0.1),
        ScoreStart(degraded=0.5),
        replace(RERG, solver=SemiImplicit(), backward_map="semi_implicit"),
    ],
    ids=lambda objective: type(objective).__name__,
)
def test_an_update_that_is_not_logged_reads_no_number_off_the_device(objective, make, monkeypatch):
    """Adam's own count of steps apart, which is on the CPU there and on the GPU elsewhere."""
    keep = Keep(batches=3, visits=2, first_steps=3, steps=1)
    kept = keep if isinstance(objective, Equilibrium) else None
    run = make(replace(DENOISER, objective=objective, steps=99, log_every=20, keep=kept))
    monkeypatch.setitem(training.LOOK_EVERY, "cpu", 20)
    monkeypatch.setattr(training, "step_if", lambda finite, *_, **__: None)
    # the step's own draws are made on the CPU wherever the images are
    monkeypatch.setattr(SeededStep, "uniform", on_the_host(SeededStep.uniform))
    for step in range(13):
        batch = run.batch()
        if step == 0:
            run.update(batch)
            continue
        with Waits() as waits:
            run.update(batch)
        assert waits.seen == []


def on_the_host(draw):
    """Draws of a step as an array that is no tensor to the mode, but has its methods."""

    def drawn(self, shape):
        numbers = draw(self, shape)
        return numbers if len(shape) == 4 else numbers.numpy()

    return drawn


@pytest.mark.parametrize("recipe", [DENOISER, replace(DENOISER, muon=0.01)], ids=["adam", "muon"])
def test_deciding_on_the_device_gives_the_same_bits_as_asking(recipe, make, monkeypatch):
    objective = Sometimes(frozenset({0, 1, 4}), "gradient")
    ends = []
    for ask in (True, False):
        run = make(replace(recipe, objective=objective), folder=f"{ask}")

        def decided(*arguments, ask=ask, **_):
            step_if(*arguments, ask=ask)

        monkeypatch.setattr(training, "step_if", decided)
        for _ in range(8):
            run.update(Batch(torch.zeros(1, 3, 8, 8), run.step, 0))
        ends.append((run.result(), run._state()["optimisers"]))
    assert_same_bits(ends[1][0], ends[0][0])
    for name, state in ends[0][1].items():
        for i, memory in state["state"].items():
            for key, tensor in memory.items():
                assert torch.equal(tensor, ends[1][1][name]["state"][i][key]), (name, i, key)


# --- minutes, deadlines, other machines -----------------------------------------------------------

A_MINUTE = replace(DENOISER, steps=None, minutes=1.0, checkpoint_seconds=1e9, log_every=1)


@pytest.fixture
def clock(monkeypatch):
    """A clock that crops take five seconds of."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def tick(step):
        now[0] += 5

    return Noise(tick)


def test_a_budget_in_minutes_ends_on_time_and_the_rate_follows_it(make, clock):
    run = make(A_MINUTE, clock)
    run.run()
    assert (run.step, run.seconds) == (12, 60)
    rates = [row["lr"] / 1e-3 for row in run.history]
    expected = [min(1, (i + 1) / 3) * 0.5 * (1 + np.cos(np.pi * i / 12)) for i in range(12)]
    np.testing.assert_allclose(rates, expected)


def test_minutes_are_those_of_all_runs_together(make, clock):
    first = make(A_MINUTE, clock)
    first.deadline = 20.0
    with pytest.raises(Interrupted, match="stopped at step 4"):
        first.run()
    second = make(A_MINUTE, clock)
    second.run()
    assert (second.step, second.seconds) == (12, 60)
    assert [row["step"] for row in second.history] == list(range(12))


def test_a_stage_has_either_steps_or_minutes():
    for budget in {"steps": 3, "minutes": 1.0}, {"steps": None, "minutes": None}:
        with pytest.raises(ValueError, match="either steps or minutes"):
            replace(DENOISER, **budget)


def test_weights_alone_are_taken_up_with_a_fresh_warm_up(make):
    first = make(replace(DENOISER, steps=12), cut_at(6), folder="first")
    with pytest.raises(PowerCut):
        first.run()
    seen = []
    second = make(replace(DENOISER, log_every=1), Noise(seen.append), seed=9)
    second.take_up(first.result(), step=6, seconds=60.0, history=first.history)
    assert_same_bits(second.result(), first.result())
    second.run()
    assert seen == list(range(6, 12)) and second.seconds > 60
    assert second.history[: len(first.history)] == first.history
    rates = [row["lr"] / 1e-3 for row in second.history if row["step"] >= 6]
    cosine = [0.5 * (1 + np.cos(np.pi * step / 12)) for step in range(6, 12)]
    np.testing.assert_allclose(rates[-6:], [1 / 3, 2 / 3, 1, 1, 1, 1] * np.array(cosine))


def test_a_checkpoint_comes_before_weights_that_are_taken_up(make):
    with pytest.raises(PowerCut):
        make(crops=cut_at(5)).run()
    again = make(seed=9)
    again.take_up(make(seed=3).result(), step=2, seconds=1.0)
    assert_same_bits(again.run(), make(folder="whole").run())


def test_each_checkpoint_is_told(make):
    run, told = make(), []
    run.saved = lambda: told.append(run.checkpoints.load()["step"])
    run.run()
    assert told == [*range(1, 13), 12]


def test_updates_are_adams_with_the_scheduled_rate_and_clipped_gradients(make, tiny):
    recipe = replace(DENOISER, objective=Sometimes(), ema=None, clip=0.1)
    run, expected = make(recipe), tiny("P", widths=WIDTHS)
    adam = torch.optim.Adam(expected.parameters())
    for step in range(5):
        run.update(Batch(torch.zeros(1, 3, 8, 8), run.step, 0))
        adam.zero_grad()
        sum(p.square().sum() for p in expected.parameters()).backward()
        norm = torch.cat([p.grad.flatten() for p in expected.parameters()]).norm()
        for p in expected.parameters():
            p.grad *= 0.1 / norm
        adam.param_groups[0]["lr"] = 1e-3 * Cosine(warmup=3).factor(step, 12)
        adam.step()
    for ours, theirs in zip(run.parameters, expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_result_is_the_average_of_the_weights_where_the_stage_says_so(make):
    run = make(replace(DENOISER, ema=0.5))
    average = [p.detach().clone() for p in run.parameters]
    for step in range(8):
        x_hat = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(step))
        run.update(Batch(x_hat, step, 0))
        decay = min(0.5, (1 + step) / (10 + step))
        pairs = zip(average, run.parameters, strict=True)
        average = [decay * a + (1 - decay) * p.detach() for a, p in pairs]
    last = [p.detach().clone() for p in run.parameters]
    result = run.result()["P"].values()
    for ours, expected, weights in zip(result, average, last, strict=True):
        torch.testing.assert_close(ours, expected)
        assert not torch.equal(ours, weights)


def test_networks_that_are_only_used_stay_as_they_are(tiny, tmp_path):
    @dataclass(frozen=True)
    class FromP:
        learns = ("G",)
        uses = ("P",)

        def __call__(self, networks, batch):
            target = networks["P"](batch.x_hat, 0.1)
            return Losses({"distance": (networks["G"](batch.x_hat) - target).square().mean()})

    networks = {"P": tiny("P"), "G": tiny("G")}
    before = {role: [p.clone() for p in net.parameters()] for role, net in networks.items()}
    recipe = replace(DENOISER, objective=FromP(), steps=3, ema=None)
    run = Trainer(recipe, networks, Noise(), folder=tmp_path, fingerprint="", device=CPU)
    assert run.run().keys() == {"G"}
    assert all(map(torch.equal, before["P"], networks["P"].parameters()))
    assert not any(map(torch.equal, before["G"], networks["G"].parameters()))


@pytest.mark.parametrize("objective", [Denoising(), RERG])
def test_training_on_one_batch_lowers_its_loss(objective, make):
    recipe = replace(DENOISER, objective=objective, schedule=StepDecay(every=100, gamma=1.0))
    run = make(replace(recipe, lr=2e-3, ema=None))
    batch = Batch(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)), 0, 0)

    def loss():
        return run.recipe.objective(run.networks, batch).total.item()

    before = loss()
    for _ in range(25):
        run.step = 0
        run.update(batch)
    assert loss() < 0.9 * before


# --- the history ----------------------------------------------------------------------------------


def test_the_history_has_a_row_every_few_steps_and_at_the_end(make, tmp_path):
    make(replace(DENOISER, steps=8, log_every=3)).run()
    table = pd.read_csv(tmp_path / "run" / "history.csv")
    assert table["step"].tolist() == [0, 3, 6, 7]
    factors = [Cosine(warmup=3).factor(step, 8) for step in table["step"]]
    np.testing.assert_allclose(table["lr"], 1e-3 * np.array(factors))
    assert (table["images_per_second"] > 0).all()


def test_a_row_has_each_loss_its_gradient_and_how_the_fixed_points_ended(make):
    run = make(replace(DENOISER, objective=RERG, steps=3, log_every=1))
    run.run()
    row = run.history[-1]
    terms = ("FB", "link", "GD")
    assert row["loss"] == pytest.approx(sum(row[f"loss_{term}"] for term in terms))
    assert all(row[f"gradient_{term}"] > 0 for term in terms)
    for fixed_point in ("f", "g"):
        ends = ("converged", "out_of_steps", "diverged", "non_finite")
        assert sum(row[f"{fixed_point}_{end}"] for end in ends) == pytest.approx(1)
        assert 1 <= row[f"{fixed_point}_iterations"] <= 3
    assert row["skipped_in_a_row"] == 0


def test_the_gradient_norm_of_a_term_is_over_all_networks(make):
    run = make(replace(DENOISER, objective=Sometimes(), log_every=1))
    size = torch.cat([p.detach().flatten() for p in run.parameters]).norm().item()
    row = run.update(Batch(torch.zeros(1, 3, 8, 8), run.step, 0))
    assert row["loss_size"] == pytest.approx(size**2)
    assert row["gradient_size"] == pytest.approx(2 * size)


def test_the_monitor_is_asked_at_its_own_pace(make):
    def monitor(networks):
        assert isinstance(networks["P"], nn.Module)
        return {"health": 1.0}

    run = make(replace(DENOISER, log_every=1, monitor_every=4), monitor=monitor)
    run.run()
    assert [row["step"] for row in run.history if "health" in row] == [0, 4, 8]


# --- TensorBoard and progress ---------------------------------------------------------------------


def with_health(networks):
    """A number and a picture: the average weight, and the monitor's own noise."""
    average = torch.cat([p.flatten() for p in networks["P"].parameters()]).mean().item()
    return {"health": average, "restored": torch.linspace(0, 1, 3 * 8 * 16).view(3, 8, 16)}


@pytest.fixture
def events(tmp_path):
    """A function that reads what TensorBoard shows of a training."""

    def read(folder="run"):
        everything = {"scalars": 0, "images": 0, "tensors": 0}
        return EventAccumulator(str(tmp_path / folder / "tensorboard"), everything).Reload()

    return read


WATCHED = replace(DENOISER, log_every=2, monitor_every=4)
DESCRIPTION = {"stage": "denoiser", "optimiser": {"lr": 1e-3}}


def test_tensorboard_has_every_number_of_the_history(make, events):
    run = make(WATCHED, monitor=with_health)
    run.run()
    seen = events()
    names = {name for row in run.history for name in row}
    assert set(seen.Tags()["scalars"]) == names and "health" in names
    for name in names:
        ours = [(row["step"], row[name]) for row in run.history if name in row]
        shown = [(event.step, event.value) for event in seen.Scalars(name)]
        np.testing.assert_allclose(shown, ours, rtol=1e-6)


def test_tensorboard_tells_what_was_trained_once(make, events):
    with pytest.raises(PowerCut):
        make(crops=cut_at(5), description=DESCRIPTION).run()
    make(description=DESCRIPTION).run()
    (event,) = events().Tensors("description/text_summary")
    (text,) = event.tensor_proto.string_val
    first, *middle, last = text.decode().splitlines()
    assert (event.step, first, last) == (0, "```json", "```")
    assert json.loads("\n".join(middle)) == DESCRIPTION


def test_tensorboard_shows_the_monitors_pictures_and_the_history_does_not(make, events):
    run = make(WATCHED, monitor=with_health)
    run.run()
    shown = events().Images("restored")
    assert [event.step for event in shown] == [0, 4, 8]
    pixels = np.asarray(Image.open(io.BytesIO(shown[0].encoded_image_string)))
    picture = with_health(run.networks)["restored"].permute(1, 2, 0).numpy()
    assert np.abs(pixels / 255 - picture).max() <= 1 / 255
    assert all("restored" not in row for row in run.history)


def test_what_is_told_and_shown_moves_no_bit(make, terminal, told):
    expected = make(folder="quiet").run()
    with terminal() as seen:
        watched = make(WATCHED, monitor=with_health, description=DESCRIPTION, folder="watched")
        assert_same_bits(watched.run(), expected)
        assert "watched: 100%" in seen()
    loss = f"loss {watched.history[-1]['loss']:.4g}"
    assert told()[-1].startswith(f"watched: step 12 of 12, {loss}, 00:00 left")


def test_progress_goes_on_where_the_training_does(make, told):
    with pytest.raises(PowerCut):
        make(crops=cut_at(5)).run()
    before = len(told())
    make().run()
    steps = [int(re.match(r"run: step (\d+) of 12", line)[1]) for line in told()]
    assert steps[:before] == [1, 2, 3, 4, 5] and steps[before:] == [6, 7, 8, 9, 10, 11, 12]
