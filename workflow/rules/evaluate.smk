# Each method on all problems and test images: one job a method, resumed problem by problem.


localrules:
    observations,


rule evaluate:
    input:
        weights=network_of,
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
    conda:
        "../../environment.yml"
    threads: config["threads"]["evaluate"]
    resources:
        gpu=GPUS_PER_JOB,
    params:
        method=lambda wildcards: named(wildcards)[0],
        seed=lambda wildcards: named(wildcards)[1],
        algorithm=algorithm,
        role=lambda wildcards: ROLE[algorithm(wildcards)],
        problems=PROBLEMS,
        settings=settings_of,
        network=config["network"],
        precision=config["precision"]["evaluate"],
        kept=f"{RUN}/restored/{{method}}",
        code=lambda wildcards: SCRIPT("evaluate", *evaluation_code(wildcards.method)),
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
        problems=PROBLEMS,
        code=SCRIPT("observations"),
    script:
        "../scripts/observations.py"
