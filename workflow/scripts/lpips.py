"""LPIPS of one method's restored images, on every problem."""

import sys
from pathlib import Path

import torch

from rglib.core.devices import device_named
from rglib.files import replacing
from rglib.integrations.lpips import Lpips, lpips_of_images
from rglib.records.provenance import write_machine

sys.stderr = open(snakemake.log[0], "w", encoding="utf-8")
torch.set_num_threads(snakemake.threads)
torch.backends.cudnn.allow_tf32 = False  # float32 is to mean float32
inputs, params, on = snakemake.input, snakemake.params, device_named(snakemake.config["device"])
table = lpips_of_images(Lpips(on), Path(inputs.images), Path(inputs.observations))
table.insert(0, "method", params.method)
table.insert(1, "seed", params.seed)
with replacing(Path(snakemake.output.table)) as partial:
    table.to_csv(partial, index=False)
write_machine(
    Path(snakemake.output.machine),
    device=str(on),
    code=params.code,
    test_set=Path(inputs.test_set),
)
