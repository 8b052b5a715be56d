"""The estimate of a noise level that is known, and the command that uses it."""

import re
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch

from rglib.__main__ import main
from rglib.core.problems import PROBLEMS, SeededImage
from rglib.core.tensors import to_tensor
from rglib.data.images import write_png
from rglib.data.photographs import read_photograph
from rglib.restoration.noise import estimated_noise


@pytest.fixture(scope="module")
def blurred():
    """A photograph, blurred as deblur_s1.6 does, without noise."""
    x = PROBLEMS["deblur_s1.6"].crop(to_tensor(skimage.data.cat()[:160, :208]))
    return PROBLEMS["deblur_s1.6"].operator(x.shape, SeededImage(0))(x)


@pytest.mark.parametrize("sigma", [0.005, 0.01, 0.03, 0.1])
def test_white_noise_on_a_blurred_photograph_is_found(blurred, sigma):
    noise = sigma * SeededImage(1).normal(blurred.shape)
    assert estimated_noise(blurred + noise) == pytest.approx(sigma, rel=0.05)


def test_without_noise_next_to_none_is_found(blurred):
    assert estimated_noise(blurred) < 5e-4
    assert estimated_noise(torch.full((1, 3, 32, 32), 0.4)) < 1e-6


@pytest.fixture
def run(tmp_path, monkeypatch, capsys, tiny_models, blurred):
    """Run `rglib restore` on y.npy, with noise of 0.02; its status and what it said."""
    monkeypatch.chdir(tmp_path)
    y = blurred + 0.02 * SeededImage(1).normal(blurred.shape)
    np.save("y.npy", y[0].permute(1, 2, 0).numpy())
    np.savetxt("k.csv", np.ones((3, 3)) / 9, delimiter=",")
    write_png(Path("m.png"), np.full((*y.shape[-2:], 3), 255, dtype=np.uint8))

    def call(line):
        words = f"restore y.npy -o x.npy --models {tiny_models} --iterations 2 {line}"
        status = main([*words.split(), "--device", "cpu", "--overwrite"])
        return status, "".join(capsys.readouterr())

    return call


@pytest.mark.parametrize("what", ["--kernel k.csv", "--problem deblur_s1.6"])
def test_the_image_is_restored_with_the_estimate_and_it_is_said(run, what):
    status, said = run(f"{what} --estimate-noise")
    assert status == 0
    found = float(re.search(r"noise estimated at (0\.\d+)", said).group(1))
    exact = estimated_noise(read_photograph(Path("y.npy")).pixels)
    assert found == pytest.approx(exact, abs=5e-5)
    estimated = np.load("x.npy")
    assert run(f"{what} --noise {exact}")[0] == 0
    assert np.array_equal(np.load("x.npy"), estimated)
    assert run(f"{what} --noise 0.2")[0] == 0
    assert not np.array_equal(np.load("x.npy"), estimated)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--kernel k.csv --estimate-noise --noise 0.1", "leave it out where --noise says"),
        ("--mask m.png --estimate-noise", "not with --mask, missing pixels would count as noise"),
    ],
)
def test_where_there_is_nothing_to_estimate_it_is_said(run, line, said):
    status, text = run(line)
    assert status == 2 and f"--estimate-noise: {said}" in text
