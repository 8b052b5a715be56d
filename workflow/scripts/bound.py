"""Measure both sides of Theorem 1 for one method on every problem and test image."""

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
from rglib.studies.theorem1 import Search, both_sides_of_all

logging.basicConfig(filename=snakemake.log[0], filemode="w", level=logging.INFO)
torch.set_num_threads(snakemake.threads)
torch.backends.cudnn.allow_tf32 = False  # fixed points this exact need all of float32
params, on = snakemake.params, device_named(snakemake.config["device"])
P, G = (
    load_frozen(role, Path(snakemake.input[role]), network=params.network, device=on)
    for role in ("P", "G")
)
table = both_sides_of_all(
    P,
    G,
    read_test_images(Manifest.read(Path(snakemake.input.test_set))),
    sigmas={problem_id: from_255(s) for problem_id, s in params.s_255.items()},
    crop=params.bound["crop"],
    search=Search.of(params.bound, params.equilibrium),
    device=on,
)
table.insert(0, "method", snakemake.wildcards.method)
table.insert(3, "denoiser", params.denoiser)
with replacing(Path(snakemake.output.table)) as partial:
    table.to_csv(partial, index=False)
write_machine(
    Path(snakemake.output.machine),
    device=str(on),
    code=params.code,
    test_set=Path(snakemake.input.test_set),
)
