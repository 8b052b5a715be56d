# Each method on all problems and test images: one job a method, resumed problem by problem.


localrules:
    observations,


rule evaluate:
    input:
        weights=lambda wildcards: [PLAN.network(wildcards.method)],
        test_set=f"{RUN}/test_set.json",
    output:
        results=f"{RUN}/evaluation/{{method}}.csv",
        curves=f"{RUN}/evaluation/{{method}}_curves.csv",
        images=directory(f"{RUN}/evaluation/{{method}}_images"),
        machine=f"{RUN}/evaluation/{{method}}.json",
    log:
        f"{RUN}/logs/evaluate_{{method}}.log",
    benchmark:
        f"{RUN}/benchmarks/evaluate_{{method}}.tsv"
    priority: -1  # nothing long waits for it, as for what comes before
    conda:
        "../../environment.yml"
    threads: config["threads"]["evaluate"]
    resources:
        gpu=GPUS_PER_JOB,
    params:
        method=lambda wildcards: PLAN.copied(wildcards.method)[0],
        seed=lambda wildcards: PLAN.copied(wildcards.method)[1],
        algorithm=lambda wildcards: PLAN.algorithm(wildcards.method),
        role=lambda wildcards: PLAN.role(wildcards.method),
        problems=CODE.problems,
        settings=lambda wildcards: PLAN.settings(wildcards.method),
        network=config["network"],
        precision=config["precision"]["evaluate"],
        kept=f"{RUN}/restored/{{method}}",
        code=lambda wildcards: CODE.evaluation(wildcards.method),
    script:
        "../scripts/evaluate.py"


rule observations:
    input:
        test_set=f"{RUN}/test_set.json",
    output:
        directory(f"{RUN}/evaluation/observations"),
    log:
        f"{RUN}/logs/observations.log",
    conda:
        "../../environment.yml"
    params:
        problems=CODE.problems,
        code=CODE.script("observations"),
    script:
        "../scripts/observations.py"
