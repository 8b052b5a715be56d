import hashlib
import json
import runpy
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rglib.core.networks import WeightsError, load_into, load_weights, save_weights
from rglib.data import download
from rglib.data.images import build_store, write_png
from rglib.data.manifest import ImageFile, Manifest
from rglib.files import file_digest
from rglib.training import stage
from rglib.training.stage import (
    StageFiles,
    StageSettings,
    import_stage,
    overfit,
    publish_stage,
    train_stage,
    trainer,
)

WEIGHTS = Path(__file__).parents[1] / "weights"
NETWORK = {"widths": [4, 6, 8, 8], "blocks": 1}
OPTIMISER = {"lr": 1e-3, "schedule": {"cosine": {"warmup": 1}}, "clip": 0.1, "ema": 0.9}
SHARED = {
    "equilibrium": {
        "eta_fb": 0.49,
        "eta_gd": 0.05,
        "solver": "adam",
        "max_iterations": 3,
        "tolerance": 1e-7,
        "guard": 100.0,
        "per_image": True,
        "link_variance": "theorem",
        "backward_terms": 0,
        "backward_map": "gradient",
        "loss": "mean_square",
        "keep": None,
        "x0": "test",
    },
    "training_problems": {
        "sigma_min_255": 0,
        "sigma_max_255": 50,
        "noise": "uniform",
        "sigma_b_max": 4.0,
        "factors": [1, 2, 4],
        "kernels": ["bicubic"],
        "drop_max": 0.99,
        "shared_masks": True,
    },
}
OBJECTIVES = {  # name -> objective, options and where the networks start
    "denoiser": ("denoising", {"sigma_max_255": 50}, ("P",)),
    "residual": ("residual_start", {"s_255": 20, "noise_max_255": 60, "degraded": 0.5}, ("P", "G")),
    "score": ("score_start", {"s_255": 14, "noise_max_255": 60, "degraded": 0.5}, ("G",)),
    "pnpreg": ("pnpreg", {"link": 0.004, "sigma_max_255": 50, "probe_noise_255": 4}, ("P", "G")),
    "mtdeq": ("equilibrium", {"forward_backward": 1.0}, ("P",)),
    "rg1": ("equilibrium", {"link": 0.1, "forward_backward": 1.0}, ("P", "G")),
    "deqgd": ("equilibrium", {"gradient_descent": 1.0}, ("G",)),
    "rerg": (
        "equilibrium",
        {"link": 0.1, "forward_backward": 1.0, "gradient_descent": 0.1},
        ("P", "G"),
    ),
}


def settings_of(name):
    objective, options, roles = OBJECTIVES[name]
    entry = {
        "objective": objective,
        "options": options,
        "init": dict.fromkeys(roles, "default"),
        "budget": {"steps": 3, "batch": 2, "crop": 32},
        "optimiser": OPTIMISER,
    }
    log = {"every": 1, "monitor": None}
    return StageSettings(
        name, entry, log, SHARED, NETWORK, 0, "cpu", "float32", {"train.py": "code"}
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of two smooth images."""
    folder, images = tmp_path_factory.mktemp("data"), []
    ramp = np.linspace(0, 255, 48, dtype=np.uint8)
    for name, turns in ("a", 0), ("b", 1):
        path = folder / f"{name}.png"
        write_png(path, np.rot90(np.stack(3 * [np.tile(ramp, (48, 1))], axis=-1), turns).copy())
        images.append(ImageFile(name, path, hashlib.sha256(path.read_bytes()).hexdigest()))
    build_store([Manifest("toy", "Toy", "folder", tuple(images))], folder / "store", min_size=32)
    return folder / "store"


@pytest.fixture
def files(store, tmp_path):
    return StageFiles(train=store, validation=store, init={}, folder=tmp_path / "run")


def train(settings, files, folder):
    """The weights' paths, by role, and the card of a stage trained into a folder."""
    roles = OBJECTIVES[settings.name][2]
    learned = ("G",) if settings.name == "residual" else roles
    weights = {role: folder / f"{role}.safetensors" for role in learned}
    train_stage(settings, files, weights=weights, card=folder / "card.json")
    return weights, json.loads((folder / "card.json").read_text())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_stage_trains_and_writes_weights_a_card_and_its_history(name, files, tmp_path, tiny):
    weights, card = train(settings_of(name), files, tmp_path)
    for role, path in weights.items():
        load_into(tiny(role), path)
        assert card["weights"][role] == file_digest(path)
    assert (card["stage"], card["steps"], card["images"], card["given"]) == (name, 3, 2, False)
    assert card["last_row"]["step"] == 2
    assert (files.folder / "history.csv").read_text().count("\n") == 4


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_stage_can_overfit_and_writes_nothing(name, files):
    before, after = overfit(settings_of(name), files, steps=25, lr=2e-3)
    assert after < 0.95 * before
    assert not files.folder.exists()


def test_the_same_settings_give_the_same_bits(files, tmp_path):
    for folder in ("one", "two"):
        run = replace(files, folder=tmp_path / folder)
        train(settings_of("denoiser"), run, tmp_path / folder)
    one, two = (load_weights(tmp_path / folder / "P.safetensors") for folder in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    train(replace(settings_of("denoiser"), seed=1), replace(files, folder=tmp_path / "3"), tmp_path)
    other = load_weights(tmp_path / "P.safetensors")
    assert not all(torch.equal(one[name], other[name]) for name in one)


def resumes(settings, files):
    """Whether a trainer of these settings accepts the checkpoint in the folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return trainer(settings, files).checkpoints.load() is not None


def test_only_a_training_of_the_same_numbers_is_resumed(files, tmp_path):
    settings = settings_of("rerg")
    train(settings, files, tmp_path)
    entry = settings.entry
    assert resumes(settings, files)
    assert resumes(replace(settings, log={"every": 2, "monitor": 5}), files)
    changes = {
        "seed": replace(settings, seed=1),
        "code": replace(settings, code={"train.py": "newer"}),
        "network": replace(settings, network={"widths": [4, 6, 8, 8], "blocks": 2}),
        "shared": replace(
            settings,
            shared=SHARED | {"training_problems": {**SHARED["training_problems"], "drop_max": 0.9}},
        ),
        "budget": replace(settings, entry=entry | {"budget": entry["budget"] | {"steps": 4}}),
        "lr": replace(settings, entry=entry | {"optimiser": OPTIMISER | {"lr": 1e-4}}),
        "link": replace(settings, entry=entry | {"options": entry["options"] | {"link": 0.2}}),
    }
    accepted = [name for name, changed in changes.items() if resumes(changed, files)]
    assert accepted == []


def test_a_card_tells_the_updates_and_minutes_of_a_budget_in_minutes(files, tmp_path):
    settings = settings_of("denoiser")
    budget = {"steps": None, "minutes": 0.02, "batch": 2, "crop": 32}
    entry = settings.entry | {"budget": budget}
    _, card = train(replace(settings, entry=entry), files, tmp_path)
    assert card["minutes"] == 0.02 and card["minutes_trained"] >= 0.02
    assert card["steps"] == len((files.folder / "history.csv").read_text().splitlines()) - 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["denoiser", "rerg"])
def test_a_compiled_stage_learns_the_same(name, files, tmp_path):
    plain = settings_of(name)
    fused = replace(plain, entry=plain.entry | {"compile": True})
    trained = {}
    for how, settings in ("plain", plain), ("fused", fused):
        folder = tmp_path / how
        weights, _ = train(settings, replace(files, folder=folder / "run"), folder)
        trained[how] = {role: load_weights(path) for role, path in weights.items()}
    for role, tensors in trained["plain"].items():
        for key, tensor in tensors.items():
            torch.testing.assert_close(trained["fused"][role][key], tensor, atol=1e-4, rtol=0)


def test_networks_start_where_their_init_says(files, tmp_path, tiny):
    given = tiny("P", seed=7)
    save_weights(tmp_path / "start.safetensors", given.state_dict())
    settings = settings_of("rg1")
    init = {"P": "denoiser", "G": "orthogonal"}
    settings = replace(settings, entry=settings.entry | {"init": init})
    run = trainer(settings, replace(files, init={"P": tmp_path / "start.safetensors"}))
    assert all(map(torch.equal, run.networks["P"].parameters(), given.parameters()))
    head = run.networks["G"].m_head.weight.detach().flatten(1)  # 4 x 27
    torch.testing.assert_close(head @ head.T, 0.2**2 * torch.eye(4), atol=1e-6, rtol=0)


def test_a_G_starts_from_the_P_of_a_stage(files, tmp_path, tiny):
    save_weights(tmp_path / "P.safetensors", tiny("P", seed=7).state_dict())
    settings = settings_of("deqgd")
    settings = replace(settings, entry=settings.entry | {"init": {"G": "denoiser.P"}})
    run = trainer(settings, replace(files, init={"G": tmp_path / "P.safetensors"}))
    ours, theirs = run.networks["G"].state_dict(), tiny("P", seed=7).state_dict()
    assert all(torch.equal(ours[name], theirs[name][:, : ours[name].shape[1]]) for name in ours)


def test_a_start_from_other_weights_is_another_training(files, tmp_path, tiny):
    path = tmp_path / "start.safetensors"
    settings = settings_of("denoiser")
    settings = replace(settings, entry=settings.entry | {"init": {"P": "other"}})
    files = replace(files, init={"P": path})
    save_weights(path, tiny("P", seed=1).state_dict())
    train(settings, files, tmp_path)
    assert resumes(settings, files)
    save_weights(path, tiny("P", seed=2).state_dict())
    assert not resumes(settings, files)


# --- weights that are given, and weights to ship --------------------------------------------------


def test_given_weights_are_taken_over_as_they_are(tmp_path, tiny):
    source, target = tmp_path / "drunet.pth", tmp_path / "models" / "P.safetensors"
    torch.save(tiny("P").state_dict(), source)
    import_stage(
        "denoiser",
        {"P": source},
        checksums={"P": file_digest(source)},
        weights={"P": target},
        network=NETWORK,
        card=tmp_path / "card.json",
    )
    taken = load_weights(target)
    assert all(torch.equal(taken[name], tensor) for name, tensor in tiny("P").state_dict().items())
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["given"] is True
    assert card["source"] == {"P": "drunet.pth"}


@pytest.mark.parametrize("case", ["missing", "checksum", "network"])
def test_weights_that_are_not_what_the_configuration_says_are_refused(case, tmp_path, tiny):
    source = tmp_path / "drunet.pth"
    if case != "missing":
        torch.save(tiny("G" if case == "network" else "P").state_dict(), source)
    with pytest.raises(WeightsError):
        import_stage(
            "denoiser",
            {"P": source},
            checksums={"P": "0" * 64 if case == "checksum" else None},
            weights={"P": tmp_path / "P.safetensors"},
            network=NETWORK,
            card=tmp_path / "card.json",
        )
    assert not (tmp_path / "P.safetensors").exists()
    assert not (tmp_path / "card.json").exists()


def test_published_weights_are_16_bit_and_can_be_given_again_with_their_history(files, tmp_path):
    weights, card = train(settings_of("denoiser"), files, tmp_path)
    first = {"stage": "first", "network": NETWORK, "steps": 7, "batch": 2, "crop": 32, "seed": 0}
    (tmp_path / "first.json").write_text(json.dumps(first))
    publish_stage(
        tmp_path / "shipped",
        card=tmp_path / "card.json",
        weights=weights,
        before=[tmp_path / "first.json"],
    )
    shipped = tmp_path / "shipped" / "denoiser_P.safetensors"
    assert shipped.stat().st_size < 0.7 * weights["P"].stat().st_size
    shipped_card = json.loads((tmp_path / "shipped" / "denoiser.card.json").read_text())
    before = {"first": {"steps": 7, "batch": 2, "crop": 32}}
    files = {shipped.name: file_digest(shipped)}
    assert shipped_card == card | {"before": before, "files": files}
    import_stage(
        "start",  # a stage of another name
        {"P": shipped},
        checksums={"P": None},
        weights={"P": tmp_path / "again.safetensors"},
        network=NETWORK,
        card=tmp_path / "again.json",
    )
    trained, given = load_weights(weights["P"]), load_weights(tmp_path / "again.safetensors")
    for name in trained:
        assert torch.equal(given[name], trained[name].half().float())
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["given"] is True and again["stage"] == "start"
    assert again["before"] == before and again["steps"] == card["steps"]
    assert again["last_row"] == card["last_row"]
    assert again["weights"] != card["weights"]


def test_the_networks_in_weights_are_those_of_their_cards():
    cards = [json.loads(path.read_text()) for path in WEIGHTS.glob("*.card.json")]
    files = {path.name: file_digest(path) for path in WEIGHTS.glob("*.safetensors")}
    assert files == {name: digest for card in cards for name, digest in card["files"].items()}


# --- the script that takes weights from files or addresses ----------------------------------------

SCRIPT = Path(__file__).parents[1] / "workflow/scripts/given.py"


class Outputs(dict):
    card = "card.json"


@pytest.fixture
def given(monkeypatch):
    """Run the script for the sources of a stage; the files that it takes, by role."""
    monkeypatch.setattr(download, "download", lambda archive, folder: folder / archive.file)
    taken = {}
    monkeypatch.setattr(stage, "import_stage", lambda stage, files, **rest: taken.update(files))

    def run(sources):
        snakemake = SimpleNamespace(
            params=SimpleNamespace(stage="pnpreg", sources=sources, network={}, downloads="there"),
            output=Outputs({role: role for role in sources}),
        )
        runpy.run_path(str(SCRIPT), init_globals={"snakemake": snakemake})
        return dict(taken)

    return run


def test_addresses_that_end_in_one_name_are_different_files(given):
    files = given({role: {"url": f"https://host/{role}/weights.pth"} for role in "PG"})
    assert files["P"].name == files["G"].name == "weights.pth"
    assert files["P"] != files["G"] and files["P"].parts[0] == "there"


def test_an_address_is_the_same_file_every_time(given):
    source = {"P": {"url": "https://host/weights.pth"}}
    assert given(source) == given(source)


def test_a_file_is_taken_as_it_is(given):
    assert given({"G": {"file": "mine.pth"}}) == {"G": Path("mine.pth")}
