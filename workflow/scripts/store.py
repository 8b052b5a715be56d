"""Build the image store of one split from the manifests of its data sets."""

import logging
from pathlib import Path

from rglib.data.datasets import without_leaks
from rglib.data.images import build_store
from rglib.data.manifest import Manifest

logging.basicConfig(filename=snakemake.log[0], filemode="w", level=logging.INFO)
manifests = [Manifest.read(Path(path)) for path in snakemake.input.manifests]
if snakemake.params.exclude_leaks:
    manifests = [without_leaks(manifest) for manifest in manifests]
build_store(manifests, Path(snakemake.output.store).parent, min_size=snakemake.params.min_size)
