# Is G a gradient, and does D + s^2 G have one zero? One job for each method with a G, then a table.


SYMMETRY_CODE = CODE.script("symmetry", *networks("G", config))


localrules:
    make_symmetry,


rule symmetry_of_method:
    input:
        G=lambda wildcards: PLAN.network(wildcards.method),
        test_set=f"{RUN}/test_set.json",
    output:
        table=f"{RUN}/symmetry/{{method}}.csv",
        machine=f"{RUN}/symmetry/{{method}}.json",
    log:
        f"{RUN}/logs/symmetry_{{method}}.log",
    benchmark:
        f"{RUN}/benchmarks/symmetry_{{method}}.tsv"
    conda:
        "../../environment.yml"
    threads: config["threads"]["evaluate"]
    resources:
        gpu=GPUS_PER_JOB,
    params:
        symmetry=config["symmetry"],
        s_255={id: config["problems"][id]["s_255"] for id in PLAN.papers_problems},
        network=config["network"],
        code=SYMMETRY_CODE,
    script:
        "../scripts/symmetry.py"


rule make_symmetry:
    input:
        tables=of_descent(f"{RUN}/symmetry/{{method}}.csv"),
        test_set=f"{RUN}/test_set.json",
        cards=MODEL_CARDS,
        machines=expand(f"{RUN}/symmetry/{{method}}.json", method=PLAN.by_descent),
    output:
        csv="results/symmetry.csv",
        records=records("results/symmetry.csv"),
    log:
        f"{RUN}/logs/symmetry.log",
    conda:
        "../../environment.yml"
    params:
        **CODE.result(
            "rglib.report.results:write_rows",
            given={"columns": "rglib.studies.symmetry:COLUMNS"},
            stages=PLAN.stages_of(PLAN.methods),
            also=[SYMMETRY_CODE],
        ),
        configuration=CONFIGURATION,
        sections=["symmetry"],
        title="How far from symmetric the Jacobian of G is, and the zeros from many starts",
    script:
        "../scripts/report.py"
