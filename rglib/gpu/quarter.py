"""A quarter of an hour of one GPU: does it agree, how fast is it, and then training.

In the folder of a parcel that `rglib.gpu.parcel` has packed, ``python -m rglib.gpu.quarter --out
OUT`` does the four parts one after the other, each in a process of its own that is ended at its
time limit:

* *agree*: losses, gradients and iterates of every stage, and one cell of a table, on the GPU as on
  the CPU, in float32 and in bfloat16; updates do not wait for the host (once);
* *measure*: whole updates as shares of the rate of a matrix product (once);
* *train*: the stages in their order, each from where it is, in all the time that is left;
* *validate*: the figures of what was trained, in the last minute.

What is there is written to OUT after each part and at each checkpoint. The same command goes on.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from rglib.core.devices import device_named
from rglib.core.kept import Keep, KeptIterates
from rglib.core.metrics import psnr
from rglib.core.networks import for_inference, load_frozen, load_trainable
from rglib.core.problems import (
    PROBLEMS,
    SeededStep,
    TrainingDistribution,
    observe_image,
)
from rglib.core.tensors import centre
from rglib.data.images import PatchStore, build_store
from rglib.data.manifest import Manifest
from rglib.files import replacing
from rglib.gpu.travel import States, send
from rglib.records.provenance import machine
from rglib.restoration.denoised import LEVELS, denoising_psnr
from rglib.restoration.evaluation import GroundTruth
from rglib.restoration.restorers import restorer
from rglib.restoration.weights_folder import Models
from rglib.studies.at_zeros import psnr_at_zeros
from rglib.training import factory
from rglib.training.objectives.losses import Batch, StepRandomness
from rglib.training.stage import StageFiles, StageSettings, card_of, trainer
from rglib.training.trainer import Interrupted

LOGGER = logging.getLogger(__name__)
Config = Mapping[str, Any]

ASSIGNMENT = Path("parcel.json")  # all in the folder of the parcel
IMAGES = Path("images")
STATES = States(Path("states"))
RECORDS = Path("records")
WORK = Path("work")

LIMITS = {"agree": 60.0, "measure": 90.0, "validate": 60.0}  # seconds; training has what is left
ONCE = ("agree", "measure")  # on the first card alone
GRACE = 15.0  # seconds after its limit, in which a part may end by itself
PARTS = ("agree", "measure", "train", "validate")
CHECKPOINT_SECONDS = 120.0
COMPILING_PAYS = 1.05  # times as many updates a second, measured

CPU = torch.device("cpu")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TESTED = {"P": "mtdeq", "G": "rerg"}  # methods with well-behaved networks, which are to agree
PROBLEM = "deblur_s1.6"
# How far the device may be from the CPU in float32: in float32 by these; in bfloat16 by ten times
# as much and half as far again as the CPU in bfloat16. Where gradients nearly cancel, that is far.
ALLOWED = {"loss": 1e-4, "gradient": 1e-3, "iterate": 1e-4}
ALLOWED_DB = 0.01
ROUNDER, FURTHER = 10.0, 1.5


@dataclass(frozen=True)
class Assignment:
    """What a parcel is for.

    Attributes:
        run: name of the configuration's run.
        stages: to be trained, predecessors first.
        starts: for each stage those that its networks start from, by role, and the role taken.
        used: for each stage the roles that methods restore with.
        config: the sections that the validation reads.
        min_size: of the images in the stores, in pixels.
        validation: images, and the side of their crops for denoising and at the zeros.
    """

    run: str
    stages: tuple[StageSettings, ...]
    starts: Mapping[str, Mapping[str, Sequence[str]]]
    used: Mapping[str, Sequence[str]]
    config: Config
    min_size: int
    validation: Mapping[str, int]

    def write(self, path: Path) -> None:
        """As JSON."""
        with replacing(path) as partial:
            partial.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @staticmethod
    def read(path: Path) -> Assignment:
        """What `write` wrote."""
        content = json.loads(path.read_text())
        stages = tuple(StageSettings(**entry) for entry in content.pop("stages"))
        return Assignment(stages=stages, **content)


def needed_there(assignment: Assignment, states: States, stage: str) -> list[str]:
    """The roles of a stage whose weights further training takes: its own, or that of others."""
    card = states.card(stage)
    roles: list[str] = card["roles"]
    if not card["finished"]:
        return roles
    ahead = [s.name for s in assignment.stages if not states.card(s.name).get("finished")]
    starts = [start for s in ahead for start in assignment.starts[s].values()]
    begun = {role for start, role in starts if start == stage}
    return [role for role in roles if role in begun]


def needed_at_home(assignment: Assignment, states: States, stage: str) -> list[str]:
    """Those, and the roles that methods restore with."""
    there, used = needed_there(assignment, states, stage), assignment.used.get(stage, ())
    return [role for role in states.card(stage)["roles"] if role in there or role in used]


def main(arguments: Sequence[str] | None = None) -> int:
    """Do all parts, or one of them; 1 if the devices disagree."""
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    assignment = Assignment.read(ASSIGNMENT)
    if options.device:
        stages = tuple(replace(settings, device=options.device) for settings in assignment.stages)
        assignment = replace(assignment, stages=stages)
    if options.part:
        return _PARTS[options.part](assignment, options)
    return everything(assignment, options)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m rglib.gpu.quarter", description=__doc__)
    made.add_argument("--out", type=Path, required=True, help="where what goes home is written")
    made.add_argument("--minutes", type=float, default=9.5, help="of all parts together")
    made.add_argument("--device", help="auto, cpu or cuda, instead of the configuration's")
    made.add_argument("--part", choices=("agree", "train", "validate"), help=argparse.SUPPRESS)
    made.add_argument("--until", type=float, help=argparse.SUPPRESS)  # of time.monotonic
    return made


# --- all parts ------------------------------------------------------------------------------------


def everything(assignment: Assignment, options: argparse.Namespace) -> int:
    """The parts in turn; what each has reached is packed after it."""
    end = time.monotonic() + 60 * options.minutes
    RECORDS.mkdir(exist_ok=True)
    (RECORDS / "trained.json").unlink(missing_ok=True)
    build_stores(assignment)
    before, ended = _recorded("parts.json", {}), {}
    for part in PARTS:
        if part in ONCE and before.get(part, "").startswith("done"):
            ended[part] = "done before"
            continue
        left = end - time.monotonic()
        limit = left - LIMITS["validate"] if part == "train" else min(LIMITS[part], left)
        ended[part] = _run(part, limit, assignment, options) if limit > 0 else "no time left"
        _record("parts.json", ended)
        pack(assignment, options.out)
    print(summary(ended))
    return int(not ended["agree"].startswith("done"))


def _run(part: str, seconds: float, assignment: Assignment, options: argparse.Namespace) -> str:
    """Run a part in a process of its own and say how it ended."""
    began = time.monotonic()
    device = assignment.stages[0].device
    if part == "measure":
        only = ["--only", "updates", "--device", device, "--rounds", "3", "--out", str(RECORDS)]
        command = [sys.executable, "-m", "benchmarks", *only]
        if device_named(device).type == "cpu":
            command.append("--quick")
    else:
        told = ["--part", part, "--until", str(began + seconds), "--device", device]
        command = [sys.executable, "-m", "rglib.gpu.quarter", "--out", str(options.out), *told]
    with (RECORDS / f"{part}.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, process_group=0)
        try:
            code = process.wait(timeout=seconds + GRACE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"ended at its limit of {seconds:.0f} s"
    took = f"{time.monotonic() - began:.0f} s"
    LOGGER.info("%s: %s, %s", part, "done" if code == 0 else f"exit status {code}", took)
    return "done" if code == 0 else f"exit status {code} after {took}, see {part}.log"


def build_stores(assignment: Assignment) -> None:
    """Decode the images of the parcel, unless that was done before."""
    least = assignment.min_size
    looked_at = max(least, assignment.validation["denoising_crop"])
    for split, min_size in (("train", least), ("validation", looked_at)):
        if (WORK / split / "store.json").exists():
            continue
        manifests = [Manifest.read(path) for path in sorted((IMAGES / split).glob("*.json"))]
        build_store(manifests, WORK / split, min_size=min_size)


def pack(assignment: Assignment, out: Path) -> None:
    """Write what goes home: what was trained in this quarter, the last first."""
    stages = {stage: needed_at_home(assignment, STATES, stage) for stage in reversed(_trained())}
    left_out = send(STATES, stages, RECORDS, out)
    if left_out:
        LOGGER.warning("no room to take home: %s", ", ".join(left_out))


def _trained() -> list[str]:
    stages: list[str] = _recorded("trained.json", [])
    return stages


def _recorded(name: str, otherwise: Any) -> Any:
    path = RECORDS / name
    return json.loads(path.read_text()) if path.exists() else otherwise


def _record(name: str, content: Any) -> None:
    with replacing(RECORDS / name) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n")


def summary(ended: Mapping[str, str]) -> str:
    """A few lines: how the parts ended, what was trained, what it reached."""
    lines = [f"{part}: {how}" for part, how in ended.items()]
    for stage in _trained():
        card = STATES.card(stage)
        state = "finished" if card["finished"] else "goes on"
        lines.append(f"{stage}: step {card['steps']}, {card['minutes_trained']} minutes, {state}")
    return "\n".join([*lines, json.dumps(_recorded("validation.json", {}), indent=1)])


# --- agree ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SameDraws(Batch):
    """A batch whose draws are the CPU's on every device."""

    @property
    def randomness(self) -> StepRandomness:
        """As of a batch on the CPU."""
        return StepRandomness(SeededStep(self.seed, self.step), self.share)


@dataclass(frozen=True)
class Outcome:
    """What an objective gives on a batch, as float64 on the CPU."""

    loss: float
    gradient: Tensor
    iterate: Tensor

    def differences(self, other: Outcome) -> dict[str, float]:
        """How far apart, relative to this one."""
        return {
            "loss": abs(other.loss - self.loss) / abs(self.loss),
            "gradient": _apart(other.gradient, self.gradient),
            "iterate": _apart(other.iterate, self.iterate),
        }


def _apart(x: Tensor, reference: Tensor) -> float:
    if not reference.numel():
        return 0.0
    return float((x - reference).norm() / reference.norm())


def agree(assignment: Assignment, options: argparse.Namespace) -> int:
    """Compare the device with the CPU; 1 if they are further apart than allowed.

    And if the time was up before everything was compared.
    """
    rows: list[dict[str, Any]] = []
    for row in _comparisons(assignment):
        rows.append(row)
        _record("agree.json", {"machine": _machine(assignment), "rows": rows})
        if time.monotonic() > options.until:
            LOGGER.error("the time was up after %s", row["what"])
            return 1
    return int(not all(row["agrees"] for row in rows))


def _comparisons(assignment: Assignment) -> Iterator[dict[str, Any]]:
    device = device_named(assignment.stages[0].device)
    torch.backends.cudnn.allow_tf32 = False  # float32 is meant
    if device.type == "cuda":
        for settings in assignment.stages:
            yield _waits(settings)
    cell = table_cell(assignment, torch.float32, CPU)
    for precision, arithmetic in PRECISIONS.items():
        there = table_cell(assignment, arithmetic, device)
        name = f"{TESTED['G']}, {PROBLEM}: dB, from {cell:.3f}"
        yield _row(name, precision, abs(there - cell), ALLOWED_DB)
    x_hat = validation_batch(2, 64)
    for step, settings in enumerate(assignment.stages):  # each with a problem of its own
        yield from _of_stage(settings, x_hat, step, device)


def _of_stage(
    settings: StageSettings, x_hat: Tensor, step: int, device: torch.device
) -> Iterator[dict[str, Any]]:
    def differences(arithmetic: torch.dtype, place: torch.device) -> dict[str, float]:
        return exact.differences(outcome(settings, x_hat, step, arithmetic, place))

    exact = outcome(settings, x_hat, step, torch.float32, CPU)
    low = differences(torch.bfloat16, CPU)
    for precision, arithmetic in PRECISIONS.items():
        for what, difference in differences(arithmetic, device).items():
            allowed = ALLOWED[what]
            if arithmetic == torch.bfloat16:
                allowed = ROUNDER * allowed + FURTHER * low[what]
            yield _row(f"{settings.name}, step {step}: {what}", precision, difference, allowed)


def _row(what: str, precision: str, difference: float, allowed: float) -> dict[str, Any]:
    agrees = difference <= allowed  # a NaN does not
    told = {"what": what, "precision": precision, "difference": difference, "allowed": allowed}
    return {**told, "agrees": agrees}


def outcome(
    settings: StageSettings,
    x_hat: Tensor,
    step: int,
    arithmetic: torch.dtype,
    device: torch.device,
) -> Outcome:
    """Of a stage's objective with the tested networks, the draws being the CPU's everywhere."""
    entry = {**settings.entry, "log": settings.log}
    recipe = factory.recipe(entry, settings.shared, seed=settings.seed)
    objective = recipe.objective
    models = Models.open()
    networks = {}
    for role in (*objective.learns, *objective.uses):
        weights, size = models.weights(TESTED[role]), models.card(TESTED[role]).network
        network = load_trainable(role, weights, network=size, arithmetic=arithmetic)
        networks[role] = network.to(device)
    kept = KeptIterates(Keep(first_steps=8)) if recipe.keep else None
    losses = objective(networks, SameDraws(x_hat.to(device), step, settings.seed, kept=kept))
    losses.total.backward()
    learned = [p for role in objective.learns for p in networks[role].parameters()]
    iterates = [iterate["x"] for iterate in kept.iterates.values()] if kept else []
    return Outcome(
        losses.total.item(),
        _flat([p.grad for p in learned if p.grad is not None]),
        _flat(iterates),
    )


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([torch.empty(0).double(), *(t.cpu().double().flatten() for t in tensors)])


def table_cell(assignment: Assignment, arithmetic: torch.dtype, device: torch.device) -> float:
    """PSNR (dB) of the tested method on a crop, at a zero."""
    models = Models.open()
    size, weights = models.card(TESTED["G"]).network, models.weights(TESTED["G"])
    G = load_trainable("G", weights, network=size, arithmetic=arithmetic)
    method = restorer("gradient_descent", PROBLEM, for_inference(G, device), assignment.config)
    seen = observe_image(PROBLEMS[PROBLEM], validation_batch(1, 96)).to(device)
    return psnr(method.restore(seen, lambda _: None), seen.x_hat).item()


def _waits(settings: StageSettings) -> dict[str, Any]:
    """Whether an update waits for a GPU: PyTorch then raises an error."""
    entry = {**settings.entry, "init": dict.fromkeys(settings.entry["init"], "orthogonal")}
    run = trainer(replace(settings, entry=entry), files_of(settings, {}))
    said, waits = f"{settings.name}: waits of an update", 0.0
    for _ in range(2):
        run.update(run.batch())
    torch.cuda.set_sync_debug_mode("error")
    try:
        run.update(run.batch())
    except RuntimeError as error:
        said, waits = f"{said} ({error})", 1.0
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return _row(said, settings.precision, waits, 0.0)


# --- train ----------------------------------------------------------------------------------------


def train(assignment: Assignment, options: argparse.Namespace) -> int:
    """Train the stages in their order until the time is up."""
    trained: list[str] = []
    torch.backends.cudnn.benchmark = True  # all batches of a stage have one shape
    for settings in assignment.stages:
        if STATES.card(settings.name).get("finished"):
            continue
        trained.append(settings.name)
        finished = train_stage(as_measured(settings), assignment, options, trained)
        if not finished:
            break
    return 0


def train_stage(
    settings: StageSettings, assignment: Assignment, options: argparse.Namespace, trained: list[str]
) -> bool:
    """Train one stage from where it is; False if the time was up before its end."""
    card = STATES.card(settings.name)
    files = files_of(settings, assignment.starts[settings.name])
    run = trainer(settings, files)
    run.recipe = replace(run.recipe, checkpoint_seconds=CHECKPOINT_SECONDS)
    if card:
        run.take_up(
            STATES.roles(settings.name),
            step=card["steps"],
            seconds=card["seconds"],
            history=STATES.history(settings.name),
        )
    before = {"steps": card.get("steps", 0), "seconds": card.get("seconds", 0.0)}

    def keep() -> None:
        now = card_of(run, settings, files).to_dict() | {"device": _machine(assignment)}
        quarter = {
            "machine": now["device"],
            "steps": run.step - before["steps"],
            "minutes": round((run.seconds - before["seconds"]) / 60, 2),
            **{key: now[key] for key in ("images", "data_digest", "precision", "code")},
            "compiled": bool(settings.entry.get("compile")),
        }
        told = {"finished": run.finished, "seconds": run.seconds}
        quarters = [*card.get("quarters", []), quarter]
        content = {**now, **told, "quarters": quarters}
        STATES.write(settings.name, run.result(), card=content, history=run.history)
        _record("trained.json", trained)
        pack(assignment, options.out)

    run.saved = keep
    run.deadline = options.until
    try:
        run.run()
    except Interrupted as reason:
        LOGGER.info("%s: %s", settings.name, reason)
    return run.finished


def as_measured(settings: StageSettings) -> StageSettings:
    """The stage with its networks compiled where that was measured to pay."""
    path = RECORDS / "benchmarks.csv"
    if settings.entry.get("compile") or not path.exists() or not compiling_pays(path):
        return settings
    return replace(settings, entry={**settings.entry, "compile": True})


def compiling_pays(benchmarks: Path) -> bool:
    """Whether compiled updates were measured, and are faster, for every stage that was."""
    rows = pd.read_csv(benchmarks)
    gains = rows[rows["quantity"] == "update / compiled update, seconds"]["value"].dropna()
    return bool(len(gains) and gains.min() >= COMPILING_PAYS)


def files_of(settings: StageSettings, starts: Mapping[str, Sequence[str]]) -> StageFiles:
    """What a stage reads in a parcel, and where it leaves its checkpoints."""
    return StageFiles(
        train=WORK / "train",
        validation=WORK / "validation",
        init={role: STATES.weights(*start) for role, start in starts.items()},
        folder=WORK / "training" / settings.name,
    )


def _machine(assignment: Assignment) -> str:
    device = device_named(assignment.stages[0].device)
    named = machine()
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    if card not in named:  # the driver's files, which say it too, are not everywhere
        named = f"{card}, {named}"
    return f"{named}, torch {torch.__version__}"


# --- validate -------------------------------------------------------------------------------------


def validate(assignment: Assignment, options: argparse.Namespace) -> int:
    """PSNR of what was trained: of each P as a denoiser, then of each G at the zeros.

    The last stage comes first.
    """
    device = device_named(assignment.stages[0].device)
    cards = {stage: STATES.card(stage) for stage in reversed(_trained())}
    found: dict[str, dict[str, Any]] = {
        stage: {"steps": card["steps"], "minutes": card["minutes_trained"]}
        for stage, card in cards.items()
    }
    by_name = {settings.name: settings for settings in assignment.stages}
    for role, figures in (("P", denoised), ("G", at_zeros)):
        for stage in (stage for stage, card in cards.items() if role in card["roles"]):
            if time.monotonic() > options.until:
                return 1
            settings = by_name[stage]
            network = load_frozen(
                role,
                STATES.weights(stage, role),
                network=settings.network,
                device=device,
                precision=settings.precision,
            )
            found[stage][role] = figures(network, assignment, device)
            _record("validation.json", found)
    return 0


def denoised(P: torch.nn.Module, assignment: Assignment, device: torch.device) -> dict[str, float]:
    """Mean PSNR (dB) over validation crops at each level of noise."""
    validation = assignment.validation
    images = validation_batch(validation["images"], validation["denoising_crop"]).split(1)
    values = {level: denoising_psnr(P, images, level, device=device) for level in LEVELS}
    return {f"psnr_{level}_db": sum(of) / len(of) for level, of in values.items()}


def at_zeros(G: torch.nn.Module, assignment: Assignment, device: torch.device) -> dict[str, float]:
    """PSNR (dB) at the zeros by problem, and in the mean."""
    images = validation_batch(assignment.validation["images"], assignment.validation["crop"])
    reached = psnr_at_zeros(
        G,
        [GroundTruth(str(i), x_hat) for i, x_hat in enumerate(images.split(1))],
        config=assignment.config,
        distribution=TrainingDistribution.of(assignment.config["training_problems"]),
        draws=0,
        device=device,
    )
    return {"mean": sum(reached.values()) / len(reached), **reached}


def validation_batch(count: int, crop: int) -> Tensor:
    """The middle squares of images spread evenly over the validation store, (B, 3, crop, crop)."""
    store = PatchStore.open(WORK / "validation")
    count = min(count, len(store))
    chosen = [torch.tensor(store.image(i * len(store) // count)) for i in range(count)]
    return torch.stack([centre(image.float()[None] / 255, crop)[0] for image in chosen])


_PARTS = {"agree": agree, "train": train, "validate": validate}

if __name__ == "__main__":
    sys.exit(main())
