"""Train one variant for its minutes and look at the zeros on validation images."""

import logging
from pathlib import Path

import torch

from rglib.core.networks import preferred_arithmetic
from rglib.data.manifest import Manifest
from rglib.files import replacing
from rglib.plan.names import copy_of
from rglib.records.provenance import write_machine
from rglib.studies.fixed_points import train_and_look
from rglib.studies.tuning import validation_images
from rglib.training.stage import StageFiles, StageSettings, trainer

logging.basicConfig(filename=snakemake.log[0], filemode="w", level=logging.INFO)
torch.set_num_threads(snakemake.threads)
inputs, params, plan = snakemake.input, snakemake.params, snakemake.params.plan
files = StageFiles.of(inputs, starts=params.starts, folder=Path(params.folder))
run = trainer(StageSettings.of(params, snakemake.config), files)
images = validation_images(
    Manifest.read(Path(inputs.data)),
    count=plan["images"],
    crop=plan["crop"],
    test_set=Manifest.read(Path(inputs.test_set)),
)
table = train_and_look(
    run,
    images,
    minutes=plan["minutes"],
    config=params.settings,
    draws=plan["draws"],
    arithmetic=preferred_arithmetic(params.evaluated_in, run.device),
    note=params.stage,
)
table.insert(0, "variant", copy_of(snakemake.wildcards.trained)[0])
table.insert(1, "seed", params.seed)
with replacing(Path(snakemake.output.table)) as partial:
    table.to_csv(partial, index=False)
write_machine(Path(snakemake.output.machine), device=str(run.device), code=params.code)
