"""Find or download one data set and write its manifest."""

import logging
import os
from dataclasses import replace
from pathlib import Path

from rglib.data.datasets import mirror_folders, resolve
from rglib.data.listing import write

terminal = logging.StreamHandler()
terminal.setLevel(logging.WARNING)  # a file that is left out must not go unseen
handlers = [logging.FileHandler(snakemake.log[0], mode="w"), terminal]
logging.basicConfig(handlers=handlers, level=logging.INFO, format="%(message)s")
manifest = resolve(
    snakemake.params.id,
    mirrors=mirror_folders(snakemake.config["mirrors"]),
    data_dir=Path(snakemake.params.downloads),
    offline=bool(os.environ.get("RGLIB_OFFLINE")),
)
write(replace(manifest, listed=snakemake.params.listed), Path(snakemake.output[0]))
