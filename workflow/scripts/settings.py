"""Write what networks restore with at test time, beside them."""

import sys
from pathlib import Path

from rglib.restoration.weights_folder import write_settings

sys.stderr = open(snakemake.log[0], "w", encoding="utf-8")
write_settings(snakemake.params.settings, Path(snakemake.output[0]))
