# What each part of the training at fixed points brings: one job for each variant and seed, then a
# table and a figure. The section fixed_points is in the overlay config/fixed_points.yaml.
STUDY = config.get("fixed_points")
STUDY_CODE = {"stages": PLAN.before_studied, "also": list(map(CODE.study, PLAN.studied))}
GRADIENTS_CODE = CODE.script("study_gradients", *networks("G", config))
STUDIED_BY = {
    "test_set": f"work/data/{slug(STUDY['data'])}.json" if STUDY else [],
    "cards": STAGES.cards(PLAN.before_studied),
    "machines": expand(f"{RUN}/fixed_points/{{trained}}.json", trained=PLAN.studied),
}


if STUDY:

    rule study_fixed_points:
        input:
            unpack(lambda wildcards: STAGES.inputs(wildcards.trained)),
            data=STUDIED_BY["test_set"],
            test_set=f"{RUN}/test_set.json",
        output:
            table=f"{RUN}/fixed_points/{{trained}}.csv",
            machine=f"{RUN}/fixed_points/{{trained}}.json",
        log:
            f"{RUN}/logs/fixed_points_{{trained}}.log",
        benchmark:
            f"{RUN}/benchmarks/fixed_points_{{trained}}.tsv"
        wildcard_constraints:
            trained="|".join(PLAN.studied),
        conda:
            "../../environment.yml"
        threads: config["threads"]["train"]
        resources:
            gpu=GPUS_PER_JOB,
        params:
            stage=of_training("stage"),
            starts=of_training("starts"),
            entry=of_training("entry"),
            shared=of_training("shared"),
            network=of_training("network"),
            precision=of_training("precision"),
            seed=of_training("seed"),
            plan={key: STUDY[key] for key in ("minutes", "images", "crop", "draws")},
            settings={key: config[key] for key in ("evaluation", "problems", "training_problems")},
            evaluated_in=config["precision"]["evaluate"],
            folder=f"{RUN}/training/fixed_points",
            code=lambda wildcards: CODE.study(wildcards.trained),
        script:
            "../scripts/study_fixed_points.py"

    rule study_gradients:
        input:
            G=STAGES.network(STUDY["gradients"]["stage"], "G"),
            data=STUDIED_BY["test_set"],
            test_set=f"{RUN}/test_set.json",
        output:
            table=f"{RUN}/fixed_points/gradients.csv",
            machine=f"{RUN}/fixed_points/gradients.json",
        log:
            f"{RUN}/logs/gradients.log",
        benchmark:
            f"{RUN}/benchmarks/gradients.tsv"
        conda:
            "../../environment.yml"
        threads: config["threads"]["train"]
        resources:
            gpu=GPUS_PER_JOB,
        params:
            plan=STUDY["gradients"],
            eta_gd=config["equilibrium"]["eta_gd"],
            network=config["network"],
            code=GRADIENTS_CODE,
        script:
            "../scripts/study_gradients.py"

    rule make_gradients:
        input:
            test_set=STUDIED_BY["test_set"],
            cards=[STAGES.card(STUDY["gradients"]["stage"])],
            machines=[rules.study_gradients.output.machine],
            table=rules.study_gradients.output.table,
        output:
            csv="results/gradients.csv",
            pdf="results/gradients.pdf",
            png=report(
                "results/gradients.png", caption="../report/gradients.rst", category="Figures"
            ),
            records=records(
                "results/gradients.csv", "results/gradients.pdf", "results/gradients.png"
            ),
        log:
            f"{RUN}/logs/make_gradients.log",
        localrule: True
        conda:
            "../../environment.yml"
        params:
            **CODE.result(
                "rglib.report.fixed_points:write_gradients",
                given={"columns": "rglib.studies.gradients:COLUMNS"},
                stages=STAGES.with_predecessors([STUDY["gradients"]["stage"]]),
                also=[GRADIENTS_CODE],
            ),
            configuration=CONFIGURATION,
            plan=STUDY,
            sections=["fixed_points"],
        script:
            "../scripts/report.py"

    rule make_fixed_points:
        input:
            **STUDIED_BY,
            tables=expand(f"{RUN}/fixed_points/{{trained}}.csv", trained=PLAN.studied),
        output:
            csv="results/fixed_points.csv",
            md=report(
                "results/fixed_points.md",
                caption="../report/fixed_points.rst",
                category="Tables",
            ),
            records=records("results/fixed_points.csv", "results/fixed_points.md"),
        log:
            f"{RUN}/logs/fixed_points.log",
        localrule: True
        conda:
            "../../environment.yml"
        params:
            **CODE.result(
                "rglib.report.fixed_points:write_study",
                given={"columns": "rglib.studies.fixed_points:COLUMNS"},
                **STUDY_CODE,
            ),
            configuration=CONFIGURATION,
            plan=STUDY,
            sections=["fixed_points"],
        script:
            "../scripts/report.py"

    rule make_fixed_points_figure:
        input:
            **STUDIED_BY,
            table="results/fixed_points.csv",
        output:
            pdf="results/fixed_points.pdf",
            png=report(
                "results/fixed_points.png",
                caption="../report/fixed_points.rst",
                category="Figures",
            ),
            records=records("results/fixed_points.pdf", "results/fixed_points.png"),
        log:
            f"{RUN}/logs/fixed_points_figure.log",
        localrule: True
        conda:
            "../../environment.yml"
        params:
            **CODE.result("rglib.report.fixed_points:write_study_figure", **STUDY_CODE),
            configuration=CONFIGURATION,
            plan=STUDY,
            sections=["fixed_points"],
        script:
            "../scripts/report.py"
