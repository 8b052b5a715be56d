"""Hold the gradients through each backward map against the true one, on small validation crops."""

import logging
from pathlib import Path

import torch

from rglib.core.networks import load_trainable
from rglib.data.manifest import Manifest
from rglib.files import replacing
from rglib.records.provenance import write_machine
from rglib.studies.gradients import compare_gradients
from rglib.studies.tuning import validation_images

logging.basicConfig(filename=snakemake.log[0], filemode="w", level=logging.INFO)
torch.set_num_threads(snakemake.threads)
inputs, params, plan = snakemake.input, snakemake.params, snakemake.params.plan
G = load_trainable("G", Path(inputs.G), network=params.network)
images = validation_images(
    Manifest.read(Path(inputs.data)),
    count=plan["images"],
    crop=plan["crop"],
    test_set=Manifest.read(Path(inputs.test_set)),
)
table = compare_gradients(G, images, eta_gd=params.eta_gd)
with replacing(Path(snakemake.output.table)) as partial:
    table.to_csv(partial, index=False)
write_machine(Path(snakemake.output.machine), device="cpu", code=params.code)
