# The stages of training, one rule each, and stages whose weights are given.

for stage in TRAINED:

    rule:
        name:
            f"train_{stage.replace('.', '_')}"
        input:
            **training_inputs(stage),
        output:
            **weights_of(stage, learned_roles(VARIANTS["stages"][stage])),
            card=card_of(stage),
        log:
            f"{RUN}/logs/train_{stage}.log",
        benchmark:
            f"{RUN}/benchmarks/train_{stage}.tsv"
        conda:
            "../../environment.yml"
        threads: config["threads"]["train"] * processes_of(stage)
        resources:
            gpu=GPUS_PER_JOB * processes_of(stage),
            processes=processes_of(stage),
        params:
            **training_params(stage),
            folder=f"{RUN}/training/{stage}",
        script:
            "../scripts/train.py"

    # A self-check: a stage that cannot lower the loss of one batch is broken.
    rule:
        name:
            f"overfit_{stage.replace('.', '_')}"
        input:
            **training_inputs(stage),
        output:
            f"{RUN}/overfit/{stage}.json",
        log:
            f"{RUN}/logs/overfit_{stage}.log",
        conda:
            "../../environment.yml"
        threads: config["threads"]["train"]
        resources:
            gpu=GPUS_PER_JOB,
        params:
            **training_params(stage, script="overfit", schedules=["step"]),
            folder=f"{RUN}/training/overfit_{stage}",
            steps=30,
            lr=1e-4,
        script:
            "../scripts/overfit.py"


for stage in GIVEN:

    rule:
        name:
            f"given_{stage}"
        input:
            ancient(given_files(stage)),  # by content, below
        output:
            **weights_of(stage, config["weights"][stage]),
            card=card_of(stage),
        log:
            f"{RUN}/logs/given_{stage}.log",
        localrule: True
        conda:
            "../../environment.yml"
        params:
            stage=stage,
            sources=config["weights"][stage],
            contents=contents(given_files(stage)),
            network=config["network"],
            downloads=str(DOWNLOADS),
            code=SCRIPT("given", *networks_code(config["weights"][stage])),
        script:
            "../scripts/given.py"


# What the networks restore with at test time, beside them for `rglib restore --models`.
rule settings:
    output:
        f"{RUN}/models/{SETTINGS_FILE}",
    log:
        f"{RUN}/logs/settings.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        settings={section: config[section] for section in SECTIONS_AT_TEST_TIME},
        code=SCRIPT("settings"),
    script:
        "../scripts/settings.py"


rule overfit:
    input:
        [f"{RUN}/overfit/{stage}.json" for stage in STAGES if not is_given(stage, config)],


CARDS_BEFORE = {stage: [card_of(start) for start in on_the_way(stage)] for stage in TO_SHIP}


# As 16-bit files to ship: the stages that `weights` names and that are trained, and the settings.
rule publish_weights:
    input:
        [path for stage in TO_SHIP for path in published(stage)],
        before=[card for cards in CARDS_BEFORE.values() for card in cards],
        settings=rules.settings.output,
    log:
        f"{RUN}/logs/publish_weights.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        stages=CARDS_BEFORE,
        folder="weights",
    script:
        "../scripts/publish_weights.py"


# The settings alone, when only these have changed.
rule publish_settings:
    input:
        rules.settings.output,
    log:
        f"{RUN}/logs/publish_settings.log",
    localrule: True
    conda:
        "../../environment.yml"
    shell:
        "cp {input} weights/ 2> {log}"
