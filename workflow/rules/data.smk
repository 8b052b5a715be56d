# Data sets and image stores. The manifests of the data sets are shared by all runs. They run again
# when the definition of a data set changes, or what lies where it was found, by content; in which
# mirror that is does not matter.
from rglib.data.datasets import DOWNLOADS, definition, mirror_folders, slug
from rglib.data.listing import parameter

LOOKED_AT = [config[study]["data"] for study in ("tuning", "fixed_points") if study in config]
DATASETS = PLAN.datasets | {slug(id): id for id in LOOKED_AT}
MIRRORS = mirror_folders(config["mirrors"])


localrules:
    downloads,
    dataset,
    test_set,


# On a cluster, run this one first on a node that has internet.
rule downloads:
    input:
        expand("work/data/{dataset}.json", dataset=PLAN.datasets),
        f"{RUN}/test_set.json",


rule dataset:
    output:
        "work/data/{dataset}.json",
    log:
        "work/data/{dataset}.log",
    wildcard_constraints:
        dataset=r"[^/]+",
    conda:
        "../../environment.yml"
    params:
        id=lambda wildcards: DATASETS[wildcards.dataset],
        definition=lambda wildcards: definition(DATASETS[wildcards.dataset]),
        listed=lambda wildcards: parameter(
            Path(f"work/data/{wildcards.dataset}.json"),
            DATASETS[wildcards.dataset],
            mirrors=MIRRORS,
            data_dir=DOWNLOADS,
        ),
        downloads=str(DOWNLOADS),
        code=CODE.script("dataset"),
    script:
        "../scripts/dataset.py"


rule test_set:
    output:
        f"{RUN}/test_set.json",
    log:
        f"{RUN}/logs/test_set.log",
    conda:
        "../../environment.yml"
    params:
        id=config["data"]["test"],
        stand_in=config["data"]["test_stand_in"],
        definition=[
            definition(id) for id in [config["data"]["test"], config["data"]["test_stand_in"]]
        ],
        listed=lambda wildcards: parameter(
            Path(f"{RUN}/test_set.json"),
            config["data"]["test"],
            mirrors=MIRRORS,
            data_dir=DOWNLOADS,
        ),
        downloads=str(DOWNLOADS),
        code=CODE.script("test_set"),
    script:
        "../scripts/test_set.py"


# After the test set, which it does not read: test images that no method could restore stop the run
# before any training.
rule store:
    input:
        ancient(f"{RUN}/test_set.json"),
        manifests=lambda wildcards: expand(
            "work/data/{dataset}.json", dataset=map(slug, config["data"][wildcards.split])
        ),
    output:
        store=f"{RUN}/store/{{split}}/store.json",
        index=f"{RUN}/store/{{split}}/index.csv",
        pixels=f"{RUN}/store/{{split}}/pixels.npy",
    log:
        f"{RUN}/logs/store_{{split}}.log",
    wildcard_constraints:
        split="train|validation",
    conda:
        "../../environment.yml"
    params:
        min_size=PLAN.smallest_image,
        exclude_leaks=config["data"]["exclude_leaks"],
        code=CODE.script("store"),
    script:
        "../scripts/store.py"
