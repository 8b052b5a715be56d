"""Write the ground truths and starting points of every problem as images."""

import sys
from pathlib import Path

from rglib.core.problems import degradations
from rglib.data.manifest import Manifest
from rglib.restoration.evaluation import read_test_images, write_observation

sys.stderr = open(snakemake.log[0], "w", encoding="utf-8")
images = read_test_images(Manifest.read(Path(snakemake.input.test_set)))
for problem_id, degradation in degradations(snakemake.params.problems).items():
    for image in images:
        write_observation(degradation, image, Path(snakemake.output[0], problem_id))
