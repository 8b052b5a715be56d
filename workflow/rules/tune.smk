# What the paper leaves open at test time, tuned on validation images: one job for each problem or
# task with open settings, then the whole grid, and the best of it as an overlay.


localrules:
    make_tuning,


rule tune_target:
    input:
        weights=answered(lambda wildcards: PLAN.tuned_network(wildcards.target)),
        data=f"work/data/{slug(config['tuning']['data'])}.json",
        test_set=f"{RUN}/test_set.json",
    output:
        table=f"{RUN}/tuning/{{target}}.csv",
        machine=f"{RUN}/tuning/{{target}}.json",
    log:
        f"{RUN}/logs/tune_{{target}}.log",
    benchmark:
        f"{RUN}/benchmarks/tune_{{target}}.tsv"
    wildcard_constraints:
        target="[^/]+",
    conda:
        "../../environment.yml"
    threads: config["threads"]["evaluate"]
    resources:
        gpu=GPUS_PER_JOB,
    params:
        algorithm=lambda wildcards: PLAN.tuned[wildcards.target],
        method=lambda wildcards: PLAN.tuned_by(wildcards.target),
        role=lambda wildcards: PLAN.role(PLAN.tuned_by(wildcards.target)),
        settings={key: config[key] for key in ("evaluation", "problems", "admm", "tuning")},
        network=config["network"],
        precision=config["precision"]["evaluate"],
        problems=CODE.problems,
        code=lambda wildcards: CODE.tuning(wildcards.target),
    script:
        "../scripts/tune.py"


rule make_tuning:
    input:
        test_set=f"{RUN}/test_set.json",
        cards=STAGES.cards(PLAN.tuned_stages),
        machines=expand(f"{RUN}/tuning/{{target}}.json", target=PLAN.tuned),
        tables=expand(f"{RUN}/tuning/{{target}}.csv", target=PLAN.tuned),
    output:
        csv="results/tuning.csv",
        overlay="results/tuned.yaml",
        records=records("results/tuning.csv", "results/tuned.yaml"),
    log:
        f"{RUN}/logs/tuning.log",
    conda:
        "../../environment.yml"
    params:
        **CODE.result(
            "rglib.report.results:write_tuning",
            given={"columns": "rglib.studies.tuning:COLUMNS"},
            stages=PLAN.tuned_stages,
            also=map(CODE.tuning, PLAN.tuned),
        ),
        configuration=CONFIGURATION,
        data=config["tuning"]["data"],
        images=config["tuning"]["images"],
        crop=config["tuning"]["crop"],
        sections=["tuning"],
    script:
        "../scripts/report.py"
