import json
from pathlib import Path

import pytest

from rglib import paper
from rglib.core.problems import TrainingDistribution
from rglib.records import provenance
from rglib.records.model_card import ModelCard
from rglib.records.provenance import (
    Budget,
    MixedError,
    code_version,
    configuration_hash,
    headwords,
    read_provenance,
    write_machine,
)

ROOT = Path(__file__).parent.parent
CONFIG = {
    "run": "trial",
    "seeds": [3],
    "precision": {"train": "auto", "evaluate": "float32"},
    "mirrors": [],
    "threads": {"train": 2},
    "network": {"widths": [16, 32], "blocks": 1},
    "evaluation": {
        "solver": "adam",
        "iterations": 64,
        "tolerance": None,
        "average": False,
        "x0": "released",
    },
}
PAPER_CONFIG = CONFIG | {
    "network": {"widths": [64, 128, 256, 512], "blocks": 4},
    "evaluation": {
        "solver": "adam",
        "iterations": 1500,
        "tolerance": None,
        "average": False,
        "x0": "released",
    },
}
IMAGES = [{"name": "bird", "path": "here/bird.png", "sha256": "ab"}]
SET5 = {"title": "Set5", "stand_in_for": None, "images": IMAGES}
STAND_IN = {"title": "Embedded photographs", "stand_in_for": "Set5", "images": IMAGES}
CARD = {
    "stage": "rerg",
    "network": CONFIG["network"],
    "steps": 10,
    "batch": 4,
    "crop": 64,
    "data": ["skimage"],
    "images": 20,
    "device": "cpu",
}
PAPER_CARD = CARD | {"steps": 78_750, "batch": 16, "crop": 128, "images": 8394}


def make_provenance(config, *, cards, test_set, machines=()):
    read = [ModelCard.of({"network": CONFIG["network"]} | card) for card in cards]
    return provenance.make_provenance(config, cards=read, test_set=test_set, machines=machines)


def test_configuration_hash_counts_what_moves_numbers():
    assert configuration_hash(CONFIG) == configuration_hash(dict(reversed(CONFIG.items())))
    assert configuration_hash(CONFIG) == configuration_hash(CONFIG | {"mirrors": ["x"]})
    assert configuration_hash(CONFIG) == configuration_hash(CONFIG | {"threads": {"train": 8}})
    assert configuration_hash(CONFIG) != configuration_hash(CONFIG | {"seeds": [4]})


@pytest.mark.parametrize(
    "card", sorted((ROOT / "weights").glob("*.card.json")), ids=lambda card: card.name
)
def test_the_cards_that_are_shipped_can_be_told(card):
    shipped = json.loads(card.read_text())
    (stage,) = make_provenance(CONFIG, test_set=SET5, cards=[shipped]).stages
    assert stage.budget.steps == shipped["steps"]


def test_departures_are_loud():
    said = make_provenance(CONFIG, test_set=STAND_IN, cards=[CARD]).lines()
    text = "\n".join(said)
    assert said[0].startswith("STAND-IN TEST SET: Embedded photographs instead of Set5")
    for words in (
        "FEWER ITERATIONS of gradient descent: 64 instead of 1500",
        "SMALLER NETWORK: 16-32, 1 block per scale; the paper: 64-128-256-512, 4 blocks",
        "SHORTER TRAINING: rerg: 10 steps of 4 crops 64x64 on cpu (the paper: 78,750 steps of 16",
        "OTHER TRAINING DATA of rerg: skimage, 20 images; the paper: DIV2K",
        "Run trial",
        "seed 3",
        "Arithmetic inside the networks: train auto, evaluate float32",
        "torch ",
    ):
        assert words in text


def test_a_table_says_each_kind_of_departure_once():
    cards = [CARD, CARD | {"stage": "rg1", "steps": 2000}, CARD | {"stage": "pnpreg"}]
    made = make_provenance(CONFIG, test_set=STAND_IN, cards=cards)
    *departures, run = made.brief()
    assert departures[0].startswith("STAND-IN TEST SET")
    assert (
        "SHORTER TRAINING: RERG 10, RG1 2,000, pnpReG 10 steps; the paper: 78,750 or 800,000."
        in departures
    )
    assert "OTHER TRAINING DATA: 20 images; the paper: 8,394." in departures
    assert headwords(departures) == headwords(made.departures())
    assert "Run trial, seed 3" in run and "record" in run


def test_methods_with_other_iterations_are_named():
    own = {
        name: {"label": name.upper(), "evaluation": {"iterations": 16}} for name in ("rg1", "rg2")
    }
    methods = {"methods": {"rerg": {"label": "RERG"}, **own}}
    made = make_provenance(CONFIG | methods, test_set=SET5, cards=[CARD])
    said = "FEWER ITERATIONS of gradient descent: 64 (RG1 and RG2 16) instead of 1500."
    assert said in made.brief()
    assert made.short().endswith("64 iterations (RG1 and RG2 16)")
    assert made.to_dict()["own_iterations"] == {"RG1": 16, "RG2": 16}
    full = PAPER_CONFIG | methods
    (said,) = make_provenance(full, test_set=SET5, cards=[PAPER_CARD]).departures()
    assert said == "FEWER ITERATIONS of gradient descent: 1500 (RG1 and RG2 16) instead of 1500."


def test_a_table_names_the_stages_on_the_way_that_the_paper_has_not():
    start = CARD | {"stage": "start", "steps": 800, "given": True, "file": "start_G.safetensors"}
    before = {"before": {"score": {"steps": 9000, "batch": 4, "crop": 64}}}
    cards = [CARD | {"stage": "denoiser"}, start | before, CARD]
    brief = make_provenance(CONFIG, test_set=SET5, cards=cards).brief()
    said = "SHORTER TRAINING: RERG 10 steps, after start 800, score 9,000; the paper: 78,750."
    assert said in brief


def test_a_table_says_how_many_images_given_stages_saw_and_how_many_others_here():
    given = CARD | {"stage": "deqgd", "given": True, "file": "deqgd_G.safetensors"}

    def said(*cards):
        lines = make_provenance(CONFIG, test_set=SET5, cards=cards).brief()
        return [line for line in lines if line.startswith("OTHER TRAINING DATA")]

    assert said(CARD, given | {"images": 663}) == [
        "OTHER TRAINING DATA: 663 images for the given stages, 20 for those trained here; "
        "the paper: 8,394."
    ]
    assert said(CARD, given) == ["OTHER TRAINING DATA: 20 images; the paper: 8,394."]
    assert said(PAPER_CARD) == []


def test_another_start_of_completion_is_told():
    evaluation = PAPER_CONFIG["evaluation"] | {"x0": "interpolated"}
    config = PAPER_CONFIG | {"evaluation": evaluation}
    (said,) = make_provenance(config, test_set=SET5, cards=[PAPER_CARD]).departures()
    assert said == "OTHER START: completion starts from interpolated pixels instead of grey ones."


def test_another_solver_is_one_departure_with_all_that_goes_with_it():
    own = dict(
        solver="semi_implicit", iterations=50, tolerance=1e-5, average=True, x0="interpolated"
    )
    made = make_provenance(PAPER_CONFIG | {"evaluation": own}, test_set=SET5, cards=[PAPER_CARD])
    (said,) = made.departures()
    assert said.startswith("OTHER SOLVER of gradient descent: semi_implicit instead of adam, 50 ")
    for words in ("1500", "1e-05", "last eight iterates", "from interpolated pixels"):
        assert words in said


@pytest.mark.parametrize("card", [CARD, PAPER_CARD])
def test_stages_on_the_way_to_given_weights_are_told(card):
    before = {"first": {"steps": 7, "batch": 2, "crop": 32}}
    made = make_provenance(CONFIG, test_set=SET5, cards=[card | {"before": before}])
    (said,) = [line for line in made.departures() if " TRAINING: " in line]
    assert "on cpu, after first of 7 steps of 2 crops 32x32 (the paper: " in said
    assert said.startswith("SHORTER" if card is CARD else "OTHER")
    assert made.to_dict()["stages"][0]["before"] == before


def test_another_test_set_is_named():
    mine = {"title": "my photographs", "stand_in_for": None, "images": IMAGES}
    said = make_provenance(PAPER_CONFIG, test_set=mine, cards=[PAPER_CARD]).departures()
    assert said == ["OTHER TEST SET: my photographs; the paper's values are on Set5."]


def test_files_of_a_folder_that_were_left_out_are_named():
    odd = [{"file": "odd.png", "sha256": None, "why": "no image"}]
    mine = {"title": "mine", "stand_in_for": None, "images": IMAGES, "left_out": odd}
    said = make_provenance(PAPER_CONFIG, test_set=mine, cards=[PAPER_CARD]).departures()
    assert said[0].startswith("OTHER TEST SET: mine (left out: odd.png);")


def test_the_paper_itself_departs_in_nothing():
    made = make_provenance(PAPER_CONFIG, test_set=SET5, cards=[PAPER_CARD])
    assert made.departures() == []
    text = "\n".join(made.lines())
    for words in ("Set5", "1500", "64-128-256-512", "78,750", "8394 images"):
        assert words in text
    assert "STAND-IN" not in text + made.short()


def test_given_weights_and_added_stages_are_named():
    given = {"stage": "pnpreg", "given": True, "source": {"P": "w/P.st", "G": "w/G.st"}}
    added = CARD | {"stage": "new"}
    text = "\n".join(make_provenance(CONFIG, test_set=SET5, cards=[given, added]).lines())
    assert "pnpreg: weights given, w/P.st, w/G.st (the paper: 800,000 steps" in text
    assert "new: 10 steps of 4 crops 64x64 on cpu (the paper: not in the paper)" in text


def test_weights_and_training_data_are_named_by_their_hashes():
    card = CARD | {"weights": {"P": "ab" * 32, "G": "cd" * 32}, "data_digest": "ef" * 32}
    made = make_provenance(CONFIG, test_set=SET5, cards=[card])
    text = "\n".join(made.lines())
    assert "Weights: rerg P abababababab, rerg G cdcdcdcdcdcd." in text
    assert "rerg: skimage, 20 images (digest efefefefefef)" in text
    (stage,) = made.to_dict()["stages"]
    assert stage["weights"] == card["weights"] and stage["data_digest"] == card["data_digest"]


def test_networks_of_further_seeds_are_recorded_and_not_described_again():
    cards = [CARD | {"weights": {"G": "ab" * 32}}]
    cards.append(cards[0] | {"stage": "rerg.seed1", "weights": {"G": "cd" * 32}})
    one, two = (make_provenance(CONFIG, test_set=SET5, cards=cards[:n]) for n in (1, 2))
    assert one.departures() == two.departures()
    assert "rerg G abababababab, rerg.seed1 G cdcdcdcdcdcd." in "\n".join(two.lines())


def test_jobs_of_other_code_or_another_test_set_are_not_mixed(tmp_path):
    """As `--rerun-triggers mtime` and `--touch` would: what is there is left as it is."""
    names = ("set.json", "card.json", "machine.json")
    paths = dict(zip(("test_set", "card", "machine"), map(tmp_path.joinpath, names), strict=True))
    paths["test_set"].write_text(json.dumps(SET5))
    paths["card"].write_text(json.dumps(CARD | {"code": {"train.py": "1"}}))
    code = {"evaluate.py A[b]": "2"}
    write_machine(paths["machine"], device="cpu", code=code, test_set=paths["test_set"])
    inputs = {"test_set": paths["test_set"], "cards": [paths["card"]]}
    inputs |= {"machines": [paths["machine"]]}
    modules = {"train.py": "1", **code, "report.py": "3"}
    assert read_provenance(CONFIG, **inputs, modules=modules).device == "cpu"
    for changed, path, what in (
        ({"train.py": "9"}, "card.json", r"other code of train\.py"),
        ({"evaluate.py A[b]": "9"}, "machine.json", r"other code of evaluate\.py"),
    ):
        with pytest.raises(MixedError, match=f"{path} was made with {what}"):
            read_provenance(CONFIG, **inputs, modules=modules | changed)
    other = SET5 | {"images": [IMAGES[0] | {"sha256": "cd"}]}
    paths["test_set"].write_text(json.dumps(other))
    with pytest.raises(MixedError, match=r"machine\.json was made with another test set"):
        read_provenance(CONFIG, **inputs, modules=modules)


def test_device_and_machine_are_those_of_the_jobs(tmp_path):
    write_machine(tmp_path / "here.json", device="cpu", code={"a.py": "1"})
    here = json.loads((tmp_path / "here.json").read_text())
    assert here == {"device": "cpu", "machine": provenance.machine(), "code": {"a.py": "1"}}
    there = {"device": "cuda", "machine": "a cluster's node"}
    made = make_provenance(CONFIG, test_set=SET5, cards=[], machines=[there, here, there])
    assert (made.device, made.machine) == (
        "cuda and cpu",
        f"a cluster's node and {here['machine']}",
    )
    assert f"Machine: {made.machine}, device cuda and cpu; Python " in made.lines()[-1]


def test_longer_training_is_not_called_shorter():
    card = PAPER_CARD | {"steps": 80_000}
    departures = make_provenance(PAPER_CONFIG, test_set=SET5, cards=[card]).departures()
    assert departures[0].startswith("OTHER TRAINING: rerg")
    assert Budget(steps=2, batch=3, crop=4).pixels == 96


def test_stages_that_saw_other_data_are_told_apart():
    cards = [
        CARD,
        CARD | {"stage": "rg1"},
        CARD | {"stage": "mtdeq", "data": ["a", "b"], "images": 9},
    ]
    departures = "\n".join(make_provenance(CONFIG, test_set=SET5, cards=cards).departures())
    assert "OTHER TRAINING DATA of rerg, rg1: skimage, 20 images" in departures
    assert "OTHER TRAINING DATA of mtdeq: a, b, 9 images" in departures


@pytest.mark.parametrize(
    "change, said",
    [
        ({"equilibrium": {"max_iterations": 16}}, "fixed points after 16 iterations at most"),
        (
            {
                "equilibrium": {
                    "keep": {"batches": 8, "visits": 12, "first_steps": 20, "steps": 2},
                    "max_iterations": 16,
                }
            },
            "fixed points by iterates kept for 12 updates, 20 steps in the first and 2 in each",
        ),
        ({"equilibrium": {"solver": "semi_implicit"}}, "those of g by semi_implicit"),
        (
            {"equilibrium": {"backward_map": "semi_implicit"}},
            "back-propagation through the semi-implicit step",
        ),
        ({"equilibrium": {"loss": "log_mean_square"}}, "the loss in dB"),
        ({"equilibrium": {"x0": "interpolated"}}, "from interpolated pixels in completion"),
        ({"equilibrium": {"x0": "adjoint"}}, "from A^T y"),
        ({"optimiser": {"lr": 1.0, "muon": 0.005}}, "inner convolutions by Muon"),
    ],
)
def test_each_departure_of_the_training_at_fixed_points_is_told(change, said):
    base = {"stage": "deqgd", "options": {"gradient_descent": 1.0}}
    alike = {"equilibrium": {"solver": "adam", "keep": None, "loss": "mean_square"}}
    alike |= {"training_problems": {"sigma_min_255": 0, "sigma_max_255": 50, "noise": "uniform"}}
    (plain,) = make_provenance(CONFIG, test_set=SET5, cards=[base | alike]).stages
    (stage,) = make_provenance(CONFIG, test_set=SET5, cards=[base | change]).stages
    assert said in str(stage)
    assert str(plain) == f"deqgd:  (the paper: {Budget(78_750, 16, 128)})"


@pytest.mark.parametrize(
    "problems, said",
    [
        (
            {"sigma_min_255": 0.5, "sigma_max_255": 12},
            "noise of 0.5 to 12/255 instead of 0 to 50/255",
        ),
        (
            {"sigma_min_255": 1, "noise": "log_uniform"},
            "noise of 1 to 50/255 with a uniform logarithm instead of 0 to 50/255",
        ),
        ({"factors": [2, 4]}, "super-resolution by 2 or 4 instead of 1, 2 or 4"),
        ({"factors": [4, 1]}, "super-resolution by 1 or 4 instead of 1, 2 or 4"),
        ({"factors": [2]}, "super-resolution by 2 instead of 1, 2 or 4"),
        ({"sigma_b_max": 3}, "blur of up to 3 pixels instead of 4"),
        ({"drop_max": 0.5}, "up to 50 % of the pixels missing instead of 99"),
        ({"factors": [4, 2, 1], "kernels": ["gaussian"], "sigma_b_max": 4}, None),
    ],
)
def test_other_training_problems_are_told_in_records_and_tables(problems, said):
    cards = [CARD | {"stage": stage, "training_problems": problems} for stage in ("rerg", "start")]
    made = make_provenance(CONFIG, test_set=SET5, cards=cards)

    def told(lines):
        return [line for line in lines if line.startswith("OTHER TRAINING PROBLEMS")]

    assert told(made.departures()) == (
        [f"OTHER TRAINING PROBLEMS of rerg, start: {said}."] if said else []
    )
    assert told(made.brief()) == (
        [f"OTHER TRAINING PROBLEMS of RERG, start: {said}."] if said else []
    )


def test_the_default_distribution_of_problems_is_the_papers():
    default = TrainingDistribution.of(
        paper.TRAINING_PROBLEMS | {"kernels": ["bicubic"], "shared_masks": True}
    )
    assert default == TrainingDistribution()


def test_digest_of_the_test_set_is_of_its_content():
    def digest(**changes):
        manifest = SET5 | {"images": [IMAGES[0] | changes]}
        return make_provenance(CONFIG, test_set=manifest, cards=[]).test_set_digest

    assert digest() == digest(path="there.png")
    assert digest() != digest(sha256="cd")


def test_dict_is_json_and_repeats(tmp_path):
    (tmp_path / "set.json").write_text(json.dumps(STAND_IN))
    (tmp_path / "card.json").write_text(json.dumps(CARD))
    paths = {"test_set": tmp_path / "set.json", "cards": [tmp_path / "card.json"]}
    data = read_provenance(CONFIG, **paths).to_dict()
    assert json.loads(json.dumps(data))["stand_in_for"] == "Set5"
    assert data == make_provenance(CONFIG, test_set=STAND_IN, cards=[CARD]).to_dict()
    assert data["stages"][0]["budget"] == {"steps": 10, "batch": 4, "crop": 64}


@pytest.mark.parametrize("key", ["run", "network", "evaluation", "seeds", "precision"])
def test_missing_keys_are_named(key):
    config = {name: value for name, value in CONFIG.items() if name != key}
    with pytest.raises(KeyError, match=f"configuration has no key '{key}'"):
        make_provenance(config, test_set=SET5, cards=[])


def test_code_version_without_git_is_a_hash_of_the_source(tmp_path):
    (tmp_path / "rglib").mkdir()
    (tmp_path / "rglib" / "a.py").write_text("x = 1")
    before = code_version(root=tmp_path)
    assert "source" in before
    (tmp_path / "rglib" / "a.py").write_text("x = 2")
    assert code_version(root=tmp_path) != before


def test_machine_names_its_cores():
    assert "cores" in provenance.machine()
