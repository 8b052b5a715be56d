"""Several processes train what one would: by gloo on the CPU, here of two processes."""

import json
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from test_check import SCHEMA, edited, mistakes
from test_stage import files, settings_of, store  # noqa: F401 (fixtures)
from test_trainer import Noise, PowerCut, Sometimes, cut_at
from test_workflow import LIMIT, Project, wait_for
from torch import multiprocessing

from rglib.core.fixed_point import SemiImplicit, StoppingRule
from rglib.core.kept import Keep
from rglib.core.networks import build, load_weights
from rglib.core.problems import SeededStep
from rglib.plan.check import check
from rglib.records.provenance import configuration_hash
from rglib.training import processes
from rglib.training import stage as stages
from rglib.training.launch import Job, torchrun
from rglib.training.objectives.denoising import Denoising
from rglib.training.objectives.equilibrium import Equilibrium
from rglib.training.objectives.losses import Batch, StepRandomness
from rglib.training.objectives.pnpreg import PnPReG
from rglib.training.objectives.residual_start import ResidualStart
from rglib.training.processes import ALONE, WHOLE, Group, Share
from rglib.training.trainer import Cosine, Interrupted, Recipe, Trainer

CPU = torch.device("cpu")
RECIPE = Recipe(
    objective=Denoising(),
    steps=6,
    lr=1e-3,
    schedule=Cosine(warmup=3),
    clip=0.1,
    ema=0.9,
    log_every=1,
    checkpoint_seconds=0,  # after every step
)
OBJECTIVES = {
    "denoising": Denoising(),
    "residual start": ResidualStart(),
    "pnpreg": PnPReG(probe_noise=4 / 255),
    "rerg": Equilibrium(
        link=0.1, forward_backward=1.0, gradient_descent=0.1, stop=StoppingRule(max_iterations=4)
    ),
    "kept": Equilibrium(
        link=0.1,
        forward_backward=1.0,
        gradient_descent=0.1,
        solver=SemiImplicit(),
        backward_map="semi_implicit",
        loss="log_mean_square",
    ),
}
KEEP = Keep(batches=2, visits=2, first_steps=3, steps=1)


class Batches(Noise):
    """Crops of noise, four of them."""

    def crops(self, step):
        return np.concatenate([super().crops(step), super().crops(step + 1000)])


class HalfBlack:
    """Crops whose first half is black, and at its fixed point long before the other half."""

    def crops(self, step):
        batch = Batches().crops(step)
        batch[:2] = 0
        return batch


def trainer(folder, recipe=RECIPE, crops=None, *, processes=ALONE):
    roles = {*recipe.objective.learns, *recipe.objective.uses}
    torch.manual_seed(processes.share.index)  # the first one's networks count
    networks = {role: build(role, widths=(4, 6, 8, 8), blocks=1) for role in sorted(roles)}
    return Trainer(
        recipe,
        networks,
        crops or Batches(),
        folder=folder,
        fingerprint="test",
        device=CPU,
        processes=processes,
    )


def together(work, folder, *, processes=2):
    """Call work(folder, group) in processes that are joined; what each returns, or its error."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.spawn(_joined, (processes, port, work, folder), processes, join=False)
    limit = time.monotonic() + LIMIT
    while not context.join(timeout=5):
        assert time.monotonic() < limit, "they wait for one another"
    saved = [folder / f"rank{rank}.pt" for rank in range(processes)]
    return [torch.load(path, weights_only=False) for path in saved]


def _joined(rank, count, port, work, folder):
    torch.set_num_threads(1)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "LOCAL_RANK": rank}
    os.environ |= {key: str(value) for key, value in (place | {"WORLD_SIZE": count}).items()}
    torch.save(work(folder, Group.join(CPU)), folder / f"rank{rank}.pt")


def assert_close(ours, expected, *, atol):
    assert ours.keys() == expected.keys()
    for role, weights in expected.items():
        for name, tensor in weights.items():
            torch.testing.assert_close(ours[role][name], tensor, atol=atol, rtol=0)


def assert_same_bits(ours, expected):
    assert_close(ours, expected, atol=0)


# --- the same numbers -----------------------------------------------------------------------------


def train_all(folder, group=ALONE):
    """The result and history of each objective, beginning with used networks alike."""
    results = {}
    for name, objective in OBJECTIVES.items():
        keep = KEEP if name == "kept" else None
        recipe = replace(RECIPE, objective=objective, keep=keep)
        run = trainer(folder / name, recipe, processes=group)
        for role in objective.uses:
            torch.manual_seed(7)
            run.networks[role].load_state_dict(
                build(role, widths=(4, 6, 8, 8), blocks=1).state_dict()
            )
        results[name] = run.run(), run.history
    return results


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What one process and two make of the same stages."""
    alone = train_all(tmp_path_factory.mktemp("one"))
    return alone, together(train_all, tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_processes_train_what_one_does(name, trained):
    alone, (first, second) = trained
    weights, history = alone[name]
    assert_close(first[name][0], weights, atol=2e-5)  # a fiftieth of a step
    assert_same_bits(second[name][0], first[name][0])
    ours, expected = pd.DataFrame(first[name][1]), pd.DataFrame(history)
    assert list(ours) == list(expected) and len(ours) == RECIPE.steps
    ours, expected = (table.drop(columns="images_per_second") for table in (ours, expected))
    # from the first loss to the gradient of each term
    np.testing.assert_allclose(ours[:1], expected[:1], rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-7)


def test_only_the_first_process_logs(trained):
    _, (first, second) = trained
    assert all(len(history) == RECIPE.steps for _, history in first.values())
    assert not any(history for _, history in second.values())


def test_shares_together_are_what_one_process_draws():
    for draw in ("uniform", "normal"):
        whole = getattr(StepRandomness(SeededStep(3, 5), WHOLE), draw)((6, 3, 4, 4))
        shares = [
            getattr(StepRandomness(SeededStep(3, 5), Share(i, 3)), draw)((2, 3, 4, 4))
            for i in range(3)
        ]
        assert torch.equal(torch.cat(shares), whole)
        problem = [
            getattr(StepRandomness(SeededStep(3, 5), Share(i, 3)), draw)((3,)) for i in range(3)
        ]
        assert all(torch.equal(seen, problem[0]) for seen in problem)


# --- whatever happens on one of them --------------------------------------------------------------


@dataclass(frozen=True)
class Watched(Equilibrium):
    """With a note of the iterations that this process needs."""

    seen: list = field(default_factory=list)

    def __call__(self, *arguments):
        losses = super().__call__(*arguments)
        self.seen.append([losses.statistics[f"{name}_iterations"] for name in "fg"])
        return losses


def train_at_fixed_points(folder, group):
    stop = StoppingRule(max_iterations=60, tolerance=1e-4)
    objective = Watched(link=0.1, forward_backward=1.0, gradient_descent=0.1, stop=stop)
    run = trainer(folder, replace(RECIPE, objective=objective), HalfBlack(), processes=group)
    return run.run(), objective.seen


@pytest.mark.slow
def test_processes_with_other_numbers_of_iterations_wait_for_one_another(tmp_path):
    (first, iterations), (second, more) = together(train_at_fixed_points, tmp_path)
    assert_same_bits(first, second)
    assert len(iterations) == len(more) == RECIPE.steps
    unequal = np.array(iterations) != np.array(more)
    assert unequal.any(axis=0).all(), (iterations, more)  # of f and of g


@dataclass(frozen=True)
class SometimesOnOne(Sometimes):
    """Without a finite loss or gradient on the second process alone."""

    def __call__(self, networks, batch):
        steps = self.nan_steps if batch.share.index == 1 else frozenset()
        return Sometimes(steps, self.broken)(networks, batch)


def skip(folder, group):
    seen = {}
    for broken in ("loss", "gradient"):
        objective = SometimesOnOne(frozenset({2, 3}), broken)
        run = trainer(folder / broken, replace(RECIPE, objective=objective), processes=group)
        seen[broken] = []
        for _ in range(6):
            run.update(Batch(torch.zeros(1, 3, 8, 8), run.step, 0, run.processes.share))
            seen[broken].append((run.parameters[0].detach().clone(), run.skipped_in_a_row))
    return seen


def stop_at_step_2(folder, group):
    def before(step):
        if step == 2 and not group.first:
            signal.raise_signal(signal.SIGTERM)

    rare = replace(RECIPE, checkpoint_seconds=1e9)
    with pytest.raises(Interrupted, match="stopped at step 3"):
        trainer(folder, rare, Batches(before), processes=group).run()


@pytest.mark.slow
def test_an_update_that_is_not_finite_on_one_process_is_skipped_on_all(tmp_path):
    for seen in together(skip, tmp_path):
        for updates in seen.values():
            assert [skipped for _, skipped in updates] == [0, 0, 1, 2, 0, 0]
            moved = [not torch.equal(a, b) for (a, _), (b, _) in pairwise(updates)]
            assert moved == [True, False, False, True, True]


@pytest.mark.slow
def test_sigterm_to_one_process_stops_all_at_a_checkpoint_that_is_resumed(tmp_path):
    expected = trainer(tmp_path / "whole").run()
    together(stop_at_step_2, tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["newest.ckpt"]
    steps = []
    result = trainer(tmp_path, crops=Batches(steps.append)).run()
    assert sorted(set(steps)) == [3, 4, 5, 1003, 1004, 1005]
    assert_close(result, expected, atol=2e-5)


def train_from_2_to_4(folder, group):
    run = trainer(folder, crops=batches_cut_at(4), processes=group)
    with pytest.raises(PowerCut):
        run.run()
    return run.step


def batches_cut_at(step):
    return Batches(cut_at(step).before)


@pytest.mark.slow
def test_a_training_goes_on_with_another_number_of_processes(tmp_path):
    expected = trainer(tmp_path / "whole").run()
    with pytest.raises(PowerCut):
        trainer(tmp_path, crops=batches_cut_at(2)).run()
    assert together(train_from_2_to_4, tmp_path) == [4, 4]
    last = trainer(tmp_path)
    assert_close(last.run(), expected, atol=2e-5)
    assert [row["step"] for row in last.history] == list(range(6))


# --- what is refused, and one process -------------------------------------------------------------


def test_a_batch_that_cannot_be_shared_is_refused(files):  # noqa: F811
    with pytest.raises(ValueError, match=r"stages\.denoiser\.budget\.batch: 2 .* processes, 3"):
        stages.trainer(settings_of("denoiser"), files, processes=Group(Share(0, 3)))


def test_the_configuration_names_the_batches_that_cannot_be_shared():
    check(edited(("processes",), 2), SCHEMA)
    said = mistakes(edited(("processes",), 3))
    assert "stages.rg1.budget.batch: 8 is not allowed; must be a multiple of processes, 3" in said


def test_processes_would_not_agree_on_minutes(files):  # noqa: F811
    budget = {"minutes": 1, "batch": 8, "crop": 64}
    config = edited(("stages", "rg1", "budget"), budget)
    check(config, SCHEMA)
    said = mistakes({**config, "processes": 2})
    assert "stages.rg1.budget.minutes: 1 is not allowed; must be null, with steps" in said
    settings = settings_of("denoiser")
    budget = {"minutes": 1, "batch": 2, "crop": 32}
    settings = replace(settings, entry=settings.entry | {"budget": budget})
    with pytest.raises(ValueError, match=r"budget\.minutes: 2 processes would not agree"):
        stages.trainer(settings, files, processes=Group(Share(0, 2)))


def test_the_number_of_processes_is_no_part_of_what_is_computed():
    two = edited(("processes",), 2)
    assert configuration_hash(two) == configuration_hash(edited(("processes",), 1))


def test_a_batch_that_is_judged_as_a_whole_is_refused(files):  # noqa: F811
    settings = settings_of("rerg")
    equilibrium = settings.shared["equilibrium"] | {"per_image": False}
    settings = replace(settings, shared=settings.shared | {"equilibrium": equilibrium})
    stages.trainer(settings, files)
    with pytest.raises(ValueError, match=r"processes: 2 .*per_image"):
        stages.trainer(settings, files, processes=Group(Share(0, 2)))


def test_processes_that_torchrun_did_not_start_are_refused(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(ValueError, match="started by torchrun"):
        Group.join(CPU)


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="2 need a GPU each, but PyTorch sees 1"):
        Group.join(torch.device("cuda"))


def test_one_process_asks_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "distributed", None)
    trainer(tmp_path).run()


# --- as they are started --------------------------------------------------------------------------


def job_of(name, files, folder, *, steps=3):  # noqa: F811
    settings = settings_of(name)
    budget = settings.entry["budget"] | {"steps": steps}
    settings = replace(settings, entry=settings.entry | {"budget": budget})
    weights = {role: folder / f"{role}.safetensors" for role in settings.entry["init"]}
    return Job(settings, files, weights=weights, card=folder / "card.json", threads=1)


def test_a_job_is_read_as_it_was_written(files, tmp_path):  # noqa: F811
    job = job_of("rerg", replace(files, init={"P": tmp_path / "P.safetensors"}), tmp_path)
    assert Job.read(job.write()) == job


def start(job):
    command = torchrun(job.write(), processes=2)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_torchrun_trains_a_stage_as_one_process_does(files, tmp_path):  # noqa: F811
    alone = job_of("rerg", files, tmp_path / "one")
    stages.train_stage(alone.settings, files, weights=alone.weights, card=alone.card)
    ours = job_of("rerg", replace(files, folder=tmp_path / "run2"), tmp_path / "two")
    process = start(ours)
    said, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, said
    assert said.count("'step': 2.0") == 1
    for role, path in ours.weights.items():
        expected = load_weights(alone.weights[role])
        assert_close({role: load_weights(path)}, {role: expected}, atol=2e-5)
    cards = [json.loads(job.card.read_text()) for job in (alone, ours)]
    assert [card["processes"] for card in cards] == [1, 2]
    assert cards[0]["fingerprint"] == cards[1]["fingerprint"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_torchrun_leaves_a_checkpoint_and_no_process(number, files, tmp_path):  # noqa: F811
    job = job_of("denoiser", files, tmp_path, steps=100_000)
    process = start(job)
    table = files.folder / "tensorboard"
    wait_for(table.exists, process)
    time.sleep(1)
    process.send_signal(number)
    said, _ = process.communicate(timeout=LIMIT)  # to the end of the workers, who share the pipe
    assert process.returncode != 0
    run = stages.trainer(job.settings, files)
    step = run.checkpoints.load()["step"]
    assert f"stopped at step {step};" in said
    shorter = replace(run.recipe, steps=step)
    run.recipe = shorter
    run.run()
    assert run.step == step and not files.folder.joinpath("checkpoints/newest.part").exists()


@pytest.mark.slow
def test_the_workflow_trains_with_the_processes_of_the_configuration(tmp_path):
    project = Project.copied(tmp_path)
    target, two = "work/test/models/denoiser/card.json", {"processes": 2}
    project.snakemake(target, overlay=two)
    assert json.loads((project / target).read_text())["processes"] == 2
    log = (project / "work/test/logs/train_denoiser.log").read_text()
    assert log.count("'step': 1.0") == 1, log
    assert project.planned(target) == set()
    said = project.snakemake(target, fails=True, overlay={"processes": 3})
    assert "stages.denoiser.budget.batch: 2 is not allowed" in said
