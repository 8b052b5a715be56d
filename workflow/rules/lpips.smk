# LPIPS beside PSNR and SSIM, of the images that the methods restored: one job for each method, then a
# table. Needs the extra `lpips` and AlexNet's weights, and says before the work what is missing.


LPIPS_CODE = CODE.script("lpips")


localrules:
    make_lpips,


rule lpips_of_method:
    input:
        trunk_of_lpips,
        test_set=f"{RUN}/test_set.json",
        images=f"{RUN}/evaluation/{{method}}_images",
        observations=f"{RUN}/evaluation/observations",
    output:
        table=f"{RUN}/lpips/{{method}}.csv",
        machine=f"{RUN}/lpips/{{method}}.json",
    log:
        f"{RUN}/logs/lpips_{{method}}.log",
    benchmark:
        f"{RUN}/benchmarks/lpips_{{method}}.tsv"
    conda:
        "../../environment.yml"
    threads: config["threads"]["evaluate"]
    resources:
        gpu=GPUS_PER_JOB,
    params:
        method=lambda wildcards: PLAN.copied(wildcards.method)[0],
        seed=lambda wildcards: PLAN.copied(wildcards.method)[1],
        code=LPIPS_CODE,
    script:
        "../scripts/lpips.py"


rule make_lpips:
    input:
        test_set=f"{RUN}/test_set.json",
        cards=MADE_BY["cards"],
        machines=MADE_BY["machines"] + expand(f"{RUN}/lpips/{{method}}.json", method=PLAN.copies),
        results="results/results.csv",
        tables=expand(f"{RUN}/lpips/{{method}}.csv", method=PLAN.copies),
    output:
        csv="results/lpips.csv",
        md=report("results/lpips.md", caption="../report/lpips.rst", category="Tables"),
        records=records("results/lpips.csv", "results/lpips.md"),
    log:
        f"{RUN}/logs/lpips.log",
    conda:
        "../../environment.yml"
    params:
        **CODE.result(
            "rglib.report.lpips:write_lpips",
            **OF_TABLES,
            also=[LPIPS_CODE, CODE.script("observations")],
        ),
        configuration=CONFIGURATION,
        seeds=PLAN.seeds,
    script:
        "../scripts/report.py"
