"""Find or download the test set, or its stand-in, check it and write its manifest."""

import logging
import os
from dataclasses import replace
from pathlib import Path

from rglib.core.problems import degradations
from rglib.data.datasets import mirror_folders, resolve_test
from rglib.data.listing import write
from rglib.restoration.evaluation import check_sizes, read_test_images

terminal = logging.StreamHandler()
terminal.setLevel(logging.WARNING)  # a stand-in, or a file left out, must not go unseen
handlers = [logging.FileHandler(snakemake.log[0], mode="w"), terminal]
logging.basicConfig(handlers=handlers, level=logging.INFO, format="%(message)s")
manifest = resolve_test(
    snakemake.params.id,
    stand_in=snakemake.params.stand_in,
    mirrors=mirror_folders(snakemake.config["mirrors"]),
    data_dir=Path(snakemake.params.downloads),
    offline=bool(os.environ.get("RGLIB_OFFLINE")),
)
problems = degradations(snakemake.config["problems"])
check_sizes(manifest, read_test_images(manifest), problems)
write(replace(manifest, listed=snakemake.params.listed), Path(snakemake.output[0]))
