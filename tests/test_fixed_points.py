from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from test_at_zeros import CONFIG, images
from toys import LONG_FOOT, check_layout, toy_provenance

from rglib.core.fixed_point import SemiImplicit
from rglib.core.kept import Keep
from rglib.core.problems import PROBLEMS
from rglib.plan.ablations import overlaid
from rglib.plan.check import ConfigurationError, check
from rglib.plan.fixed_point_variants import copies
from rglib.report.fixed_points import means, study_figure, study_markdown
from rglib.studies.fixed_points import COLUMNS, Calls, averaged, train_and_look
from rglib.training.objectives.equilibrium import Equilibrium
from rglib.training.trainer import Recipe, StepDecay, Trainer

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
BASE = yaml.safe_load((ROOT / "config.yaml").read_text())
SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
STUDY = overlaid(BASE, yaml.safe_load((ROOT / "config/fixed_points.yaml").read_text()))


class Noise:
    def crops(self, step):
        return np.random.default_rng(step).integers(0, 256, (2, 3, 32, 32), np.uint8)


@pytest.fixture(params=[0.5])
def run(request, tiny, tmp_path):
    recipe = Recipe(
        objective=Equilibrium(
            gradient_descent=1.0, solver=SemiImplicit(), backward_map="semi_implicit"
        ),
        steps=10**6,
        lr=1e-3,
        schedule=StepDecay(every=10**6, gamma=1.0),
        ema=request.param,
        keep=Keep(batches=2, visits=4, first_steps=5, steps=2),
    )
    networks = {"G": tiny("G")}
    return Trainer(recipe, networks, Noise(), folder=tmp_path, fingerprint="", device=CPU)


def test_calls_are_evaluations_of_an_image_in_the_mean():
    network = torch.nn.Identity()
    calls = Calls(network, batch=4)
    network(torch.zeros(4, 3))
    network(torch.zeros(2, 3))
    assert calls.count == 1.5


def test_updates_and_calls_are_counted_and_looked_at_after_the_minutes(run):
    config = overlaid(CONFIG, {"evaluation": {"iterations": 2}})
    config |= {"training_problems": BASE["training_problems"]}
    table = train_and_look(
        run,
        images(1),
        minutes=[0, 1e-4, 0.005],
        config=config,
        draws=1,
        arithmetic=torch.float32,
        note="",
    )
    assert (
        run.seconds >= 60 * 0.005
    )  # of the processor, which a rate that falls over minutes follows
    looks = table.drop_duplicates("minutes")
    assert list(looks["minutes"]) == [0, 1e-4, 0.005] and set(table) == set(COLUMNS) - {
        "variant",
        "seed",
    }
    assert looks["updates"].iloc[0] == 0 and looks["calls"].iloc[0] == 0
    assert looks["updates"].iloc[1] == 1  # one was begun, and took longer
    first = 1 + SemiImplicit().power_iterations + 5 + 1  # on the way to x_g, and taught there
    assert looks["calls"].iloc[1] == first
    assert looks["updates"].iloc[2] > 1
    assert len(table) == 3 * (len(PROBLEMS) + 1)


def test_what_is_looked_at_is_the_average_and_the_training_goes_on_untouched(run):
    for _ in range(3):
        run.update(run.batch())
    before = [p.detach().clone() for p in run.parameters]
    network = averaged(run, "G", arithmetic=torch.float32)
    assert all(map(torch.equal, network.parameters(), run.average))
    assert all(map(torch.equal, run.parameters, before))
    assert not torch.equal(run.parameters[0], run.average[0])


@pytest.mark.parametrize("run", [None], indirect=True)
def test_without_an_average_the_last_weights_are_looked_at(run):
    run.update(run.batch())
    network = averaged(run, "G", arithmetic=torch.float32)
    assert all(map(torch.equal, network.parameters(), run.parameters))


# --- the configuration ----------------------------------------------------------------------------


def test_a_configuration_without_the_section_has_no_variants():
    assert copies(BASE) == {}


def test_variants_have_one_copy_a_seed_and_their_change_alone():
    made = copies(STUDY)
    assert len(made) == 8 * 3
    new, mean_square = made["new-1"], made["mean_square-1"]
    assert mean_square == {**new, "equilibrium": {"loss": "mean_square"}}
    assert new["seed"] == 1
    check(STUDY, SCHEMA)


def test_a_variant_that_cannot_be_is_refused_before_the_work():
    wrong = overlaid(
        STUDY, {"fixed_points": {"variants": {"new": {"stage": {"equilibrium": {"kept": 1}}}}}}
    )
    with pytest.raises(ConfigurationError, match=r"fixed_points\.variants\.new\.stage"):
        check(wrong, SCHEMA)


def test_a_study_of_a_stage_that_is_not_there_is_refused():
    with pytest.raises(ConfigurationError, match=r"fixed_points\.stage: .*deqgd"):
        check(overlaid(STUDY, {"fixed_points": {"stage": "deqgg"}}), SCHEMA)


@pytest.mark.parametrize(
    "id, allowed",
    [
        ("bsds500_vall", 'did you mean "bsds500_val"?'),
        ("set5", "not data.test or data.test_stand_in"),
    ],
)
def test_a_study_looks_at_a_data_set_that_there_is_and_at_no_test_set(id, allowed):
    with pytest.raises(ConfigurationError, match=r"fixed_points\.data: '") as caught:
        check(overlaid(STUDY, {"fixed_points": {"data": id}}), SCHEMA)
    assert allowed in str(caught.value)


def test_what_a_variant_needs_of_another_section_is_told_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for stage, role in (("mtdeq", "P"), ("pnpreg", "G")):
        Path(f"{stage}_{role}").touch()
    given = {"mtdeq": {"P": {"file": "mtdeq_P"}}, "pnpreg": {"G": {"file": "pnpreg_G"}}}
    start = {"init": {"P": "pnpreg"}, "options": {"link": 0.1, "forward_backward": 1.0}}
    wrong = overlaid(STUDY, {"fixed_points": {"variants": {"new": {"stage": start}}}})
    wrong |= {"init": "weights", "weights": given}
    with pytest.raises(ConfigurationError) as caught:
        check(wrong, SCHEMA)
    assert "weights.pnpreg.P: is missing; fixed_points.variants.new.stage.init.P needs it" in str(
        caught.value
    )


# --- what is written ------------------------------------------------------------------------------


def table_of(variants=("new", "before"), seeds=(0, 1)):
    rows = [
        {
            "variant": variant,
            "seed": seed,
            "minutes": minutes,
            "updates": 10 * minutes,
            "calls": 80 * minutes,
            "problem_id": problem,
            "psnr_db": 20 + minutes + seed + (variant == "new") + problem.startswith("completion"),
        }
        for variant in variants
        for seed in seeds
        for minutes in (0.5, 1.5)
        for problem in (*PROBLEMS, "held_out")
    ]
    return pd.DataFrame(rows)


PLAN = {
    "images": 16,
    "crop": 96,
    "data": "bsds500_val",
    "seeds": [0, 1],
    "variants": {"new": {"label": "all"}, "before": {"label": "as before"}},
}


def test_means_are_over_the_twelve_problems_and_by_kind():
    looks = means(table_of())
    last = looks[(looks["variant"] == "new") & (looks["seed"] == 0)].iloc[-1]
    assert last["all twelve"] == pytest.approx(22.5 + 2 / 12)
    assert (last["completion"], last["deblurring"]) == (23.5, 22.5)
    assert (last["super-resolution"], last["held out"]) == (22.5, 22.5)


def test_the_table_has_a_row_a_look_with_means_over_seeds():
    text = study_markdown(table_of(), plan=PLAN, provenance=toy_provenance())
    (row,) = [
        line for line in text.splitlines() if line.startswith("| as before | ") and "1.5" in line
    ]
    assert text.startswith("# Training at fixed points")
    assert "96 pixels of Embedded, after" in text and "; mean over 2 seeds ± " in text
    one = study_markdown(table_of(), plan=PLAN | {"seeds": [0]}, provenance=toy_provenance())
    assert "; one seed. " in one and "±" not in one.partition("|")[0]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:4] == ["as before", "1.5", "15", "120"]
    assert cells[4] == "22.17 ± 0.71"  # over seeds 21.67 and 22.67


def test_what_diverges_is_said_to():
    table = table_of()
    table.loc[(table["variant"] == "new") & (table["problem_id"] == "completion90"), "psnr_db"] = (
        float("-inf")
    )
    text = study_markdown(table, plan=PLAN, provenance=toy_provenance())
    rows = [line for line in text.splitlines() if line.startswith("| all |")]
    assert all(row.count("diverged") == 2 for row in rows)


def test_the_figure_has_a_line_for_each_variant_over_both_costs():
    figure = study_figure(table_of(), plan=PLAN, provenance=toy_provenance())
    for axes, cost in zip(figure.axes, ("minutes", "calls"), strict=True):
        lines = [line for line in axes.lines if line.get_linestyle() != "None"]
        assert len(lines) == 2 and cost in axes.get_xlabel()
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["all", "as before"]
    check_layout(study_figure(table_of(), plan=PLAN, provenance=LONG_FOOT), foot_lines=2)
