"""Write the ground truths and starting points of every problem as images."""

import sys
from pathlib import Path

from rglib.datasets import Manifest
from rglib.evaluation import read_test_images, write_observation

sys.stderr = open(snakemake.log[0], "w", encoding="utf-8")
images = read_test_images(Manifest.read(Path(snakemake.input.test_set)))
for problem_id in snakemake.params.problems:
    for image in images:
        write_observation(problem_id, image, Path(snakemake.output[0]))
