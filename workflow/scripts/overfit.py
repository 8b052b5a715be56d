"""Check that a stage can lower the loss of one fixed batch."""

import json
import sys
from pathlib import Path

import torch

from rglib.training.stage import StageFiles, StageSettings, overfit

sys.stderr = open(snakemake.log[0], "w", encoding="utf-8")
torch.set_num_threads(snakemake.threads)
params = snakemake.params
files = StageFiles.of(snakemake.input, starts=params.starts, folder=Path(params.folder))
settings = StageSettings.of(params, snakemake.config)
before, after = overfit(settings, files, steps=params.steps, lr=params.lr)
if not after < before:
    raise SystemExit(f"{params.stage} cannot overfit one batch: loss {before:.4g} -> {after:.4g}")
report = {"stage": params.stage, "loss_before": before, "loss_after": after, "steps": params.steps}
Path(snakemake.output[0]).write_text(json.dumps(report) + "\n")
