# Theorem 1 on the trained networks: one job for each method with a G, then a table and a figure.


BOUND_BY = {
    "test_set": f"{RUN}/test_set.json",
    "cards": MODEL_CARDS,
    "machines": expand(f"{RUN}/bound/{{method}}.json", method=PLAN.by_descent),
}


BOUND_CODE = CODE.script("bound", *networks("PG", config))


localrules:
    make_bound,
    make_bound_figure,


rule bound_of_method:
    input:
        P=lambda wildcards: STAGES.network(PLAN.denoiser(wildcards.method), "P"),
        G=lambda wildcards: PLAN.network(wildcards.method),
        test_set=f"{RUN}/test_set.json",
    output:
        table=f"{RUN}/bound/{{method}}.csv",
        machine=f"{RUN}/bound/{{method}}.json",
    log:
        f"{RUN}/logs/bound_{{method}}.log",
    benchmark:
        f"{RUN}/benchmarks/bound_{{method}}.tsv"
    conda:
        "../../environment.yml"
    threads: config["threads"]["evaluate"]
    resources:
        gpu=GPUS_PER_JOB,
    params:
        denoiser=lambda wildcards: PLAN.denoiser(wildcards.method),
        bound={key: config["bound"][key] for key in config["bound"] if key != "denoiser"},
        equilibrium={key: config["equilibrium"][key] for key in ("eta_fb", "eta_gd", "guard")},
        s_255={id: config["problems"][id]["s_255"] for id in PLAN.papers_problems},
        network=config["network"],
        code=BOUND_CODE,
    script:
        "../scripts/bound.py"


rule make_bound:
    input:
        **BOUND_BY,
        tables=of_descent(f"{RUN}/bound/{{method}}.csv"),
    output:
        csv="results/bound.csv",
        records=records("results/bound.csv"),
    log:
        f"{RUN}/logs/bound.log",
    conda:
        "../../environment.yml"
    params:
        **CODE.result(
            "rglib.report.results:write_rows",
            given={"columns": "rglib.report.theorem1:COLUMNS"},
            stages=PLAN.stages_of(PLAN.methods),
            also=[BOUND_CODE],
        ),
        configuration=CONFIGURATION,
        sections=["bound"],
        title="Both sides of Theorem 1, one row per method, problem and image",
    script:
        "../scripts/report.py"


rule make_bound_figure:
    input:
        **BOUND_BY,
        bound="results/bound.csv",
    output:
        pdf="results/bound.pdf",
        png=report("results/bound.png", caption="../report/bound.rst", category="Figures"),
        records=records("results/bound.pdf", "results/bound.png"),
    log:
        f"{RUN}/logs/bound_figure.log",
    conda:
        "../../environment.yml"
    params:
        **CODE.result(
            "rglib.report.theorem1:write_figure",
            stages=PLAN.stages_of(PLAN.methods),
            also=[BOUND_CODE],
        ),
        configuration=CONFIGURATION,
        sections=["bound"],
        methods=PLAN.by_descent,
    script:
        "../scripts/report.py"
