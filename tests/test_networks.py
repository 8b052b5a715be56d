import hashlib
import pickle
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from rglib import paper
from rglib.core import fused
from rglib.core.networks import (
    InferenceOnly,
    ProximalOperator,
    RegularizingGradient,
    WeightsError,
    build,
    for_inference,
    inference_only,
    load_frozen,
    load_G_from_P,
    load_into,
    load_trainable,
    load_weights,
    orthogonal_,
    preferred_arithmetic,
    save_weights,
)


def kair_names(blocks=4):
    """The names of KAIR's UNetRes, in order."""

    def residual(part, numbers):
        return [f"m_{part}.{i}.res.{j}.weight" for i in numbers for j in (0, 2)]

    names = ["m_head.weight"]
    for level in (1, 2, 3):
        names += [*residual(f"down{level}", range(blocks)), f"m_down{level}.{blocks}.weight"]
    names += residual("body", range(blocks))
    for level in (3, 2, 1):
        names += [f"m_up{level}.0.weight", *residual(f"up{level}", range(1, blocks + 1))]
    return [*names, "m_tail.weight"]


def plain_drunet(w, x, blocks):
    """DRUNet written down as functions of the weights; sides of x are multiples of 8."""

    def residual_blocks(x, part, numbers):
        for i in numbers:
            first, second = (w[f"m_{part}.{i}.res.{j}.weight"] for j in (0, 2))
            x = x + F.conv2d(F.relu(F.conv2d(x, first, padding=1)), second, padding=1)
        return x

    skips = [F.conv2d(x, w["m_head.weight"], padding=1)]
    for level in (1, 2, 3):
        x = residual_blocks(skips[-1], f"down{level}", range(blocks))
        skips.append(F.conv2d(x, w[f"m_down{level}.{blocks}.weight"], stride=2))
    x = residual_blocks(skips[-1], "body", range(blocks))
    for level in (3, 2, 1):
        x = F.conv_transpose2d(x + skips.pop(), w[f"m_up{level}.0.weight"], stride=2)
        x = residual_blocks(x, f"up{level}", range(1, blocks + 1))
    return F.conv2d(x + skips.pop(), w["m_tail.weight"], padding=1)


def image(batch, height, width, seed=0):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def relative_error(x, expected):
    return ((x - expected).norm() / expected.norm()).item()


# --- architecture ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "parameters"), [(ProximalOperator, 32_640_960), (RegularizingGradient, 32_640_384)]
)
def test_the_papers_networks_have_as_many_parameters(network, parameters):
    with torch.device("meta"):
        assert sum(p.numel() for p in network().parameters()) == parameters


@pytest.mark.parametrize("network", [ProximalOperator, RegularizingGradient])
def test_weights_have_kairs_names_in_kairs_order(network):
    with torch.device("meta"):
        assert list(network().state_dict()) == kair_names()


@pytest.mark.parametrize("widths", [(8, 8, 8), (8,) * 5])
def test_a_drunet_has_four_widths(widths):
    with pytest.raises(ValueError, match="four widths"):
        build("G", widths=widths, blocks=1)


@torch.no_grad()
def test_the_papers_networks_equal_plain_drunets():
    z, sigma = image(1, 32, 48), 0.1
    noise_map = torch.full((1, 1, 32, 48), sigma)
    torch.manual_seed(0)
    P = ProximalOperator()
    expected = plain_drunet(P.state_dict(), torch.cat((z, noise_map), dim=1), paper.BLOCKS)
    torch.testing.assert_close(P(z, sigma), expected, rtol=1e-5, atol=1e-5)
    assert relative_error(P(z, sigma), expected) < 1e-5
    G = RegularizingGradient()
    expected = plain_drunet(G.state_dict(), z, paper.BLOCKS)
    assert relative_error(G(z), expected) < 1e-5


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    batch=st.integers(1, 3),
    blocks=st.integers(1, 2),
)
@settings(max_examples=25)
@torch.no_grad()
def test_any_size_is_padded_by_repeating_the_border_and_cropped(height, width, batch, blocks):
    torch.manual_seed(blocks)
    G = build("G", widths=(4, 6, 8, 10), blocks=blocks)
    x = image(batch, height, width)
    padded = F.pad(x, (0, -width % 16, 0, -height % 16), mode="replicate")
    expected = plain_drunet(G.state_dict(), padded, blocks)[..., :height, :width]
    assert G(x).shape == x.shape
    assert relative_error(G(x), expected) < 1e-5


@torch.no_grad()
def test_each_image_has_a_noise_level_of_its_own(tiny):
    P, z = tiny("P"), image(2, 16, 16)
    both = P(z, torch.tensor([0.02, 0.2]))
    torch.testing.assert_close(both[:1], P(z[:1], 0.02), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(both[1:], P(z[1:], 0.2), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(both[1:], P(z[1:], 0.02), atol=1e-4)


@torch.no_grad()
def test_the_network_is_bias_free_so_that_it_scales_with_its_input(tiny):
    G, x = tiny("G"), image(1, 16, 24)
    torch.testing.assert_close(G(3 * x), 3 * G(x), rtol=1e-4, atol=1e-5)
    assert torch.equal(G(0 * x), 0 * x)


def test_orthogonal_initialisation_has_orthogonal_rows_of_kairs_gain():
    network = build("G", widths=(16, 16, 16, 16), blocks=1)
    orthogonal_(network)
    for weight in network.parameters():
        flat = weight.detach().flatten(1)
        gram = flat @ flat.T if len(flat) <= flat.shape[1] else flat.T @ flat
        torch.testing.assert_close(gram, 0.2**2 * torch.eye(len(gram)), atol=1e-6, rtol=0)


# --- arithmetic -----------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", [False, True])
@torch.no_grad()
def test_bfloat16_inside_is_close_to_float32_and_gives_float32(frozen):
    torch.manual_seed(0)
    exact = build("G", widths=(16, 16, 16, 16), blocks=1)
    low = build("G", widths=(16, 16, 16, 16), blocks=1, arithmetic=torch.bfloat16)
    low.load_state_dict(exact.state_dict())
    if frozen:
        low = for_inference(low, torch.device("cpu"))
    x = image(2, 20, 31)
    y = low(x)
    assert y.dtype == torch.float32
    assert 0 < relative_error(y, exact(x)) < 0.02


@pytest.mark.parametrize(("role", "rounded"), [("P", False), ("G", True)])
@torch.no_grad()
def test_of_frozen_networks_in_bfloat16_only_the_image_is_not_rounded(role, rounded):
    torch.manual_seed(0)
    low = build(role, widths=(16, 16, 16, 16), blocks=1, arithmetic=torch.bfloat16)
    inputs = (image(2, 20, 31), 0.1) if role == "P" else (image(2, 20, 31),)
    assert not torch.equal(low(*inputs), low(*inputs).bfloat16().float())  # to be trained
    y = for_inference(low, torch.device("cpu"))(*inputs)
    assert y.dtype == torch.float32
    assert torch.equal(y, y.bfloat16().float()) == rounded


@pytest.mark.parametrize("role", ["P", "G"])
@pytest.mark.parametrize(
    ("arithmetic", "error"), [(torch.float32, 1e-6), (torch.bfloat16, 0.01)], ids=str
)
@torch.no_grad()
def test_in_inference_mode_a_network_computes_the_same(role, arithmetic, error):
    torch.manual_seed(0)
    made = build(role, widths=(8, 16, 16, 24), blocks=2, arithmetic=arithmetic)
    network = for_inference(made, torch.device("cpu"))
    for height, width in ((20, 31), (48, 32)):
        inputs = (image(2, height, width), 0.1) if role == "P" else (image(2, height, width),)
        y = InferenceOnly(network)(*inputs)
        assert relative_error(y, network(*inputs)) < error
        assert not y.is_inference()


@pytest.mark.skipif(fused._CONVOLUTION is None, reason="needs a PyTorch with oneDNN")
@torch.no_grad()
def test_convolutions_are_fused_in_inference_mode_alone(tiny, monkeypatch):
    added = []
    plain = fused.conv3_plus
    monkeypatch.setattr(fused, "conv3_plus", lambda *x: added.append(1) or plain(*x))
    G = for_inference(tiny("G"), torch.device("cpu"))
    G(image(1, 16, 16))
    assert not added
    InferenceOnly(G)(image(1, 16, 16))
    assert len(added) == 7  # one a block: three on the way down, the body, three on the way up


def test_a_network_to_be_trained_computes_the_same_in_inference_mode():
    torch.manual_seed(0)
    for arithmetic in (torch.float32, torch.bfloat16):
        G = build("G", widths=(8, 16, 16, 24), blocks=1, arithmetic=arithmetic)
        expected = G(image(1, 16, 32)).detach()
        torch.testing.assert_close(InferenceOnly(G)(image(1, 16, 32)), expected)


@pytest.mark.parametrize("derivative", ["jvp", "vjp"])
def test_nothing_is_differentiated_in_inference_mode(tiny, derivative):
    G, x = InferenceOnly(for_inference(tiny("G"), torch.device("cpu"))), image(1, 16, 16)
    arguments = ((x,), (x,)) if derivative == "jvp" else (x,)
    with pytest.raises(RuntimeError, match="take `network` itself"):
        getattr(torch.func, derivative)(G, *arguments)


def test_a_network_of_your_own_is_not_in_inference_mode(tiny):
    G, own = tiny("G"), torch.nn.Conv2d(3, 3, 1)
    assert inference_only(G) == InferenceOnly(G)
    assert inference_only(own) is own


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_network_computes_the_same(tiny):
    x = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    plain = for_inference(tiny("G"), torch.device("cpu"))
    compiled = for_inference(tiny("G"), torch.device("cpu"), compiled=True)
    torch.testing.assert_close(compiled(x), plain(x))


def test_a_network_for_inference_is_not_trainable(tiny):
    network = for_inference(tiny("P"), torch.device("cpu"))
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


def test_precision_is_named_or_chosen_and_a_typing_error_is_refused():
    cpu = torch.device("cpu")
    assert preferred_arithmetic("float32", cpu) == torch.float32
    assert preferred_arithmetic("bfloat16", cpu) == torch.bfloat16
    assert preferred_arithmetic("auto", cpu) in (torch.float32, torch.bfloat16)
    with pytest.raises(ValueError, match="float16"):
        preferred_arithmetic("float16", cpu)


# --- weights on disk ------------------------------------------------------------------------------


def write(path, weights):
    if path.suffix == ".pth":
        torch.save(dict(weights), path)
    else:
        save_weights(path, weights)


@pytest.mark.parametrize("name", ["P.safetensors", "P.pth"])
def test_weights_written_are_the_weights_read(tmp_path, tiny, name):
    written, other = tiny("P", seed=1), tiny("P", seed=2)
    write(tmp_path / name, written.state_dict())
    load_into(other, tmp_path / name)
    for ours, expected in zip(other.parameters(), written.parameters(), strict=True):
        assert torch.equal(ours, expected)
    assert [path.name for path in tmp_path.iterdir()] == [name]  # nothing partial left


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["G.safetensors", "G.pth"])
def test_16_bit_files_load_as_float32(tmp_path, tiny, name, dtype):
    weights = {key: tensor.to(dtype) for key, tensor in tiny("G").state_dict().items()}
    write(tmp_path / name, weights)
    for key, tensor in load_weights(tmp_path / name).items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, weights[key].float())


@pytest.mark.parametrize("name", ["P.safetensors", "P.pth"])
def test_a_published_file_of_the_papers_size_loads_strictly(tmp_path, name):
    with torch.device("meta"):
        shapes = {key: tensor.shape for key, tensor in ProximalOperator().state_dict().items()}
    assert shapes["m_head.weight"] == (paper.WIDTHS[0], 4, 3, 3)
    assert shapes["m_down3.4.weight"] == (512, 256, 2, 2)
    assert shapes["m_up3.0.weight"] == (512, 256, 2, 2)
    published = {key: torch.zeros(shapes[key]) for key in kair_names()}
    write(tmp_path / name, published)
    network = ProximalOperator()
    load_into(network, tmp_path / name)
    assert not any(p.any() for p in network.parameters())


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"G\.pth: no such weights file"):
        load_weights(tmp_path / "G.pth")


def test_only_the_right_checksum_is_accepted(tmp_path, tiny):
    path = tmp_path / "G.safetensors"
    write(path, tiny("G").state_dict())
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_weights(path, sha256=right)
    with pytest.raises(WeightsError, match="sha256"):
        load_weights(path, sha256="0" * 64)


@pytest.mark.parametrize("name", ["G.safetensors", "G.pth"])
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, tiny, name, share):
    path = tmp_path / name
    write(path, tiny("G").state_dict())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(WeightsError, match="cannot be read"):
        load_weights(path)


class Malice:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), "w")


def dump_plainly(content, path):
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("dump", [torch.save, dump_plainly])
def test_code_in_a_file_is_refused_and_not_run(tmp_path, dump):
    victim = tmp_path / "victim"
    dump({"m_head.weight": Malice(victim)}, tmp_path / "G.pth")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_weights(tmp_path / "G.pth")
    assert not victim.exists()


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.zeros(3)])
def test_a_file_without_a_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "G.pth")
    with pytest.raises(WeightsError, match="not a state dict"):
        load_weights(tmp_path / "G.pth")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path, tiny, value):
    weights = tiny("G").state_dict()
    weights["m_tail.weight"][0, 0, 0, 0] = value
    write(tmp_path / "w.pth", weights)
    with pytest.raises(WeightsError, match=r"w\.pth: m_tail\.weight has values that are not"):
        load_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("case", ["other width", "other role", "a name too few", "a name too many"])
def test_weights_of_another_network_are_refused(tmp_path, tiny, case):
    weights = {
        "other width": tiny("G", widths=(4, 6, 8, 10)).state_dict(),
        "other role": tiny("P").state_dict(),
        "a name too few": dict(list(tiny("G").state_dict().items())[1:]),
        "a name too many": tiny("G").state_dict() | {"m_head.bias": torch.zeros(4)},
    }[case]
    write(tmp_path / "w.pth", weights)
    with pytest.raises(WeightsError, match="weights of another network"):
        load_into(tiny("G"), tmp_path / "w.pth")


def test_a_network_is_loaded_for_a_role_as_built_by_hand(tiny, tmp_path):
    save_weights(tmp_path / "P.safetensors", tiny("P").state_dict())
    z, here = torch.rand(1, 3, 16, 16), torch.device("cpu")
    network = {"widths": [4, 6, 8, 8], "blocks": 1}
    trainable = load_trainable("P", tmp_path / "P.safetensors", network=network)
    assert all(p.requires_grad for p in trainable.parameters())
    assert torch.equal(trainable(z, 0.1), tiny("P")(z, 0.1))
    for precision, arithmetic in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        frozen = load_frozen(
            "P", tmp_path / "P.safetensors", network=network, device=here, precision=precision
        )
        assert not any(p.requires_grad for p in frozen.parameters())
        assert frozen.m_head.weight.dtype == arithmetic
        own = build("P", **network, arithmetic=arithmetic)
        own.load_state_dict(tiny("P").state_dict())
        assert torch.equal(frozen(z, 0.1), for_inference(own, here)(z, 0.1))
    with pytest.raises(WeightsError, match="sha256 is"):
        load_trainable("P", tmp_path / "P.safetensors", network=network, sha256="0" * 64)


def test_a_G_starts_from_a_P_by_all_but_the_filters_of_the_noise_map(tiny, tmp_path):
    P, network = tiny("P", seed=3), {"widths": [4, 6, 8, 8], "blocks": 1}
    save_weights(tmp_path / "P.safetensors", P.state_dict())
    G = load_G_from_P(tmp_path / "P.safetensors", network=network)
    assert all(p.requires_grad for p in G.parameters())
    x = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(G(x), P(x, 0.0))  # where the map is zero


@pytest.mark.parametrize(("role", "widths"), [("G", [4, 6, 8, 8]), ("P", [4, 6, 8, 16])])
def test_a_G_does_not_start_from_a_G_or_another_size_as_from_a_P(tiny, tmp_path, role, widths):
    save_weights(tmp_path / "w.safetensors", tiny(role).state_dict())
    with pytest.raises(WeightsError, match=r"w\.safetensors: weights of another network"):
        load_G_from_P(tmp_path / "w.safetensors", network={"widths": widths, "blocks": 1})
