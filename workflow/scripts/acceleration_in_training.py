"""Look for x_g of the first batches of a training with one method's G and both solvers."""

import logging
from pathlib import Path

import torch

from rglib.core.devices import device_named
from rglib.core.networks import load_frozen
from rglib.data.images import CropSampler, PatchStore
from rglib.files import replacing
from rglib.records.provenance import write_machine
from rglib.studies.acceleration import compare_solvers

logging.basicConfig(filename=snakemake.log[0], filemode="w", level=logging.INFO)
torch.set_num_threads(snakemake.threads)
torch.backends.cudnn.allow_tf32 = False  # the paper's tolerance needs all of float32
params, on = snakemake.params, device_named(snakemake.config["device"])
method, store = snakemake.wildcards.method, PatchStore.open(Path(snakemake.input.train).parent)
table = compare_solvers(
    load_frozen("G", Path(snakemake.input.G), network=params.network, device=on),
    CropSampler(store=store, seed=params.seed, **params.budget),
    **params.training,
    shared=params.shared,
    device=on,
    note=f"x_g of {method}",
)
table.insert(0, "method", method)
with replacing(Path(snakemake.output.table)) as partial:
    table.to_csv(partial, index=False)
write_machine(Path(snakemake.output.machine), device=str(on), code=params.code)
