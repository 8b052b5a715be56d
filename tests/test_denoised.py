import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from rglib.data.images import write_png
from rglib.restoration.denoised import LEVELS, denoising_psnr, image_files, main

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[1]


def images(count, side=64):
    generator = torch.Generator().manual_seed(0)
    levels = [torch.randint(76, 179, (1, 3, side, side), generator=generator) for _ in range(count)]
    return [level / 255 for level in levels]


def test_what_does_nothing_has_the_psnr_of_the_noise():
    values = denoising_psnr(lambda z, sigma: z, images(3), 25, device=CPU)
    assert values == pytest.approx([-20 * math.log10(25 / 255)] * 3, abs=0.1)


def test_the_noise_is_that_of_seed_0_and_its_level_is_told():
    """An oracle that subtracts NumPy's numbers returns the image, whose levels are of 8 bits."""
    told = []

    def oracle(z, sigma):
        told.append(sigma)
        noise = np.random.RandomState(0).normal(size=tuple(z.shape))
        return z - sigma * torch.from_numpy(noise).float()

    assert min(denoising_psnr(oracle, images(2), 50, device=CPU)) > 100
    assert told == [50 / 255] * 2


@pytest.fixture
def folder(tmp_path):
    for name in "abc":
        pixels = np.full((32, 32, 3), 40 * ord(name) % 256, np.uint8)
        write_png(tmp_path / "images" / f"{name}.png", pixels)
    return tmp_path / "images"


def test_the_command_prints_each_level_over_the_images_that_are_listed(
    folder, tmp_path, tiny_models, capsys
):
    (tmp_path / "names.txt").write_text("a\nc\n")
    assert main([str(folder), "--models", str(tiny_models)]) == 0
    assert capsys.readouterr().out.count(" | 3 |") == len(LEVELS)
    assert main([str(folder), "--names", str(tmp_path / "names.txt")]) == 0
    said = capsys.readouterr().out
    assert said.count(" | 2 |") == len(LEVELS)
    card = json.loads((ROOT / "weights/denoiser.card.json").read_text())
    assert f"`denoiser_P.safetensors`, sha256 {card['files']['denoiser_P.safetensors']}" in said


def test_the_68_names_of_cbsd68_come_with_the_package(tmp_path):
    names = (ROOT / "rglib/data/cbsd68.txt").read_text().split()
    for name in [*names, "another"]:
        (tmp_path / f"{name}.jpg").touch()
    found = image_files(tmp_path, ROOT / "rglib/data/cbsd68.txt")
    assert len({path.stem for path in found}) == len(names) == 68


def test_a_name_may_have_a_blank(folder, tmp_path):
    (folder / "b.png").rename(folder / "b c.png")
    (tmp_path / "names.txt").write_text("b c\n\n")
    assert image_files(folder, tmp_path / "names.txt") == [folder / "b c.png"]


def test_a_name_without_an_image_and_a_folder_without_any_are_refused(folder, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("a\nz\n")
    assert main([str(folder), "--names", str(tmp_path / "names.txt")]) == 2
    assert "has no image z, which" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / "empty")]) == 2
    assert "no images in" in capsys.readouterr().err


def test_the_denoiser_that_ships_denoises():
    """Better than the noise by what it is for, on a smooth image; by its own card it is a P."""
    from rglib.core.networks import build, load_into
    from rglib.restoration.weights_folder import Models

    models = Models.open(ROOT / "weights")
    P = build("P", **models.card("gauss").network)
    load_into(P, models.weights("gauss"))
    ramp = torch.linspace(0.2, 0.8, 64).expand(1, 3, 64, 64)
    (value,) = denoising_psnr(P, [ramp], 25, device=CPU)
    assert value > -20 * math.log10(25 / 255) + 10
