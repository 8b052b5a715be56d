# From evaluations to tables, figures and the paper's claims, all under results/. These rules take
# seconds, so they run again whenever the configuration could have changed a number or a footnote.
from rglib.provenance import configuration_hash

GD_METHODS = [m for m in METHODS if config["methods"][m]["algorithm"] == "gradient_descent"]
CONFIGURATION = f"{config['run']} {configuration_hash(config)}"
MADE_BY = {"test_set": f"{RUN}/test_set.json", "cards": MODEL_CARDS}


localrules:
    results,
    make_tables,
    make_convergence,
    make_claims,
    make_fig1,
    make_fig2,
    make_ablations,


rule results:
    input:
        **MADE_BY,
        evaluations=expand(f"{RUN}/evaluation/{{method}}.csv", method=COPIES),
    output:
        csv="results/results.csv",
        metadata="results/results.csv-metadata.json",
    log:
        f"{RUN}/logs/results.log",
    conda:
        "../../environment.yml"
    params:
        configuration=CONFIGURATION,
        seeds=SEEDS,
        code=CODE("rglib.results"),
    script:
        "../scripts/report_results.py"


rule make_tables:
    input:
        **MADE_BY,
        results="results/results.csv",
    output:
        csv="results/table{table}.csv",
        metadata="results/table{table}.csv-metadata.json",
        md=report(
            "results/table{table}.md",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
        tex="results/table{table}.tex",
    log:
        f"{RUN}/logs/table{{table}}.log",
    wildcard_constraints:
        table="[12]",
    conda:
        "../../environment.yml"
    params:
        configuration=CONFIGURATION,
        seeds=SEEDS,
        code=CODE("rglib.results"),
    script:
        "../scripts/report_table.py"


rule make_convergence:
    input:
        **MADE_BY,
        curves=expand(f"{RUN}/evaluation/{{method}}_curves.csv", method=COPIES),
    output:
        csv="results/convergence.csv",
        metadata="results/convergence.csv-metadata.json",
    log:
        f"{RUN}/logs/convergence.log",
    conda:
        "../../environment.yml"
    params:
        configuration=CONFIGURATION,
        code=CODE("rglib.results"),
    script:
        "../scripts/report_convergence.py"


rule make_claims:
    input:
        **MADE_BY,
        results="results/results.csv",
        convergence="results/convergence.csv",
    output:
        csv="results/claims.csv",
        metadata="results/claims.csv-metadata.json",
        md=report("results/claims.md", caption="../report/claims.rst", category="Claims"),
    log:
        f"{RUN}/logs/claims.log",
    conda:
        "../../environment.yml"
    params:
        configuration=CONFIGURATION,
        seeds=SEEDS,
        code=CODE("rglib.claims"),
    script:
        "../scripts/report_claims.py"


rule make_fig1:
    input:
        **MADE_BY,
        results="results/results.csv",
        observations=f"{RUN}/evaluation/observations",
        images=expand(f"{RUN}/evaluation/{{method}}_images", method=GD_METHODS),
    output:
        pdf="results/fig1.pdf",
        png=report("results/fig1.png", caption="../report/fig1.rst", category="Figures"),
    log:
        f"{RUN}/logs/fig1.log",
    conda:
        "../../environment.yml"
    params:
        configuration=CONFIGURATION,
        seeds=SEEDS,
        code=CODE("rglib.figures"),
        methods=GD_METHODS,
        folder=lambda wildcards, input: dirname(input.observations),
    script:
        "../scripts/report_fig1.py"


rule make_fig2:
    input:
        **MADE_BY,
        convergence="results/convergence.csv",
    output:
        pdf="results/fig2.pdf",
        png=report("results/fig2.png", caption="../report/fig2.rst", category="Figures"),
    log:
        f"{RUN}/logs/fig2.log",
    conda:
        "../../environment.yml"
    params:
        configuration=CONFIGURATION,
        code=CODE("rglib.figures"),
        methods=GD_METHODS,
    script:
        "../scripts/report_fig2.py"


rule make_ablations:
    input:
        test_set=f"{RUN}/test_set.json",
        cards=[card_of(stage) for stage in with_predecessors(map(stage_of, COMPARED))],
        evaluations=ablation_evaluations,
    output:
        csv="results/ablations.csv",
        metadata="results/ablations.csv-metadata.json",
        md="results/ablations.md",
    log:
        f"{RUN}/logs/ablations.log",
    conda:
        "../../environment.yml"
    params:
        configuration=CONFIGURATION,
        ablations=ABLATIONS,
        code=CODE("rglib.ablation_table"),
    script:
        "../scripts/report_ablations.py"
