"""Try out the open settings of one problem or task."""

import logging
from pathlib import Path

import torch

from rglib.core.devices import device_named
from rglib.core.networks import load_frozen
from rglib.data.manifest import Manifest
from rglib.files import replacing
from rglib.records.provenance import write_machine
from rglib.studies.tuning import tune, validation_images

logging.basicConfig(filename=snakemake.log[0], filemode="w", level=logging.INFO)
torch.set_num_threads(snakemake.threads)
torch.backends.cudnn.allow_tf32 = False  # float32 is to mean float32
params, on = snakemake.params, device_named(snakemake.config["device"])
network = load_frozen(
    params.role,
    Path(snakemake.input.weights),
    network=params.network,
    device=on,
    precision=params.precision,
)
images = validation_images(
    Manifest.read(Path(snakemake.input.data)),
    count=params.settings["tuning"]["images"],
    crop=params.settings["tuning"]["crop"],
    test_set=Manifest.read(Path(snakemake.input.test_set)),
)
table = tune(
    snakemake.wildcards.target,
    params.algorithm,
    network,
    images,
    method=params.method,
    config=params.settings,
    device=on,
)
with replacing(Path(snakemake.output.table)) as partial:
    table.to_csv(partial, index=False)
write_machine(Path(snakemake.output.machine), device=str(on), code=params.code)
