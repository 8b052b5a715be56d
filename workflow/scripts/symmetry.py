"""Look at the Jacobian of one method's G, and at the zeros from many starts, on every problem."""

import logging
from pathlib import Path

import torch

from rglib.core.devices import device_named
from rglib.core.networks import load_frozen
from rglib.core.units import from_255
from rglib.data.manifest import Manifest
from rglib.files import replacing
from rglib.records.provenance import write_machine
from rglib.restoration.evaluation import read_test_images
from rglib.studies.symmetry import Study, numbers_of_all

logging.basicConfig(filename=snakemake.log[0], filemode="w", level=logging.INFO)
torch.set_num_threads(snakemake.threads)
torch.backends.cudnn.allow_tf32 = False  # zeros this exact need all of float32
params, on = snakemake.params, device_named(snakemake.config["device"])
table = numbers_of_all(
    load_frozen("G", Path(snakemake.input.G), network=params.network, device=on),
    read_test_images(Manifest.read(Path(snakemake.input.test_set))),
    weights={problem_id: from_255(s) for problem_id, s in params.s_255.items()},
    study=Study.of(params.symmetry),
    device=on,
)
table.insert(0, "method", snakemake.wildcards.method)
with replacing(Path(snakemake.output.table)) as partial:
    table.to_csv(partial, index=False)
write_machine(
    Path(snakemake.output.machine),
    device=str(on),
    code=params.code,
    test_set=Path(snakemake.input.test_set),
)
