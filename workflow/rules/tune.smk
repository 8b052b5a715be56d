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
        f"{RUN}/tuning/{{target}}.csv",
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
        code=CODE("rglib.tuning"),
    script:
        "../scripts/tune.py"


rule make_tuning:
    input:
        test_set=f"{RUN}/test_set.json",
        cards=tuned_cards,
        tables=expand(f"{RUN}/tuning/{{target}}.csv", target=TUNED),
    output:
        csv="results/tuning.csv",
        metadata="results/tuning.csv-metadata.json",
        overlay="results/tuned.yaml",
    log:
        f"{RUN}/logs/tuning.log",
    conda:
        "../../environment.yml"
    params:
        configuration=CONFIGURATION,
        data=config["tuning"]["data"],
        images=config["tuning"]["images"],
        crop=config["tuning"]["crop"],
        code=CODE("rglib.tuning"),
    script:
        "../scripts/report_tuning.py"
