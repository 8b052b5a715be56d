import pytest
import torch
from torch import nn

from rglib.core.networks import channels_last
from rglib.training.optimisers import FEWEST_CHANNELS, Muon, optimisers


def gradients(network, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_muon_takes_the_step_of_pytorchs_on_the_matrix_of_a_convolution(layout):
    conv = nn.Conv2d(16, 32, 3, bias=False).to(memory_format=layout)
    matrix = nn.Parameter(conv.weight.detach().reshape(32, -1).clone())
    ours = Muon([conv.weight], lr=0.02)
    theirs = torch.optim.Muon([matrix], lr=0.02, weight_decay=0.0)
    for seed in range(3):
        gradients(conv, seed)
        matrix.grad = conv.weight.grad.reshape(32, -1).clone()
        ours.step()
        theirs.step()
    # the order of the columns does not matter but for rounding, which is bfloat16's inside Muon
    moved = (conv.weight.detach().reshape(32, -1) - matrix.detach()).norm()
    assert moved < 0.02 * 3 * 0.02 * 32**0.5
    assert conv.weight.is_contiguous(memory_format=layout)


def test_a_step_of_muon_is_nearly_orthogonal_and_along_the_gradient():
    conv = nn.Conv2d(16, 16, 3, bias=False)
    before = conv.weight.detach().clone()
    gradients(conv, 0)
    Muon([conv.weight], lr=1.0).step()
    step = (before - conv.weight.detach()).reshape(16, -1)
    stretches = torch.linalg.svdvals(step)
    assert stretches.min() > 0.5 and stretches.max() < 1.5  # what five iterations promise
    assert (step * conv.weight.grad.reshape(16, -1)).sum() > 0


def test_muon_teaches_the_inner_convolutions_and_adam_the_rest(tiny):
    network = tiny("G", widths=(8, 16, 16, 24))
    wide = [p for p in network.parameters() if min(p.shape[:2]) >= FEWEST_CHANNELS]
    found = optimisers([network], lr=1e-3, muon=0.01)
    taught = {name: one.param_groups[0]["params"] for name, one in found.items()}
    assert [p.numel() for p in taught["muon"]] == [p.numel() for p in wide]
    everything = sum(p.numel() for p in network.parameters())
    assert sum(p.numel() for ps in taught.values() for p in ps) == everything


def test_without_muon_adam_teaches_all(tiny):
    (adam,) = optimisers([tiny("P"), tiny("G")], lr=1e-3, muon=None).values()
    assert isinstance(adam, torch.optim.Adam)


def test_muons_steps_reach_the_weights_of_a_network_in_its_layout():
    network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 3, 3))
    channels_last(network)
    before = [p.detach().clone() for p in network.parameters()]
    gradients(network, 0)
    for one in optimisers([network], lr=1e-3, muon=0.01).values():
        one.step()
    pairs = zip(before, network.parameters(), strict=True)
    assert all(not torch.equal(old, new) for old, new in pairs)
