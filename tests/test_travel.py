import json
import tarfile

import pytest
import torch

from rglib.gpu.travel import MARGIN, RECORDS, Allowance, States, TravelError, receive, send

CARD = {"stage": "denoiser", "steps": 7, "seconds": 12.5, "finished": False}
HISTORY = [{"step": 0.0, "loss": 0.5}, {"step": 5.0, "loss": 0.25, "images_per_second": 3.0}]


def weights(seed, size=1000, count=6):
    generator = torch.Generator().manual_seed(seed)
    return {f"m_body.{i}.weight": torch.randn(size, generator=generator) for i in range(count)}


@pytest.fixture
def states(tmp_path):
    """Two trainings: of P and G, and of G alone."""
    states = States(tmp_path / "states")
    states.write("pnpreg", {"P": weights(0), "G": weights(1)}, card=CARD, history=HISTORY)
    states.write("deqgd", {"G": weights(2)}, card={**CARD, "stage": "deqgd"}, history=HISTORY[:1])
    return states


@pytest.fixture
def records(tmp_path):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "agree.json").write_text("{}")
    return tmp_path / "records"


BOTH = {"deqgd": "G", "pnpreg": "PG"}
BYTES = MARGIN + 10_100  # for five of the tensors
SMALL = Allowance(files=8, file_bytes=BYTES, total_bytes=8 * BYTES)


def test_a_training_is_read_as_it_was_written_in_16_bits(states):
    read = states.roles("pnpreg")
    for role, seed in ("P", 0), ("G", 1):
        for name, tensor in weights(seed).items():
            assert torch.equal(read[role][name], tensor.half().float())
    assert states.history("pnpreg") == HISTORY
    card = states.card("pnpreg")
    assert card | CARD == card and card["roles"] == ["P", "G"]
    assert states.card("rerg") == {} and states.history("rerg") == []


def test_what_is_sent_comes_home(states, records, tmp_path):
    out, home = tmp_path / "out", States(tmp_path / "home")
    assert send(states, BOTH, records, out, allowance=SMALL) == []
    files = list(out.glob("weights-*"))
    assert len(files) > 2 and max(file.stat().st_size for file in files) <= SMALL.file_bytes
    assert sorted(receive(out, home, tmp_path / "got")) == ["deqgd", "pnpreg"]
    for stage in "deqgd", "pnpreg":
        assert home.card(stage) == states.card(stage)  # with the sha256 of the files
        assert home.history(stage) == states.history(stage)
        for role, ours in home.roles(stage).items():
            theirs = states.roles(stage)[role]
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (tmp_path / "got/agree.json").read_text() == "{}"


def test_some_networks_or_none_can_go_with_a_card(states, records, tmp_path):
    home = States(tmp_path / "home")
    send(states, {"deqgd": ""}, records, tmp_path / "out")
    assert receive(tmp_path / "out", home, tmp_path / "got") == ["deqgd"]
    send(states, {"pnpreg": "G", "deqgd": ""}, records, tmp_path / "out")
    assert receive(tmp_path / "out", home, tmp_path / "got") == ["pnpreg", "deqgd"]
    assert home.card("pnpreg")["roles"] == ["G"] and home.card("deqgd")["roles"] == []
    assert [path.name for path in home.folder.glob("*.safetensors")] == ["pnpreg_G.safetensors"]


def test_trainings_that_do_not_fit_stay_and_the_first_ones_named_go(states, records, tmp_path):
    tight = Allowance(files=3, file_bytes=BYTES, total_bytes=8 * BYTES)
    assert send(states, BOTH, records, tmp_path / "out", allowance=tight) == ["pnpreg"]
    assert receive(tmp_path / "out", States(tmp_path / "home"), tmp_path / "got") == ["deqgd"]


def test_records_alone_can_be_too_large(states, records, tmp_path):
    with pytest.raises(TravelError, match=RECORDS):
        send(states, {}, records, tmp_path / "out", allowance=Allowance(file_bytes=10))


def test_without_a_training_the_records_come_home(states, records, tmp_path):
    send(states, {}, records, tmp_path / "out")
    assert receive(tmp_path / "out", States(tmp_path / "home"), tmp_path / "got") == []
    assert (tmp_path / "got/agree.json").exists()


def test_files_that_do_not_belong_together_are_refused(states, records, tmp_path):
    out, home = tmp_path / "out", States(tmp_path / "home")
    with pytest.raises(TravelError, match="came back"):
        receive(tmp_path, home, tmp_path / "got")
    send(states, {"pnpreg": "PG"}, records, out, allowance=SMALL)
    first = out / "weights-1.safetensors"
    older = first.read_bytes()
    states.write("pnpreg", {"P": weights(3), "G": weights(4)}, card=CARD, history=[])
    send(states, {"pnpreg": "PG"}, records, out, allowance=SMALL)
    first.write_bytes(older)
    with pytest.raises(TravelError, match="do not belong together"):
        receive(out, home, tmp_path / "got")
    first.unlink()
    with pytest.raises(TravelError, match="do not belong together"):
        receive(out, home, tmp_path / "got")
    assert not home.folder.exists()


def test_what_was_sent_before_is_replaced(states, records, tmp_path):
    out = tmp_path / "out"
    send(states, BOTH, records, out, allowance=SMALL)
    many = len(list(out.glob("weights-*")))
    send(states, {"deqgd": "G"}, records, out, allowance=SMALL)
    assert len(list(out.glob("weights-*"))) < many
    assert receive(out, States(tmp_path / "home"), tmp_path / "got") == ["deqgd"]
    with tarfile.open(out / RECORDS) as archive:
        assert "histories/deqgd.history.csv" in archive.getnames()


def test_the_card_that_comes_home_is_json(states):
    text = (states.folder / "deqgd.card.json").read_text()
    assert json.loads(text)["files"].keys() == {"deqgd_G.safetensors"}
