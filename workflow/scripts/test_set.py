"""Find or download the test set, or its stand-in, and write its manifest."""

import logging
import os
from pathlib import Path

from rglib.datasets import mirror_folders, resolve_test

# on the terminal too: a stand-in must not go unseen
handlers = [logging.FileHandler(snakemake.log[0], mode="w"), logging.StreamHandler()]
logging.basicConfig(handlers=handlers, level=logging.INFO, format="%(message)s")
resolve_test(
    snakemake.params.id,
    stand_in=snakemake.params.stand_in,
    mirrors=mirror_folders(snakemake.config["mirrors"]),
    data_dir=Path(snakemake.params.downloads),
    offline=bool(os.environ.get("RGLIB_OFFLINE")),
).write(Path(snakemake.output[0]))
