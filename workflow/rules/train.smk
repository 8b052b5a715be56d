# The stages of training, one rule each, and stages whose weights are given.
from rglib.data.datasets import DOWNLOADS
from rglib.records.made_with import contents
from rglib.restoration.weights_folder import SECTIONS_AT_TEST_TIME, SETTINGS_FILE

for stage in STAGES.trained(PLAN.every_stage):

    rule:
        name:
            f"train_{stage.replace('.', '_')}"
        input:
            **STAGES.inputs(stage),
        output:
            **STAGES.networks(stage),
            card=STAGES.card(stage),
        log:
            f"{RUN}/logs/train_{stage}.log",
        benchmark:
            f"{RUN}/benchmarks/train_{stage}.tsv"
        conda:
            "../../environment.yml"
        threads: config["threads"]["train"] * STAGES.processes(stage)
        resources:
            gpu=GPUS_PER_JOB * STAGES.processes(stage),
            processes=STAGES.processes(stage),
        params:
            **CODE.training_params(stage),
            folder=f"{RUN}/training/{stage}",
        script:
            "../scripts/train.py"

    # A self-check: a stage that cannot lower the loss of one batch is broken.
    rule:
        name:
            f"overfit_{stage.replace('.', '_')}"
        input:
            **STAGES.inputs(stage),
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
            **CODE.training_params(stage, script="overfit", schedules=["step"]),
            folder=f"{RUN}/training/overfit_{stage}",
            steps=30,
            lr=1e-4,
        script:
            "../scripts/overfit.py"


for stage in STAGES.given(PLAN.every_stage):

    rule:
        name:
            f"given_{stage}"
        input:
            ancient(STAGES.given_files(stage)),  # by content, below
        output:
            **STAGES.networks(stage),
            card=STAGES.card(stage),
        log:
            f"{RUN}/logs/given_{stage}.log",
        localrule: True
        conda:
            "../../environment.yml"
        params:
            stage=stage,
            sources=config["weights"][stage],
            contents=contents(STAGES.given_files(stage)),
            network=config["network"],
            downloads=str(DOWNLOADS),
            code=CODE.script("given", *networks(config["weights"][stage], config)),
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
        code=CODE.script("settings"),
    script:
        "../scripts/settings.py"


rule overfit:
    input:
        expand(f"{RUN}/overfit/{{stage}}.json", stage=STAGES.trained(PLAN.stages_of(PLAN.methods))),


CARDS_BEFORE = {stage: STAGES.cards(STAGES.on_the_way(stage)) for stage in STAGES.shipped}


# As 16-bit files to ship: the stages that `weights` names, that are trained and that a method needs,
# and the settings.
rule publish_weights:
    input:
        [path for stage in STAGES.shipped for path in STAGES.to_ship(stage)],
        before=[card for cards in CARDS_BEFORE.values() for card in cards],
        settings=rules.settings.output[0],
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
