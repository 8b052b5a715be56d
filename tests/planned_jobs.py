"""Print the parameters of every job of the workflow that has a script, as JSON by job.

python tests/planned_jobs.py FOLDER TARGETS... -- CONFIGFILES...
"""

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from snakemake.api import SnakemakeApi
from snakemake.settings.enums import Quietness
from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, ResourceSettings


def planned(folder: Path, targets: set[str], configfiles: list[Path]) -> dict[str, dict[str, Any]]:
    """The parameters of each job that there would be in a project where nothing is made."""
    settings = DAGSettings(targets=targets, forceall=True)
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=ConfigSettings(configfiles=configfiles),
            snakefile=folder / "Snakefile",
            workdir=folder,
        )
        with redirect_stdout(sys.stderr):
            workflow.dag(dag_settings=settings).summary()
        jobs = list(workflow._workflow.dag.jobs)
    return {
        " ".join([job.rule.name, *(f"{k}={v}" for k, v in job.wildcards_dict.items())]): dict(
            job.params.items()
        )
        for job in jobs
        if job.rule.script
    }


if __name__ == "__main__":
    folder, *words = sys.argv[1:]
    split = words.index("--")
    found = planned(Path(folder), set(words[:split]), [Path(word) for word in words[split + 1 :]])
    print(json.dumps(found, default=str))
