"""Train one stage, resuming from its checkpoint."""

import sys
from contextlib import redirect_stdout
from pathlib import Path

import torch

from rglib.stages import StageFiles, StageSettings, train_stage

torch.set_num_threads(snakemake.threads)
outputs, params = snakemake.output, snakemake.params
files = StageFiles.of(snakemake.input, starts=params.starts, folder=Path(params.folder))
settings = StageSettings.of(params, snakemake.config)
print(f"training {params.stage}: log in {snakemake.log[0]}", file=sys.stderr)
with open(snakemake.log[0], "a", buffering=1) as log, redirect_stdout(log):
    train_stage(
        settings,
        files,
        weights={role: Path(outputs[role]) for role in params.learned},
        card=Path(outputs.card),
    )
