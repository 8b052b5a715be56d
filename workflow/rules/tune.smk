# What the paper leaves open at test time, tuned on validation images: one job for each problem or
# task with open settings, then the whole grid, and the best of it as an overlay.


localrules:
    make_tuning,


rule tune_target:
    input:
        weights=tuned_weights,
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
        algorithm=lambda wildcards: TUNED[wildcards.target],
        method=lambda wildcards: tuned_method(wildcards.target),
        role=lambda wildcards: ROLE[TUNED[wildcards.target]],
        settings={key: config[key] for key in ("evaluation", "problems", "admm", "tuning")},
        network=config["network"],
        precision=config["precision"]["evaluate"],
        problems=PROBLEMS,
        code=lambda wildcards: tuning_code(wildcards.target),
    script:
        "../scripts/tune.py"


rule make_tuning:
    input:
        test_set=f"{RUN}/test_set.json",
        cards=lambda wildcards: [card_of(stage) for stage in tuned_stages()],
        machines=expand(f"{RUN}/tuning/{{target}}.json", target=TUNED),
        tables=expand(f"{RUN}/tuning/{{target}}.csv", target=TUNED),
    output:
        csv="results/tuning.csv",
        overlay="results/tuned.yaml",
        records=records("results/tuning.csv", "results/tuned.yaml"),
    log:
        f"{RUN}/logs/tuning.log",
    conda:
        "../../environment.yml"
    params:
        configuration=CONFIGURATION,
        data=config["tuning"]["data"],
        images=config["tuning"]["images"],
        crop=config["tuning"]["crop"],
        sections=["tuning"],
        code=lambda wildcards: MADE_WITH(
            "report_tuning", stages=tuned_stages(), also=map(tuning_code, TUNED)
        ),
    script:
        "../scripts/report_tuning.py"
