"""Find or download one data set and write its manifest."""

import logging
import os
from pathlib import Path

from rglib.datasets import mirror_folders, resolve

logging.basicConfig(filename=snakemake.log[0], filemode="w", level=logging.INFO)
resolve(
    snakemake.params.id,
    mirrors=mirror_folders(snakemake.config["mirrors"]),
    data_dir=Path(snakemake.params.downloads),
    offline=bool(os.environ.get("RGLIB_OFFLINE")),
).write(Path(snakemake.output[0]))
