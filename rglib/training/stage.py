"""One stage of training from its configuration to weights and a model card, and weights given."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rglib.core.devices import device_named
from rglib.core.networks import (
    build,
    load_G_from_P,
    load_trainable,
    load_weights,
    orthogonal_,
    preferred_arithmetic,
    save_weights,
)
from rglib.data.images import CropSampler, PatchStore
from rglib.files import file_digest
from rglib.plan.roles import INITIALISATIONS, card_beside, start_of
from rglib.plan.variants import expanded
from rglib.records.model_card import CardError, ModelCard
from rglib.training import factory
from rglib.training.diagnostics import Health
from rglib.training.processes import ALONE, Processes
from rglib.training.resident import cut_where_they_fit
from rglib.training.trainer import Trainer

Config = Mapping[str, Any]
HEALTH_IMAGES = 4  # validation crops that the monitor looks at


@dataclass(frozen=True)
class StageFiles:
    """Where a stage reads and writes.

    Attributes:
        train: store of the training images.
        validation: store of the validation images.
        init: weights by role, for the networks that start from another stage.
        folder: checkpoints, history and TensorBoard files.
    """

    train: Path
    validation: Path
    init: Mapping[str, Path]
    folder: Path

    @staticmethod
    def of(inputs: Any, *, starts: Mapping[str, str], folder: Path) -> StageFiles:
        """From a workflow's inputs: train, validation, and start_P or start_G by role."""
        return StageFiles(
            train=Path(inputs.train).parent,
            validation=Path(inputs.validation).parent,
            init={role: Path(inputs[f"start_{role}"]) for role in starts},
            folder=folder,
        )


@dataclass(frozen=True)
class StageSettings:
    """The slices of the configuration that a stage's numbers depend on.

    Attributes:
        name: of the stage.
        entry: its entry under ``stages``, without ``log``.
        log: that part of it, which changes no number.
        shared: the sections that its objective reads, of equilibrium and training_problems.
        network: widths and blocks.
        seed: of everything random.
        device: auto, cpu or cuda.
        precision: auto, float32 or bfloat16.
        code: hashes of the code that trains, by its entry points (`rglib.records.code_hash`).
    """

    name: str
    entry: Config
    log: Config
    shared: Config
    network: Config
    seed: int
    device: str
    precision: str
    code: Mapping[str, str]

    @staticmethod
    def of(params: Any, config: Config) -> StageSettings:
        """From a workflow's parameters; log and device from the configuration."""
        return StageSettings(
            name=params.stage,
            entry=params.entry,
            log=expanded(config)["stages"][params.stage]["log"],
            shared=params.shared,
            network=params.network,
            seed=params.seed,
            device=config["device"],
            precision=params.precision,
            code=params.code,
        )


def trainer(settings: StageSettings, files: StageFiles, *, processes: Processes = ALONE) -> Trainer:
    """The trainer of a stage, its networks initialised and its images at hand.

    Raises:
        WeightsError: weights to start from are missing or of another network.
        ValueError: a device, precision or crop that cannot be had, or a batch that several
            processes cannot share.
    """
    _check_shares(settings, processes.share.count)
    device = device_named(settings.device)
    budget = settings.entry["budget"]
    recipe = factory.recipe(
        {**settings.entry, "log": settings.log}, settings.shared, seed=settings.seed
    )
    torch.manual_seed(settings.seed)  # for the initialisations; steps seed themselves
    roles = (*recipe.objective.learns, *recipe.objective.uses)
    networks = {role: _initial(role, settings, files, device) for role in roles}
    store = PatchStore.open(files.train)
    crops = CropSampler(store=store, crop=budget["crop"], batch=budget["batch"], seed=settings.seed)
    return Trainer(
        recipe,
        networks,
        cut_where_they_fit(crops, device),
        folder=files.folder,
        fingerprint=_fingerprint(settings, files, str(_arithmetic(settings, device)), store.digest),
        device=device,
        monitor=Health(_health_images(files.validation, budget["crop"]).to(device)),
        processes=processes,
        description=_planned(settings).to_dict(),
    )


def train_stage(
    settings: StageSettings,
    files: StageFiles,
    *,
    weights: Mapping[str, Path],
    card: Path,
    processes: Processes = ALONE,
) -> None:
    """Train a stage, resuming where it was interrupted, and write its weights and card.

    Of several processes, which all call this, the first one writes.

    Raises:
        WeightsError, ValueError: as `trainer`.
        TrainingError, Interrupted: as `Trainer.run`.
    """
    began = time.monotonic()
    run = trainer(settings, files, processes=processes)
    trained = run.run()
    if not processes.first:
        return
    for role, tensors in trained.items():
        save_weights(weights[role], tensors)
    made = replace(
        card_of(run, settings, files),
        seconds_of_last_process=round(time.monotonic() - began, 1),
        fingerprint=run.checkpoints.fingerprint,
        weights={role: file_digest(path) for role, path in weights.items()},
    )
    made.write(card)


def card_of(run: Trainer, settings: StageSettings, files: StageFiles) -> ModelCard:
    """The model card of a training so far: on what, by what, and how long."""
    return replace(
        _planned(settings),
        steps=run.step,
        minutes_trained=round(run.seconds / 60, 2),
        **_data(files.train),
        device=str(run.device),
        processes=run.processes.share.count,
        precision=str(_arithmetic(settings, run.device)).removeprefix("torch."),
        last_row=run.history[-1],
        code=dict(settings.code),
    )


def _planned(settings: StageSettings) -> ModelCard:
    """What is known before the first step."""
    entry = settings.entry
    return ModelCard(
        stage=settings.name,
        objective=entry["objective"],
        options=entry["options"],
        **entry["budget"],
        optimiser=entry["optimiser"],
        **settings.shared,
        init=entry["init"],
        seed=settings.seed,
        network=settings.network,
    )


def import_stage(
    name: str,
    sources: Mapping[str, Path],
    *,
    checksums: Mapping[str, str | None],
    weights: Mapping[str, Path],
    network: Config,
    card: Path,
) -> None:
    """Take a stage's weights from files (KAIR's names) instead of training it.

    A card beside the first source (`rglib.plan.roles.card_beside`), such as the project ships with
    its own weights, is carried over into the new one.

    Raises:
        WeightsError: a file is missing, has another checksum or belongs to another network.
    """
    for role, source in sources.items():
        load_trainable(role, source, network=network, sha256=checksums[role])
        save_weights(weights[role], load_weights(source))
    role, first = next(iter(sources.items()))
    shipped = Path(card_beside(str(first), role))
    given = ModelCard(
        stage=name,
        given=True,
        network=network,
        source={role: path.name for role, path in sources.items()},
        weights={role: file_digest(path) for role, path in weights.items()},
    )
    (given.over(ModelCard.read(shipped)) if shipped.exists() else given).write(card)


def overfit(
    settings: StageSettings, files: StageFiles, *, steps: int, lr: float
) -> tuple[float, float]:
    """Train on one fixed batch and step, and return the loss before and after: a self-check.

    The same crops, noise and problem every time, at a constant learning rate: a stage that cannot
    lower this loss is broken. Nothing is written.
    """
    constant = {"lr": lr, "schedule": {"step": {"every": steps + 1, "gamma": 1.0}}, "ema": None}
    entry = {**settings.entry, "optimiser": settings.entry["optimiser"] | constant}
    run = trainer(replace(settings, entry=entry), files)
    batch = replace(run.batch(), kept=None)  # to its fixed point each time, which the loss is of

    def loss() -> float:
        return run.recipe.objective(run.networks, batch).total.item()

    before = loss()
    for _ in range(steps):
        run.step = 0
        run.update(batch)
    return before, loss()


def publish_stage(
    folder: Path, *, card: Path, weights: Mapping[str, Path], before: Iterable[Path] = ()
) -> None:
    """Copy a trained stage's weights, as 16-bit safetensors, and its card into a folder to ship.

    The card that ships has the SHA-256 of these files too, under ``files``, and under ``before``
    the budgets of stages on the way that do not ship themselves, whose cards these are.

    Raises:
        CardError: a card is missing or damaged, or has no budget.
    """
    trained = ModelCard.read(card)
    files = {}
    for role, path in weights.items():
        shipped = folder / f"{trained.stage}_{role}.safetensors"
        halves = {key: tensor.half() for key, tensor in load_weights(path).items()}
        save_weights(shipped, halves)
        files[shipped.name] = file_digest(shipped)
    made = replace(trained, before=dict(map(_budget, before)), files=files)
    made.write(folder / f"{trained.stage}.card.json")


def _budget(path: Path) -> tuple[str, dict[str, int]]:
    """The stage whose card this is, and its budget."""
    card = ModelCard.read(path)
    if card.budget is None:
        raise CardError(f"{path}: does not say steps, batch and crop")
    return card.stage, asdict(card.budget)


def _check_shares(settings: StageSettings, processes: int) -> None:
    batch = settings.entry["budget"]["batch"]
    if batch % processes:
        raise ValueError(
            f"stages.{settings.name}.budget.batch: {batch} images cannot be shared equally; must "
            f"be a multiple of processes, {processes}"
        )
    if processes > 1 and settings.entry["budget"].get("minutes") is not None:
        raise ValueError(
            f"stages.{settings.name}.budget.minutes: {processes} processes would not agree on the "
            "time; must be null, with steps"
        )
    if processes > 1 and not settings.shared.get("equilibrium", {}).get("per_image", True):
        raise ValueError(
            f"processes: {processes} is not allowed for {settings.name}; must be 1, as "
            "equilibrium.per_image: false judges the batch as a whole"
        )


def _initial(
    role: str, settings: StageSettings, files: StageFiles, device: torch.device
) -> nn.Module:
    arithmetic = _arithmetic(settings, device)
    init = settings.entry["init"][role]
    if init in INITIALISATIONS:
        network = build(role, **settings.network, arithmetic=arithmetic)
    elif start_of(init, role)[1] == role:
        start = files.init[role]
        network = load_trainable(role, start, network=settings.network, arithmetic=arithmetic)
    else:
        network = load_G_from_P(files.init[role], network=settings.network, arithmetic=arithmetic)
    if init == "orthogonal":
        orthogonal_(network)
    if settings.entry.get("compile"):
        network.compile(dynamic=False)
    return network


def _arithmetic(settings: StageSettings, device: torch.device) -> torch.dtype:
    return preferred_arithmetic(settings.precision, device)


def _health_images(store: Path, crop: int) -> torch.Tensor:
    sampler = CropSampler(store=PatchStore.open(store), crop=crop, batch=HEALTH_IMAGES, seed=0)
    return torch.from_numpy(sampler.crops(0)).float() / 255


def _data(store: Path) -> dict[str, Any]:
    summary = json.loads((store / "store.json").read_text())
    titles = [dataset["title"] for dataset in summary["datasets"]]
    return {"data": titles, "images": summary["images"], "data_digest": summary["digest"]}


def _fingerprint(settings: StageSettings, files: StageFiles, arithmetic: str, data: str) -> str:
    """What a checkpoint must agree with to be resumed: all that the trained weights depend on."""
    starts = {role: file_digest(path) for role, path in files.init.items()}
    parts = [
        settings.name,
        settings.entry,
        settings.shared,
        settings.network,
        settings.seed,
        dict(settings.code),
        arithmetic,
        data,
        starts,
    ]
    return json.dumps(parts, sort_keys=True)
