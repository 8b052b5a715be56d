"""Copy trained stages, as 16-bit weights with their cards, into a folder to ship."""

import shutil
import sys
from pathlib import Path

from rglib.training.stage import publish_stage

sys.stderr = open(snakemake.log[0], "w", encoding="utf-8")
shutil.copy(snakemake.input.settings, snakemake.params.folder)
for stage, before in snakemake.params.stages.items():
    files = [Path(path) for path in snakemake.input if Path(path).parent.name == stage]
    publish_stage(
        Path(snakemake.params.folder),
        card=next(path for path in files if path.name == "card.json"),
        weights={path.stem: path for path in files if path.suffix == ".safetensors"},
        before=map(Path, before),
    )
