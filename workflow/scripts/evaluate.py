"""Evaluate one method on every problem and test image."""

import logging
from pathlib import Path

import torch

from rglib.core.devices import device_named
from rglib.data.manifest import Manifest
from rglib.records.provenance import write_machine
from rglib.restoration.evaluation import EvaluationFiles, evaluate_method

torch.set_num_threads(snakemake.threads)
torch.backends.cudnn.allow_tf32 = False  # float32 is to mean float32
outputs, params, on = snakemake.output, snakemake.params, device_named(snakemake.config["device"])
files = EvaluationFiles(
    results=Path(outputs.results),
    curves=Path(outputs.curves),
    images=Path(outputs.images),
    kept=Path(params.kept),
)
logging.basicConfig(
    filename=snakemake.log[0], filemode="w", level=logging.INFO, format="%(message)s"
)
evaluate_method(
    params.method,
    seed=params.seed,
    algorithm=params.algorithm,
    role=params.role,
    weights=Path(snakemake.input.weights[0]),
    network=params.network,
    problems=params.problems,
    settings=params.settings,
    manifest=Manifest.read(Path(snakemake.input.test_set)),
    files=files,
    device=on,
    precision=params.precision,
    code=params.code,
)
write_machine(
    Path(outputs.machine),
    device=str(on),
    code=params.code,
    test_set=Path(snakemake.input.test_set),
)
