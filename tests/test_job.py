"""What rules hand to the functions that make results, and the simplest of these functions."""

import json

import pandas as pd
import pytest
import yaml
from snakemake.iocontainers import InputFiles, OutputFiles, Params
from toys import toy_provenance

from rglib.report.job import Job
from rglib.report.results import write_rows, write_tuning

CONFIG = {
    "problems": {"deblur_s1.6": {}},
    "methods": {"rerg": {"label": "RERG"}, "rg1": {"label": "RG1"}},
}
COLUMNS = {"method": "its id", "value": "a number"}


@pytest.fixture
def job(tmp_path):
    """A job with two tables, as Snakemake would hand it."""

    def made(rows, **params):
        tables = []
        for number, row in enumerate(rows):
            tables.append(str(tmp_path / f"{number}.csv"))
            pd.DataFrame([row]).to_csv(tables[-1], index=False)
        outputs = {name: str(tmp_path / name) for name in ("csv", "overlay")}
        one = Job(
            inputs=InputFiles(fromdict={"tables": InputFiles(tables), "first": tables[0]}),
            outputs=OutputFiles(fromdict=outputs),
            params=Params(fromdict=params),
            config=CONFIG,
        )
        one.__dict__["provenance"] = toy_provenance()
        return one

    return made


def test_labels_are_of_some_methods_or_of_all(job):
    assert job([{}]).labels(["rg1"]) == {"rg1": "RG1"}
    assert job([{}]).labels() == {"rerg": "RERG", "rg1": "RG1"}
    assert job([{}]).problems == ["deblur_s1.6"]


def test_an_input_of_several_files_is_one_table(job):
    one = job([{"value": 1}, {"value": 2}])
    assert one.table("tables")["value"].tolist() == [1, 2]
    assert one.table("first")["value"].tolist() == [1]


def test_rows_are_written_with_the_columns_that_are_described(job, tmp_path):
    rows = [{"value": 1, "aside": 0, "method": "rerg"}, {"value": 2, "aside": 0, "method": "rg1"}]
    write_rows(job(rows, title="Numbers"), columns=COLUMNS)
    assert (tmp_path / "csv").read_text() == "method,value\nrerg,1\nrg1,2\n"
    record = json.loads((tmp_path / "csv-metadata.json").read_text())
    assert record["dc:title"] == "Numbers"
    described = {of["name"]: of["dc:description"] for of in record["tableSchema"]["columns"]}
    assert described == COLUMNS


def test_what_was_chosen_is_an_overlay_that_says_what_it_was_tuned_on(job, tmp_path):
    settings = {"lr": 0.01}
    row = {"target": "deblur_s1.6", "algorithm": "gradient_descent", "chosen": True}
    row |= {"settings": json.dumps(settings)}
    tuned = job([row], crop=96, images=2, data="some")
    write_tuning(tuned, columns=dict.fromkeys(row, "a column"))
    text = (tmp_path / "overlay").read_text()
    assert text.startswith("# Tuned on centre crops, 96 pixels, of 2 images of some.\n")
    chosen = yaml.safe_load(text)["problems"]["deblur_s1.6"]
    assert chosen == settings | {"source": {"lr": "tuned"}}
