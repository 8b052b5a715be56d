# The accelerated solver beside the paper's Adam: copies of the methods by gradient descent, one job
# of the rule `evaluate` for each method and solver, and one for each method on the way to x_g in
# training; then tables and a figure.
ACCELERATION = config["acceleration"]
DRAWN_BY = config["stages"][ACCELERATION["training"]["stage"]]
STAGES_BY_DESCENT = PLAN.stages_of(PLAN.by_descent)
ACCELERATED_BY = {
    "test_set": f"{RUN}/test_set.json",
    "cards": STAGES.cards(STAGES_BY_DESCENT),
    "machines": expand(
        f"{RUN}/{{job}}.json",
        job=[
            *expand("evaluation/{copy}", copy=PLAN.accelerated),
            *expand("acceleration/{method}", method=PLAN.by_descent),
        ],
    ),
}
TRAINING_CODE = CODE.script("acceleration_in_training", *networks("G", config))
ACCELERATION_CODE = {
    "stages": STAGES_BY_DESCENT,
    "methods": PLAN.accelerated,
    "also": [TRAINING_CODE],
}


localrules:
    make_acceleration,
    make_acceleration_figure,


rule acceleration_in_training:
    input:
        G=lambda wildcards: PLAN.network(wildcards.method),
        train=f"{RUN}/store/train/store.json",
    output:
        table=f"{RUN}/acceleration/{{method}}.csv",
        machine=f"{RUN}/acceleration/{{method}}.json",
    log:
        f"{RUN}/logs/acceleration_{{method}}.log",
    benchmark:
        f"{RUN}/benchmarks/acceleration_{{method}}.tsv"
    conda:
        "../../environment.yml"
    threads: config["threads"]["evaluate"]
    resources:
        gpu=GPUS_PER_JOB,
    params:
        training={key: ACCELERATION["training"][key] for key in ("batches", "max_iterations")},
        budget={key: DRAWN_BY["budget"][key] for key in ("batch", "crop")},
        seed=DRAWN_BY.get("seed", config["seeds"][0]),
        shared={
            section: config[section] | DRAWN_BY.get(section, {})
            for section in ("equilibrium", "training_problems")
        },
        network=config["network"],
        code=TRAINING_CODE,
    script:
        "../scripts/acceleration_in_training.py"


rule make_acceleration:
    input:
        **ACCELERATED_BY,
        curves=expand(f"{RUN}/evaluation/{{copy}}_curves.csv", copy=PLAN.accelerated),
        results=expand(f"{RUN}/evaluation/{{copy}}.csv", copy=PLAN.accelerated),
        training=of_descent(f"{RUN}/acceleration/{{method}}.csv"),
    output:
        csv="results/acceleration.csv",
        training="results/acceleration_training.csv",
        md=report(
            "results/acceleration.md", caption="../report/acceleration.rst", category="Tables"
        ),
        records=records(
            "results/acceleration.csv",
            "results/acceleration_training.csv",
            "results/acceleration.md",
        ),
    log:
        f"{RUN}/logs/acceleration.log",
    conda:
        "../../environment.yml"
    params:
        **CODE.result(
            "rglib.report.acceleration:write_acceleration",
            given={
                "calls_before": "rglib.studies.acceleration:CALLS_BEFORE",
                "training_columns": "rglib.studies.acceleration:COLUMNS",
            },
            **ACCELERATION_CODE,
        ),
        configuration=CONFIGURATION,
        acceleration=ACCELERATION,
        sections=["acceleration"],
        methods=PLAN.by_descent,
    script:
        "../scripts/report.py"


rule make_acceleration_figure:
    input:
        **ACCELERATED_BY,
        table="results/acceleration.csv",
    output:
        pdf="results/acceleration.pdf",
        png=report(
            "results/acceleration.png", caption="../report/acceleration.rst", category="Figures"
        ),
        records=records("results/acceleration.pdf", "results/acceleration.png"),
    log:
        f"{RUN}/logs/acceleration_figure.log",
    conda:
        "../../environment.yml"
    params:
        **CODE.result("rglib.report.acceleration:write_figure", **ACCELERATION_CODE),
        configuration=CONFIGURATION,
        acceleration=ACCELERATION,
        sections=["acceleration"],
        methods=PLAN.by_descent,
    script:
        "../scripts/report.py"
