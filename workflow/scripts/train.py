"""Train one stage, resuming from its checkpoint, in this process or in several."""

import logging
from pathlib import Path

import torch

from rglib.training.launch import Job, become_torchrun
from rglib.training.stage import StageFiles, StageSettings, train_stage

outputs, params = snakemake.output, snakemake.params
processes = snakemake.resources.processes
threads = max(1, snakemake.threads // processes)
torch.set_num_threads(threads)
files = StageFiles.of(snakemake.input, starts=params.starts, folder=Path(params.folder))
settings = StageSettings.of(params, snakemake.config)
weights = {role: Path(outputs[role]) for role in params.learned}
card, log_file = Path(outputs.card), Path(snakemake.log[0])
if processes > 1:
    job = Job(settings, files, weights=weights, card=card, threads=threads)
    become_torchrun(job, processes=processes, log=log_file)
logging.basicConfig(filename=log_file, level=logging.INFO, format="%(message)s")
train_stage(settings, files, weights=weights, card=card)
