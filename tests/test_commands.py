import json
import os
import re
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from scipy.io import savemat
from scipy.ndimage import convolve, correlate

import rglib
from rglib.__main__ import main
from rglib.core.metrics import psnr, ssim
from rglib.core.problems import PROBLEMS, observe_test_image
from rglib.core.tensors import to_tensor
from rglib.data.images import read_image, write_png
from rglib.data.photographs import read_mask, read_photograph
from rglib.restoration.borders import continued

SIZES = {"one": (64, 96), "two": (40, 70)}  # (H, W)


def picture(name):
    """A smooth image of that size, uint8."""
    height, width = SIZES[name]
    i, j = np.mgrid[:height, :width]
    waves = [128 + 90 * np.sin(i / (7 + k) + j / (11 - k)) for k in range(3)]
    return np.stack(waves, axis=-1).astype(np.uint8)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with one.png and photos/{one,two}.png in it."""
    monkeypatch.chdir(tmp_path)
    write_png(tmp_path / "one.png", picture("one"))
    for name in SIZES:
        write_png(tmp_path / "photos" / f"{name}.png", picture(name))
    return tmp_path


@pytest.fixture
def run(tiny_models, capsys):
    """Run a command line with the small networks; return its status and what it said."""

    def call(line):
        words = line.split()
        if words[0] == "restore":
            words += ["--models", str(tiny_models), "--iterations", "3", "--device", "cpu"]
        try:
            status = main(words)
        except SystemExit as stopped:
            status = stopped.code
        return status, "".join(capsys.readouterr())

    return call


def done(answer):
    status, said = answer
    assert status == 0, said
    return said


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# --- there and back -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["mtdeq", "rerg"])
@pytest.mark.parametrize("problem_id", PROBLEMS)
def test_degraded_and_restored_is_what_the_tables_evaluate(
    here, run, tiny_models, problem_id, method
):
    completion = problem_id.startswith("completion")
    mask = "--mask m.png" if completion else ""
    done(run(f"degrade one.png --problem {problem_id} -o y.npy {mask}"))
    line = f"restore y.npy --problem {problem_id} {mask} --method {method} -o x.npy"
    said = done(run(f"{line} --border circular --truth one.png"))

    seen = observe_test_image(problem_id, to_tensor(read_image(here / "one.png")))
    assert torch.equal(read_photograph(here / "y.npy").pixels, seen.y)
    if completion:
        size = {"height": seen.y.shape[-2], "width": seen.y.shape[-1]}
        assert torch.equal(read_mask(here / "m.png", **size), seen.problem.A.mask)
    prior = rglib.load(method, models=tiny_models, device="cpu").adjusted(iterations=3)
    x = prior.restore(seen.y, seen.problem, like=problem_id)
    torch.testing.assert_close(read_photograph(here / "x.npy").pixels, x, atol=1e-6, rtol=0)
    numbers = re.search(r"PSNR and SSIM (\S+) dB, (\S+) -> (\S+) dB, (\S+)$", said.strip())
    expected = [
        value
        for image in (seen.x0, x)
        for value in (psnr(image, seen.x_hat).item(), ssim(image, seen.x_hat).item())
    ]
    np.testing.assert_allclose([float(n) for n in numbers.groups()], expected, atol=6e-3)


def test_an_observation_without_noise_and_blur_is_kept_by_8_bits_and_others_are_not(here, run):
    said = done(run("degrade one.png --problem completion80 -o y.png --mask m.png"))
    assert "8 bits" not in said
    seen = observe_test_image("completion80", to_tensor(read_image(here / "one.png")))
    assert torch.equal(read_photograph(here / "y.png").pixels, seen.y)
    assert "8 bits" in done(run("degrade one.png --problem deblur_s1.6 -o z.png"))


def test_the_truth_is_written_as_it_was_cropped(here, run):
    done(run("degrade photos/two.png --problem sr2_bicubic_n0 -o y.png --truth t.png"))
    cropped = PROBLEMS["sr2_bicubic_n0"].crop(to_tensor(picture("two")))
    assert torch.equal(to_tensor(read_image(here / "t.png")), cropped)
    assert read_image(here / "y.png").shape == (16, 32, 3)


def test_another_seed_is_other_noise_and_no_noise_is_none(here, run):
    line = "degrade one.png --problem deblur_s1.6"
    done(run(f"{line} -o a.npy"))
    done(run(f"{line} -o b.npy --seed 1"))
    done(run(f"{line} -o c.npy --noise 0"))
    a, b, c = (np.load(here / f"{name}.npy") for name in "abc")
    assert 0.008 < (a - c).std() < 0.012 and 0.008 < (b - c).std() < 0.012
    assert abs(np.corrcoef((a - c).ravel(), (b - c).ravel())[0, 1]) < 0.1


def test_a_kernel_of_your_own_there_and_back(here, run, tiny_models):
    kernel = np.outer([1, 2, 1], [1, 3, 5, 3, 1]).astype(float)
    np.savetxt(here / "k.csv", kernel, delimiter=",")
    done(run("degrade one.png --kernel k.csv --noise 0 -o y.npy"))
    x = picture("one").astype(float) / 255
    wrapped = np.pad(x, ((1, 1), (2, 2), (0, 0)), mode="wrap")
    expected = sum(
        kernel[i, j] / kernel.sum() * wrapped[2 - i : 66 - i, 4 - j : 100 - j]
        for i in range(3)
        for j in range(5)
    )
    np.testing.assert_allclose(np.load(here / "y.npy"), expected, atol=1e-5)
    done(run("restore y.npy --kernel k.csv --noise 0.02 -o x.npy"))
    assert np.load(here / "x.npy").shape == (64, 96, 3)


# --- photographs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (17, 31), (26, 26)])
@pytest.mark.parametrize("problem_id", ["sr2_bicubic_n0.01", "sr3_gaussian_n0"])
def test_any_size_is_enlarged_by_the_factor(here, run, size, problem_id):
    write_png(here / "small.png", np.full((*size, 3), 99, dtype=np.uint8))
    done(run(f"restore small.png --problem {problem_id} -o x.png"))
    factor = PROBLEMS[problem_id].factor
    assert read_image(here / "x.png").shape == (factor * size[0], factor * size[1], 3)


def test_alpha_orientation_and_grey_survive(here, run):
    exif = Image.Exif()
    exif[0x0112] = 6
    alpha = np.full((64, 96, 1), 7, dtype=np.uint8)
    image = Image.fromarray(np.concatenate((picture("one"), alpha), axis=-1))
    image.convert("LA").save(here / "a.png", exif=exif)
    done(run("restore a.png --problem sr2_bicubic_n0.01 -o x.png"))
    restored = Image.open(here / "x.png")
    assert (restored.mode, restored.size) == ("LA", (128, 192))
    assert (np.asarray(restored.getchannel("A")) == 7).all()


def test_an_erased_part_is_filled_and_seen(here, run):
    alpha = np.full((64, 96, 1), 200, dtype=np.uint8)
    alpha[20:30, 40:60] = 0
    Image.fromarray(np.concatenate((picture("one"), alpha), axis=-1)).save(here / "a.png")
    write_png(here / "m.png", np.repeat(np.where(alpha, 255, 0).astype(np.uint8), 3, axis=2))
    done(run("restore a.png --mask m.png --problem completion80 -o x.png"))
    filled = np.asarray(Image.open(here / "x.png").getchannel("A"))
    np.testing.assert_array_equal(filled, np.where(alpha[..., 0], 200, 255))


@pytest.mark.parametrize(("problem_id", "margin"), [("deblur_s2.0", 25), ("sr3_gaussian_n0", 8)])
def test_a_photograph_is_restored_with_a_margin(here, run, tiny_models, problem_id, margin):
    done(run(f"restore one.png --problem {problem_id} --method rerg -o x.npy"))
    prior = rglib.load("rerg", models=tiny_models, device="cpu").adjusted(iterations=3)
    y, factor = to_tensor(picture("one")), getattr(PROBLEMS[problem_id], "factor", 1)
    x = prior.restore(continued(y, margin), problem_id)
    kept = x[0, :, : 64 * factor, : 96 * factor].permute(1, 2, 0).numpy()
    assert np.array_equal(np.load(here / "x.npy"), kept)


def test_completion_has_no_border_and_the_nearest_settings(here, run):
    done(run("degrade one.png --problem completion90 -o y.png --mask m.png"))
    for name, options in {
        "a": "",
        "b": "--border circular --problem completion90",
        "c": "--problem completion80",
    }.items():
        done(run(f"restore y.png --mask m.png -o {name}.npy --method rerg --solver adam {options}"))
    a, b, c = (np.load(here / f"{name}.npy") for name in "abc")
    assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_options_reach_the_prior(here, run, tiny_models):
    done(
        run(
            "restore one.png --problem sr2_bicubic_n0 --noise 0.03 --lr 0.07 --s 0.2 -o x.npy "
            "--border circular --tile-above 5000 --method deqgd --solver adam"
        )
    )
    prior = rglib.load("deqgd", models=tiny_models, device="cpu")
    prior = prior.adjusted(solver="adam", lr=0.07, s=0.2, iterations=3, tile_above=5000)
    y = to_tensor(picture("one"))
    x = prior.restore(y, "sr2_bicubic_n0")
    assert np.array_equal(np.load(here / "x.npy"), x[0].permute(1, 2, 0).numpy())


# --- folders --------------------------------------------------------------------------------------


def test_a_folder_there_and_back(here, run):
    folders = "--mask masks --truth truths"
    done(run(f"degrade photos --problem completion80 -o y {folders}"))
    assert files(here / "y") == ["one.npy", "two.npy"]
    assert files(here / "masks") == files(here / "truths") == ["one.png", "two.png"]
    said = done(run(f"restore y --problem completion80 -o x {folders}"))
    assert files(here / "x") == ["one.png", "two.png"]
    assert said.count("PSNR") == 2
    alone = "restore y/two.npy --problem completion80 -o alone.png --mask masks/two.png"
    done(run(alone))
    assert np.array_equal(read_image(here / "alone.png"), read_image(here / "x/two.png"))


def test_one_mask_serves_a_folder_of_images_of_one_size(here, run):
    Image.fromarray(picture("one")[::-1]).save(here / "photos/two.png")
    write_png(here / "m.png", np.full((64, 96, 3), 255, dtype=np.uint8))
    done(run("restore photos --mask m.png -o x"))
    assert files(here / "x") == ["one.png", "two.png"]


def test_one_bad_image_of_a_folder_stops_before_the_work(here, run):
    (here / "photos/zzz.png").write_bytes(b"no image")
    status, said = run("restore photos --problem deblur_s1.6 -o x")
    assert status == 2 and "cannot read the image photos/zzz.png" in said
    assert not (here / "x").exists()


# --- what is there already is not lost ------------------------------------------------------------


def test_nothing_is_overwritten_without_being_asked(here, run):
    line = "restore one.png --problem deblur_s1.6 --method rerg -o x.png"
    done(run(line))
    before = (here / "x.png").read_bytes()
    status, said = run(f"{line} --s 0.3")
    assert status == 2 and "x.png is there already; --overwrite replaces it" in said
    assert (here / "x.png").read_bytes() == before
    done(run(f"{line} --s 0.3 --overwrite"))
    assert (here / "x.png").read_bytes() != before


@pytest.mark.parametrize("output", ["one.png", "./one.png", "photos/../one.png", "link.png"])
def test_the_input_is_never_overwritten(here, run, output):
    (here / "link.png").symlink_to(here / "one.png")
    before = (here / "one.png").read_bytes()
    for command in ("restore", "degrade"):
        status, said = run(f"{command} one.png --problem deblur_s1.6 -o {output} --overwrite")
        assert status == 2 and "is what is read from" in said
    assert (here / "one.png").read_bytes() == before


def test_a_full_disk_leaves_the_old_output(here, run, full_disk):
    line = "restore one.png --problem sr2_bicubic_n0 -o x.npy --overwrite"
    done(run(line))
    before = (here / "x.npy").read_bytes()
    with full_disk(2000):
        status, said = run(line)
    assert status == 2 and "x.npy" in said and "cannot write" in said
    assert (here / "x.npy").read_bytes() == before
    assert files(here) == ["one.png", "photos/one.png", "photos/two.png", "x.npy"]


# --- mistakes -------------------------------------------------------------------------------------

MISTAKES = {
    "restore one.png -o x.png": "say what the image suffers from: --problem ID or --kernel FILE",
    "restore one.png --problem sr5 -o x.png": "--problem: unknown 'sr5'; there are completion80, ",
    "restore one.png --problem deblur_s1.6": "arguments are required: -o/--output",
    "restore one.png --problem deblur_s1.6 -o x.png --method best": "unknown method 'best'",
    "restore none.png --problem deblur_s1.6 -o x.png": "there is no none.png",
    "restore one.png --problem deblur_s1.6 -o photos": "photos is a folder; name a file",
    "restore photos --problem deblur_s1.6 -o one.png": "one.png is a file; name a folder",
    "restore one.png --problem deblur_s1.6 -o alpha.png/x.png": "cannot write into alpha.png: ",
    f"restore one.png --problem deblur_s1.6 --certificate -o {'x' * 250}.png": (
        "has a name of more than 255 bytes; shorten it"
    ),
    "restore signed.npy --problem deblur_s1.6 -o x.png": "its values go from -1 to ",
    "degrade signed.npy --problem deblur_s1.6 -o x.png": "its values go from -1 to ",
    "restore empty --problem deblur_s1.6 -o x": "there are no images in empty",
    "restore one.png --problem deblur_s1.6 -o x.gif": "its ending must be one of .npy, .png",
    "restore alpha.png --problem deblur_s1.6 -o x.jpg": "alpha channel, which .jpg cannot keep",
    "restore one.png --problem completion80 -o x.png": "completion80 needs --mask FILE",
    "restore one.png --problem completion80 --mask photos/two.png -o x.png": (
        "mask photos/two.png has 70x40 pixels, its image 96x64"
    ),
    "restore one.png --mask photos -o x.png": "photos is a folder; name the file that belongs",
    "restore one.png --mask none.png -o x.png": "there is no none.png",
    "restore photos --mask empty -o x": "there are no images in empty",
    "restore photos --mask other -o x": "other should have one file for one.png, there is nothing",
    "restore one.png --mask one.png --problem sr2_bicubic_n0 -o x.png": "--mask is for completion",
    "restore one.png --kernel k.npy -o x.png": "--kernel needs a noise level",
    "restore one.png --kernel k.npy --noise 0.01 --problem sr2_bicubic_n0 -o x.png": (
        "sr2_bicubic_n0 is no deblurring"
    ),
    "restore one.png --kernel one.png --noise 0.01 -o x.png": "coloured, and a blur kernel is grey",
    "restore one.png --kernel even.npy --noise 0.01 -o x.png": (
        "is 14x14; it needs two odd sides, around the entry in its middle: add a row or column of"
    ),
    "restore one.png --kernel two.npz --noise 0.01 -o x.png": (
        "two.npz: it holds several arrays, f (3x3), x (64x96); --kernel-name names the one"
    ),
    "restore one.png --kernel two.npz --kernel-name y --noise 0.01 -o x.png": "there is no y in it",
    "restore one.png --kernel k.csv --kernel-name y --noise 0.01 -o x.png": "cannot choose y in",
    "restore one.png --problem deblur_s1.6 --correlated -o x.png": "give it with --kernel FILE",
    "restore one.png --problem deblur_s1.6 --kernel-name f -o x.png": "--kernel-name says how a",
    "restore one.png --mask one.png --correlated -o x.png": "--mask is for completion",
    **{
        f"restore one.png --mask all.png --noise {noise} -o x.png": "0.01 for 2.55 of 255"
        for noise in (-1, 5, "nan", "inf", -0.001)
    },
    "restore one.png --mask one.png -o x.png": "mask one.png: its colours do not say what is known",
    "restore deep.png --problem deblur_s1.6 -o x.jpg": (
        "the image has 16 bits a channel, which .jpg cannot keep; take one of .npy, .png, .tif"
    ),
    "restore linear.png --problem deblur_s1.6 -o x.png": "a gamma of 1/1, which is not sRGB's",
    "restore photos/two.png/x.png --problem deblur_s1.6 -o x.png": "there is no photos/two.png/x",
    "restore circle.png --problem deblur_s1.6 -o x.png": "there is no circle.png",
    "restore objects.npy --problem deblur_s1.6 -o x.png": "it holds Python objects",
    "restore wide.npy --problem deblur_s1.6 -o x.png": "its values go to 255, and white is 1",
    "restore int.npy --problem deblur_s1.6 -o x.png": "int64, whose white is not known",
    "restore one.png --kernel big.npy --noise 0.01 --border circular -o x.png": (
        "cannot restore one.png: a 99x99 blur kernel does not fit"
    ),
    "restore one.png --problem deblur_s1.6 --noise 2.55 -o x.png": "0.01 for 2.55 of 255",
    "restore one.png --problem deblur_s1.6 --method rerg --s -1 -o x.png": "s: -1.0 is not allowed",
    "restore one.png --problem deblur_s1.6 --lr 0.1 --method gauss -o x.png": "lr: gauss restores",
    "restore one.png --problem deblur_s1.6 --truth photos/two.png -o x.png": (
        "the truth photos/two.png has 70x40 pixels, the result 96x64"
    ),
    "restore one.png --problem deblur_s1.6 --truth alpha.png -o x.png": (
        "cannot compare with alpha.png: it has transparent pixels"
    ),
    "degrade one.png -o y.npy": "say what the image suffers from",
    "degrade one.png --problem completion80 -o y.npy": "needs --mask FILE, where to write",
    "degrade one.png --problem deblur_s1.6 -o y.npy --mask m.png": "--mask is for completion",
    "degrade one.png --problem completion80 -o y.png --mask y.png": "would be written twice",
    "degrade alpha.png --problem deblur_s1.6 -o y.npy": "it has transparent pixels",
    "degrade tiny.png --problem deblur_s1.6 -o y.npy": "tiny.png is too small: of its 9x9 pixels",
    "degrade one.png --problem deblur_s1.6 -o y.npy --seed -1": "--seed: -1 is not allowed",
    "degrade deep.png --problem deblur_s1.6 -o y.npy --truth t.jpg": (
        "the image has 16 bits a channel, which .jpg cannot keep; take one of .npy, .png, .tif"
    ),
    "models --models none": "there is no folder of networks none",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_mistakes_are_named_and_nothing_is_written(here, run, line):
    Image.fromarray(np.full((30, 30, 4), 9, dtype=np.uint8)).save(here / "alpha.png")
    write_png(here / "tiny.png", np.zeros((9, 9, 3), dtype=np.uint8))
    write_png(here / "other/three.png", picture("one"))
    (here / "empty").mkdir()
    np.save(here / "k.npy", np.ones((3, 3)))
    np.save(here / "big.npy", np.ones((99, 99)))
    np.save(here / "even.npy", np.ones((14, 14)))
    np.savetxt(here / "k.csv", np.ones((3, 3)), delimiter=",")
    np.savez(here / "two.npz", f=np.ones((3, 3)), x=np.ones((64, 96)))
    write_png(here / "all.png", np.full((64, 96, 3), 255, dtype=np.uint8))
    Image.fromarray(np.zeros((40, 40), np.uint16)).save(here / "deep.png")
    gamma = PngInfo()
    gamma.add(b"gAMA", struct.pack(">L", 100_000))
    Image.fromarray(picture("one")).save(here / "linear.png", pnginfo=gamma)
    (here / "circle.png").symlink_to(here / "circle.png")
    np.save(here / "objects.npy", np.array([{}, None]), allow_pickle=True)
    np.save(here / "wide.npy", picture("one").astype(float) * (255 / picture("one").max()))
    np.save(here / "signed.npy", np.linspace(-1, 1, 64 * 96 * 3).reshape(64, 96, 3))
    np.save(here / "int.npy", picture("one").astype(np.int64))
    before = files(here)
    status, said = run(line)
    assert status == 2 and MISTAKES[line] in said, said
    assert "Traceback" not in said
    assert said.startswith("usage") or said.count("\n") == 1  # one line
    assert files(here) == before


def test_an_unset_variable_is_not_the_working_folder(here, capsys):
    with pytest.raises(SystemExit):
        main(["restore", "", "--problem", "deblur_s1.6", "-o", "x"])
    assert "argument input: '' names no file and no folder" in capsys.readouterr().err


def test_two_images_of_a_name_have_no_two_outputs(here, run):
    Image.fromarray(picture("one")).save(here / "photos/one.bmp")
    status, said = run("restore photos --problem deblur_s1.6 -o x")
    assert status == 2 and "one.bmp, one.png of photos would all go to x/one.png" in said


def test_an_interruption_ends_quietly_and_leaves_nothing(here, run, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupted)
    before = files(here)
    assert run("restore one.png --problem deblur_s1.6 -o x.png") == (130, "")
    assert files(here) == before


# --- files that people have -----------------------------------------------------------------------


def deep(height, width, channels=3):
    return np.random.default_rng(2).integers(0, 65536, (height, width, channels), dtype=np.uint16)


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_16_bits_there_and_back(here, run, ending):
    tifffile.imwrite(here / "a.tif", deep(40, 48), photometric="rgb", planarconfig="contig")
    done(run(f"degrade a.tif --problem completion80 -o y{ending} --mask m.png --truth t{ending}"))
    truth = read_photograph(here / f"t{ending}")
    assert truth.bits == 16
    np.testing.assert_allclose(
        truth.pixels[0].permute(1, 2, 0).numpy(), deep(40, 48) / 65535, rtol=1e-6
    )
    said = done(run(f"restore y{ending} --mask m.png -o x{ending} --truth t{ending}"))
    assert "PSNR" in said and read_photograph(here / f"x{ending}").bits == 16
    done(run(f"restore y{ending} --mask m.png -o x.npy"))
    exact = np.clip(np.load(here / "x.npy"), 0, 1)
    written = read_photograph(here / f"x{ending}").pixels[0].permute(1, 2, 0).numpy()
    assert 0 < np.abs(written - exact).max() < 1e-5  # 8 bits would be off by up to 2e-3


def test_what_16_bits_lose_is_said(here, run):
    tifffile.imwrite(here / "a.tif", deep(40, 48), photometric="rgb", planarconfig="contig")
    said = done(run("degrade a.tif --problem deblur_s1.6 -o y.png"))
    assert "clipping and rounding to 16 bits" in said
    lost = float(re.search(r"changed it by (\S+),", said)[1])
    done(run("degrade a.tif --problem deblur_s1.6 -o y.npy"))
    kept = read_photograph(here / "y.png").pixels - read_photograph(here / "y.npy").pixels
    assert lost == pytest.approx(kept.square().mean().sqrt().item(), rel=0.06)


def test_a_grey_image_stays_grey_and_has_the_noise_asked_for(here, run):
    grey = np.broadcast_to(np.linspace(60, 190, 96).astype(np.uint8), (64, 96))
    profile = bytes(16) + b"GRAY" + bytes(108)
    Image.fromarray(np.ascontiguousarray(grey)).save(here / "a.png", icc_profile=profile)
    line = "degrade a.png --problem deblur_s1.6 --noise"
    done(run(f"{line} 0.1 -o y.png --truth t.png"))
    for name in ("y.png", "t.png"):
        image = Image.open(here / name)
        assert image.mode == "L" and image.info["icc_profile"] == profile
    assert np.array_equal(np.asarray(Image.open(here / "t.png")), grey)
    done(run(f"{line} 0.1 -o y.npy"))
    done(run(f"{line} 0 -o z.npy"))
    noisy, blurred = np.load(here / "y.npy"), np.load(here / "z.npy")
    assert noisy.shape == (64, 96)
    assert (noisy - blurred).std() == pytest.approx(0.1, rel=0.05)
    done(run("restore y.png --problem deblur_s1.6 -o x.png"))
    restored = Image.open(here / "x.png")
    assert restored.mode == "L" and restored.info["icc_profile"] == profile


def test_a_kernel_is_convolved_and_with_an_option_correlated(here, run):
    kernel = np.zeros((5, 7))
    kernel[0, 1], kernel[2, 3], kernel[4, 2] = 1, 2, 3
    savemat(here / "k.mat", {"f": kernel, "x": np.zeros((9, 9))})
    image = picture("one").astype(float) / 255
    for option, blur in {"": convolve, "--correlated": correlate}.items():
        line = f"degrade one.png --kernel k.mat --kernel-name f {option} --noise 0"
        done(run(f"{line} -o y.npy"))
        expected = blur(image, kernel[..., None] / 6, mode="wrap")
        np.testing.assert_allclose(np.load(here / "y.npy"), expected, atol=1e-6)
        (here / "y.npy").unlink()
    turned = kernel[::-1, ::-1]
    np.save(here / "turned.npy", np.ascontiguousarray(turned))
    expected = correlate(image, kernel[..., None] / 6, mode="wrap").astype(np.float32)
    np.save(here / "y.npy", expected)
    line = "restore y.npy --noise 0.01 --border circular --kernel"
    done(run(f"{line} turned.npy -o a.npy"))
    done(run(f"{line} k.mat --kernel-name f --correlated -o b.npy"))
    np.testing.assert_allclose(np.load(here / "a.npy"), np.load(here / "b.npy"), atol=1e-6)


def test_the_noise_of_an_image_with_a_mask_is_the_solvers(here, run, tiny_models):
    write_png(here / "m.png", np.full((64, 96, 3), 255, dtype=np.uint8))
    done(run("restore one.png --mask m.png --noise 0.03 -o a.npy"))
    done(run("restore one.png --mask m.png -o b.npy"))
    assert not np.array_equal(np.load(here / "a.npy"), np.load(here / "b.npy"))


NAMES = ["with space.png", "line\nbreak.png", "ünï.png", os.fsdecode(b"\xff.png")]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_name_is_read_written_and_said_in_a_line(here, name, tiny_models):
    (here / "one.png").rename(here / name)
    line = ["--problem", "deblur_s1.6", "--models", str(tiny_models), "--iterations", "2"]
    command = [sys.executable, "-m", "rglib", "restore", name, "-o", f"x {name}", *line]
    answers = [
        subprocess.run(words, capture_output=True, text=True, cwd=here, check=False)
        for words in (command, command, [*command[:4], f"no {name}", *command[5:]])
    ]
    assert [answer.returncode for answer in answers] == [0, 2, 2]
    assert (here / f"x {name}").is_file()
    said = [answer.stdout + answer.stderr.split("\r")[-1] for answer in answers]
    assert said[0].count("\n") == 1 and answers[0].stdout.startswith("x ")
    assert all(answer.stderr.count("\n") == 1 for answer in answers[1:])


def test_a_name_may_begin_with_a_dash(here, run):
    (here / "one.png").rename(here / "-one.png")
    done(run("degrade --problem deblur_s1.6 -o x.png -- -one.png"))
    assert (here / "x.png").is_file()


def test_an_output_that_is_a_link_in_a_circle_is_replaced(here, run):
    (here / "x.png").symlink_to(here / "x.png")
    done(run("restore one.png --problem deblur_s1.6 -o x.png"))
    assert read_image(here / "x.png").shape == (64, 96, 3)


# --- memory and output ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["rerg", "gauss"])
def test_too_large_an_image_is_refused_before_the_work(here, run, monkeypatch, method):
    monkeypatch.setattr("rglib.restoration.memory.free_memory", lambda _: 500_000)
    status, said = run(f"restore photos --problem sr2_bicubic_n0 --method {method} -o x")
    assert status == 2 and not (here / "x").exists()
    assert "too small for photos/one.png: of the 192x128 pixels of its result about " in said
    assert "would fit into the 0.0 GiB that are free; cut it into parts" in said


@pytest.mark.parametrize("free", [128_000_000, 90_000_000])  # bytes; 115 MB are needed for images
@pytest.mark.parametrize("method", ["rerg", "gauss"])
def test_parts_are_advised_where_they_help_and_then_they_do(here, run, monkeypatch, method, free):
    monkeypatch.setattr("rglib.restoration.memory.free_memory", lambda _: free)
    write_png(here / "large.png", np.tile(picture("one"), (10, 6, 1))[:600, :560])
    line = f"restore large.png --problem sr2_bicubic_n0 --method {method} -o x.png"
    # for a result of four times the pixels
    monkeypatch.setattr("rglib.restoration.memory.OF_IMAGES", 80)
    status, said = run(line)
    assert status == 2
    advised = re.search(r"; (--tile-above \d+) applies the network to parts", said)
    assert bool(advised) == (method == "rerg" and free == 128_000_000)
    assert advised or said.endswith("cut it into parts\n")
    if advised:
        done(run(f"{line} {advised[1]}"))


@pytest.mark.parametrize("command", ["restore", "degrade"])
def test_a_lack_of_memory_is_said_in_a_line(here, run, monkeypatch, command):
    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr("rglib.core.operators.Blur.__call__", full)
    monkeypatch.setattr("rglib.core.operators.Blur.prox", full)
    status, said = run(f"{command} one.png --problem deblur_s1.6 -o x.png")
    assert status == 2 and "the memory is too small for one.png: cut it into parts" in said
    assert said.count("\n") == 1 and not (here / "x.png").exists()


def shell(line, here):
    """Run a line of bash where rglib is this one; return each command's status and what it says."""
    rglib_here = f'rglib() {{ "{sys.executable}" -m rglib "$@"; }}'
    script = f'{rglib_here}; {line}; echo "${{PIPESTATUS[@]}}" >&2'
    answer = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, cwd=here, check=True
    )
    *said, statuses = answer.stderr.splitlines()
    return statuses.split(), said


@pytest.mark.parametrize("words", ["models", "--help"])
def test_output_into_a_closed_pipe_ends_quietly(here, words):
    line = f"rglib {words} | {{ exec <&-; sleep 0.1; }}"
    (status, _), said = shell(line, here)
    assert (status, said) in (("141", []), ("0", []))


def test_a_closed_pipe_stops_a_folder_and_leaves_whole_images(here, tiny_models):
    options = f"--models {tiny_models} --iterations 2 --problem deblur_s1.6"
    (status, _), said = shell(f"rglib restore photos {options} -o x 2>&1 | true", here)
    assert status == "141" and said == []
    assert all(read_image(here / "x" / name).size for name in files(here / "x"))


def test_output_that_cannot_be_written_is_said_in_a_line(here):
    (status,), said = shell("rglib models > /dev/full", here)
    assert status == "2"
    assert said == ["rglib: cannot write the output: No space left on device"]
    assert shell("rglib models >&-", here) == (["0"], [])


# --- models ---------------------------------------------------------------------------------------


def test_models_are_listed_with_their_size_and_what_is_missing(run, tiny_models, tmp_path):
    said = done(run(f"models --models {tiny_models}"))
    for method in json.loads((tiny_models / "settings.json").read_text())["methods"]:
        assert re.search(rf"^{method} .*4-6-8-8, blocks 1 +elsewhere$", said, re.M)
    assert all(problem in said for problem in PROBLEMS)
    shipped = done(run("models"))
    assert re.search(
        r"^pnpreg .* G, \S+, blocks \d+ +[\d,]+ steps on \d+ images, after ", shipped, re.M
    )


def test_a_missing_network_is_said_to_be(run, tiny_models, tmp_path):
    (tmp_path / "settings.json").write_bytes((tiny_models / "settings.json").read_bytes())
    assert done(run(f"models --models {tmp_path}")).count(" missing") == 6


def test_models_says_what_a_network_started_from(run, tiny_models, tmp_path):
    folder = tmp_path / "models"
    shutil.copytree(tiny_models, folder)
    card = {"network": {"widths": [4, 6, 8, 8], "blocks": 1}, "steps": 400, "images": 663}
    before = {"rerg_first": {"steps": 1000, "batch": 4, "crop": 96}}
    for stage, more in {
        "denoiser": {"init": {"P": "orthogonal"}},
        "mtdeq": {"init": {"P": "denoiser"}},
        "deqgd": {"init": {"G": "denoiser.P"}},
        "rerg": {"init": {"P": "mtdeq", "G": "rerg_first"}, "before": before},
    }.items():
        (folder / f"{stage}.card.json").write_text(json.dumps({"stage": stage} | card | more))
    said = done(run(f"models --models {folder}"))
    for method, start in {
        "gauss": "",
        "mtdeq": ", after denoiser",
        "deqgd": ", after denoiser",
        "rerg": ", after 1,000 of rerg_first",
    }.items():
        assert re.search(rf"^{method} .* 400 steps on 663 images{start}$", said, re.M), said
