# From evaluations to tables, figures and the paper's claims, all under results/. These rules take
# seconds, so they run again whenever the configuration could have changed a number or a footnote.
from rglib.records.provenance import configuration_hash

CONFIGURATION = f"{config['run']} {configuration_hash(config)}"
OF_ALL_SEEDS = PLAN.stages_of(PLAN.copies)
COMPARED_STAGES = PLAN.stages_of(PLAN.compared)
OF_TABLES = {"stages": OF_ALL_SEEDS, "methods": PLAN.copies}  # for `CODE.result`
MADE_BY = {
    "test_set": f"{RUN}/test_set.json",
    "cards": STAGES.cards(OF_ALL_SEEDS),
    "machines": expand(f"{RUN}/evaluation/{{method}}.json", method=PLAN.copies),
}


localrules:
    results,
    make_tables,
    make_convergence,
    make_claims,
    make_fig1,
    make_fig2,
    make_page,
    make_ablations,


rule results:
    input:
        **MADE_BY,
        evaluations=expand(f"{RUN}/evaluation/{{method}}.csv", method=PLAN.copies),
    output:
        csv="results/results.csv",
        records=records("results/results.csv"),
    log:
        f"{RUN}/logs/results.log",
    conda:
        "../../environment.yml"
    params:
        **CODE.result("rglib.report.results:write_results", **OF_TABLES),
        configuration=CONFIGURATION,
        seeds=PLAN.seeds,
    script:
        "../scripts/report.py"


rule make_tables:
    input:
        **MADE_BY,
        results="results/results.csv",
    output:
        csv="results/table{table}.csv",
        md=report(
            "results/table{table}.md",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
        tex="results/table{table}.tex",
        records=records(
            "results/table{table}.csv", "results/table{table}.md", "results/table{table}.tex"
        ),
    log:
        f"{RUN}/logs/table{{table}}.log",
    wildcard_constraints:
        table="[123]",
    conda:
        "../../environment.yml"
    params:
        **CODE.result("rglib.report.results:write_table", **OF_TABLES),
        configuration=CONFIGURATION,
        seeds=PLAN.seeds,
        table=lambda wildcards: int(wildcards.table),
    script:
        "../scripts/report.py"


rule make_convergence:
    input:
        **MADE_BY,
        curves=expand(f"{RUN}/evaluation/{{method}}_curves.csv", method=PLAN.copies),
    output:
        csv="results/convergence.csv",
        records=records("results/convergence.csv"),
    log:
        f"{RUN}/logs/convergence.log",
    conda:
        "../../environment.yml"
    params:
        **CODE.result("rglib.report.results:write_convergence", **OF_TABLES),
        configuration=CONFIGURATION,
    script:
        "../scripts/report.py"


rule make_claims:
    input:
        **MADE_BY,
        results="results/results.csv",
        convergence="results/convergence.csv",
    output:
        csv="results/claims.csv",
        md=report("results/claims.md", caption="../report/claims.rst", category="Claims"),
        records=records("results/claims.csv", "results/claims.md"),
    log:
        f"{RUN}/logs/claims.log",
    conda:
        "../../environment.yml"
    params:
        **CODE.result("rglib.report.claims:write_claims", **OF_TABLES),
        configuration=CONFIGURATION,
        seeds=PLAN.seeds,
    script:
        "../scripts/report.py"


rule make_fig1:
    input:
        **MADE_BY,
        results="results/results.csv",
        observations=f"{RUN}/evaluation/observations",
        images=expand(f"{RUN}/evaluation/{{method}}_images", method=PLAN.by_descent),
    output:
        pdf="results/fig1.pdf",
        png=report("results/fig1.png", caption="../report/fig1.rst", category="Figures"),
        records=records("results/fig1.pdf", "results/fig1.png"),
    log:
        f"{RUN}/logs/fig1.log",
    conda:
        "../../environment.yml"
    params:
        **CODE.result(
            "rglib.report.figures:write_fig1", **OF_TABLES, also=[CODE.script("observations")]
        ),
        configuration=CONFIGURATION,
        seeds=PLAN.seeds,
        methods=PLAN.by_descent,
        folder=lambda wildcards, input: dirname(input.observations),
    script:
        "../scripts/report.py"


rule make_fig2:
    input:
        **MADE_BY,
        convergence="results/convergence.csv",
    output:
        pdf="results/fig2.pdf",
        png=report("results/fig2.png", caption="../report/fig2.rst", category="Figures"),
        records=records("results/fig2.pdf", "results/fig2.png"),
    log:
        f"{RUN}/logs/fig2.log",
    conda:
        "../../environment.yml"
    params:
        **CODE.result("rglib.report.figures:write_fig2", **OF_TABLES),
        configuration=CONFIGURATION,
        methods=PLAN.by_descent,
    script:
        "../scripts/report.py"


rule make_page:
    input:
        **MADE_BY,
        results="results/results.csv",
        convergence="results/convergence.csv",
        claims="results/claims.csv",
        observations=f"{RUN}/evaluation/observations",
        images=expand(f"{RUN}/evaluation/{{method}}_images", method=PLAN.methods),
        citation=CITATION,
    output:
        html="results/report.html",
        records=records("results/report.html"),
    log:
        f"{RUN}/logs/page.log",
    conda:
        "../../environment.yml"
    params:
        **CODE.result(
            "rglib.report.page.page:write_report", **OF_TABLES, also=[CODE.script("observations")]
        ),
        configuration=CONFIGURATION,
        seeds=PLAN.seeds,
        descending=PLAN.by_descent,
        folder=lambda wildcards, input: dirname(input.observations),
        histories={
            stage: f"{RUN}/training/{stage}/history.csv" for stage in STAGES.trained(OF_ALL_SEEDS)
        },
    script:
        "../scripts/report.py"


rule make_ablations:
    input:
        test_set=f"{RUN}/test_set.json",
        cards=STAGES.cards(COMPARED_STAGES),
        machines=expand(f"{RUN}/evaluation/{{method}}.json", method=PLAN.compared),
        evaluations=answered(
            lambda wildcards: expand(
                f"{RUN}/evaluation/{{method}}.csv", method=PLAN.all_compared()
            )
        ),
    output:
        csv="results/ablations.csv",
        md="results/ablations.md",
        records=records("results/ablations.csv", "results/ablations.md"),
    log:
        f"{RUN}/logs/ablations.log",
    conda:
        "../../environment.yml"
    params:
        **CODE.result(
            "rglib.report.ablations:write_ablations", stages=COMPARED_STAGES, methods=PLAN.compared
        ),
        configuration=CONFIGURATION,
        ablations=PLAN.ablations,
        sections=["ablations"],
    script:
        "../scripts/report.py"
