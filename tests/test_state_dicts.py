"""Checkpoints as training programs leave them. `tests/test_networks.py` loads the plain ones."""

import argparse
import collections
import pathlib
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from rglib.core.networks import load_into, load_weights, save_weights
from rglib.core.state_dicts import WeightsError, mismatch, read_state_dict


@pytest.fixture(scope="module")
def P(tiny):
    return tiny("P", 1).state_dict()


@pytest.fixture(scope="module")
def other(tiny):
    return tiny("P", 2).state_dict()


def under(prefix, weights):
    return {prefix + name: tensor for name, tensor in weights.items()}


def adam(tiny):
    """The state of an optimiser after a step, which has tensors of its own."""
    network = tiny("P", 1)
    optimiser = torch.optim.Adam(network.parameters())
    network(torch.zeros(1, 3, 16, 16), 0.1).sum().backward()
    optimiser.step()
    return optimiser.state_dict()


FORMS = {  # from which P must come back
    "KAIR": lambda P, **_: P,
    "ordered": lambda P, **_: collections.OrderedDict(P),
    "BasicSR": lambda P, **_: {"params": P},
    "BasicSR with a mean": lambda P, other, **_: {"params": other, "params_ema": P},
    "in training": lambda P, adam, **_: {
        "state_dict": P,
        "epoch": 3,
        "optimizer": adam,
        "best": torch.ones(()),
    },
    "another program": lambda P, **_: {"model_state_dict": P, "loss": 0.1, "sched": {"last": 3}},
    "deep": lambda P, adam, **_: {
        "checkpoint": {"model": {"params": P}, "n": 7},
        "optimiser": adam,
    },
    "DataParallel": lambda P, **_: under("module.", P),
    "compiled": lambda P, **_: under("_orig_mod.", P),
    "both": lambda P, **_: {"params": under("module._orig_mod.", P)},
    "Lightning": lambda P, adam, **_: {
        "epoch": 3,
        "global_step": 100,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": under("denoiser.", P) | {"loss.vgg.weight": torch.ones(3)},
        "loops": {"fit_loop": {"state_dict": {}, "progress": {"total": 3}}},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.1), "path": "x"}},
        "optimizer_states": [adam],
        "lr_schedulers": [],
        "hyper_parameters": {"lr": 1e-4, "widths": [4, 6, 8, 8]},
    },
    "two networks": lambda P, G, **_: {"state_dict": under("G.", G) | under("P.", P)},
    "parameters": lambda P, **_: {name: nn.Parameter(tensor) for name, tensor in P.items()},
    "double": lambda P, **_: {name: tensor.double() for name, tensor in P.items()},
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_checkpoints_as_programs_leave_them(tmp_path, tiny, P, other, form, zipped):
    content = FORMS[form](P=P, other=other, G=tiny("G", 3).state_dict(), adam=adam(tiny))
    torch.save(content, tmp_path / "w.ckpt", _use_new_zipfile_serialization=zipped)
    network = tiny("P", 9)
    load_into(network, tmp_path / "w.ckpt")
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, P[name])


@pytest.mark.parametrize("name", ["P.safetensors", "P.SAFETENSORS", "P.pth", "P", "P.bin"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_content_of_a_file_tells_its_kind(tmp_path, tiny, P, name, prefix):
    save_file(under(prefix, {key: t.contiguous() for key, t in P.items()}), tmp_path / name)
    network = tiny("P", 9)
    load_into(network, tmp_path / name)
    assert torch.equal(network.m_head.weight, P["m_head.weight"])


class Malice:
    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return open, (self.victim, "w")


OBJECTS = {
    "its arguments": lambda P, _: {"model": P, "args": argparse.Namespace(lr=1)},
    "a number of NumPy's": lambda P, _: {"model": P, "lr": np.float64(1e-4)},
    "a path": lambda P, _: {"model": P, "from": pathlib.PurePosixPath("data")},
    "malice": lambda P, victim: {"model": P, "x": Malice(str(victim))},
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("case", OBJECTS)
def test_objects_beside_tensors_are_named_and_not_made(tmp_path, P, case, zipped):
    content = OBJECTS[case](P, tmp_path / "victim")
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    kinds = r"(argparse\.Namespace|numpy.*scalar|pathlib\.\w+|\w*\.open)"
    with pytest.raises(WeightsError, match=rf"w\.pth: .* object, {kinds}, whose code") as caught:
        load_weights(tmp_path / "w.pth")
    said = str(caught.value)
    assert "torch.save(network.state_dict(), file)" in said and "weights_only" not in said
    assert "\n" not in said and not (tmp_path / "victim").exists()


def test_a_whole_network_is_named(tmp_path, tiny):
    torch.save(tiny("P"), tmp_path / "w.pth")
    with pytest.raises(
        WeightsError, match=r"object, rglib\.core\.networks\.ProximalOperator, whose"
    ):
        load_weights(tmp_path / "w.pth")


def test_torchscript_is_named(tmp_path):
    torch.jit.script(nn.Conv2d(3, 3, 3)).save(tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"it is TorchScript, which is code; save the state"):
        load_weights(tmp_path / "w.pt")


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 130579519\n"
WRONG = {
    "empty": (b"", "it is empty"),
    "Git LFS": (LFS, "it is Git LFS's pointer to them; fetch them with `git lfs pull`"),
    "a page": (b"<!DOCTYPE html><html>", "it is a web page, not the file that was to be"),
    "a page with a gap": (b"\n\n <html>", "it is a web page"),
    "a text": (b"hello", "it is neither safetensors nor a checkpoint of PyTorch"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "it is neither safetensors nor a checkpoint"),
    "a pickle": (b"\x80\x04\x95\x05\0\0\0\0\0\0\0]\x94K\x01a.", "it is cut off or damaged"),
}


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize("case", WRONG)
def test_other_files_are_named_by_what_they_are(tmp_path, case, ending):
    content, message = WRONG[case]
    path = tmp_path / f"w{ending}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=f"w{ending}: cannot be read as weights: {message}"):
        load_weights(path)


def test_another_zip_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("drunet_color.pth", b"weights")
    with pytest.raises(WeightsError, match=r"it is a zip archive of other files; unpack it"):
        load_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("share", [0.001, 0.01, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("form", ["zip", "pickle", "safetensors"])
def test_files_that_are_cut_off_are_named_in_a_line(tmp_path, P, form, share):
    path = tmp_path / "w.pth"
    if form == "safetensors":
        save_weights(path, P)
    else:
        torch.save(P, path, _use_new_zipfile_serialization=form == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(WeightsError, match=r"w\.pth: cannot be read as weights: it is") as caught:
        load_weights(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


def test_files_that_may_not_be_read_and_folders(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    for name in ("folder", "missing"):
        with pytest.raises(WeightsError, match=f"{name}: no such weights file"):
            load_weights(tmp_path / name)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "w.pth").write_bytes(b"PK")
    monkeypatch.setattr(pathlib.Path, "open", refuse)
    with pytest.raises(WeightsError, match="cannot be read as weights: Permission denied"):
        load_weights(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "not a state dict of tensors, but a list: save the state dict alone"),
        (torch.zeros(3), "not a state dict of tensors, but a Tensor"),
        ({}, "not a state dict of tensors, but nothing"),
        ({"epoch": 3}, "not a state dict of tensors, but epoch: save"),
        ({"a.weight": torch.ones(1), "epoch": 3}, "but epoch beside tensors: save"),
        ({1: torch.ones(1)}, "not a state dict of tensors"),
        (
            {"generator": {"a.w": torch.ones(1)}, "discriminator": {"a.w": torch.ones(1)}},
            "holds several state dicts, generator, discriminator: save the one that is meant",
        ),
    ],
)
def test_none_and_several_state_dicts_are_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=f"w.pth: .*{message}"):
        read_state_dict(tmp_path / "w.pth")


def test_two_networks_that_fit_are_refused(tmp_path, tiny, P, other):
    torch.save(under("net.", P) | under("ema.net.", other), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"several such networks, ema\.net\., net\.: save"):
        load_into(tiny("P"), tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["P.safetensors", "P.pth", "P", "P.npz"])
def test_a_checkpoint_of_pytorch_may_have_any_name(tmp_path, tiny, P, name):
    torch.save({"params": P}, tmp_path / name)
    network = tiny("P", 9)
    load_into(network, tmp_path / name)
    assert torch.equal(network.m_head.weight, P["m_head.weight"])


def test_quantized_weights_are_refused_and_saved_as_floats_are_read(tmp_path, P):
    quantized = {name: (100 * tensor).to(torch.int8) for name, tensor in P.items()}
    torch.save(quantized, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="is quantized, without its scale; save it as floats"):
        load_weights(tmp_path / "w.pth")
    torch.save({name: tensor / 100 for name, tensor in quantized.items()}, tmp_path / "w.pth")
    assert load_weights(tmp_path / "w.pth").keys() == P.keys()


@pytest.mark.parametrize("what", ["sparse", "complex", "meta"])
def test_tensors_without_plain_numbers_are_refused(tmp_path, P, what):
    change = {
        "sparse": lambda t: t.to_sparse(),
        "complex": lambda t: t.to(torch.complex64),
        "meta": lambda t: t.to("meta"),
    }[what]
    torch.save({**P, "m_tail.weight": change(P["m_tail.weight"])}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"w\.pth: m_tail\.weight is no dense tensor of real"):
        load_weights(tmp_path / "w.pth")


def test_numbers_beyond_float32_are_not_finite(tmp_path, P):
    torch.save({**P, "m_tail.weight": 1e300 * torch.ones(3).double()}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="has values that are not finite"):
        load_weights(tmp_path / "w.pth")


def test_a_network_of_another_size_is_told_by_names_and_shapes(tmp_path, tiny, P):
    torch.save(under("module.", tiny("P", widths=(5, 6, 8, 8)).state_dict()), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="weights of another network: ") as caught:
        load_into(tiny("P"), tmp_path / "w.pth")
    said = str(caught.value)
    assert "m_head.weight is (5, 4, 3, 3) and not (4, 4, 3, 3)" in said
    assert "and 5 more" in said and "\n" not in said and len(said) < 400


def test_a_prefix_does_not_hide_what_is_too_much(tmp_path, tiny, P):
    torch.save(under("module.", P | {"m_head.bias": torch.zeros(4)}), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"weights of another network: with m_head\.bias$"):
        load_into(tiny("P"), tmp_path / "w.pth")


def test_weights_that_match_differ_in_nothing(P):
    assert mismatch(P, P) is None
    assert mismatch({}, {"a": torch.ones(1)}) == "without a"
