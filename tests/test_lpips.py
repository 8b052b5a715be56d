"""LPIPS against its formula, with a random trunk, and its column beside PSNR and SSIM.

AlexNet as trained on ImageNet is 244 MB and not here, so that no value is that of the literature.
What needs torchmetrics and torchvision is skipped where they cannot be imported, with the reason.
"""

import math
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from test_evaluations import LABELS, PROVENANCE, diverge, evaluation
from test_workflow import Project

from rglib.core.tensors import to_tensor, to_uint8
from rglib.data.images import write_png
from rglib.integrations import lpips as integration
from rglib.integrations.lpips import SMALLEST, Lpips, LpipsError, lpips_of_images, trunk_file
from rglib.report.evaluations import ResultsError
from rglib.report.lpips import lpips_markdown, with_lpips

try:
    import torchmetrics.functional.image.lpips as library
    import torchvision
except Exception as error:  # a torchvision for another PyTorch raises RuntimeError
    missing = f"torchmetrics or torchvision cannot be imported ({type(error).__name__}: {error})"
else:
    missing = ""
needs_library = pytest.mark.skipif(bool(missing), reason=missing)

NAME = "alexnet-owt-7be5be79.pth"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A TORCH_HOME whose AlexNet is random."""
    folder = tmp_path_factory.mktemp("torch")
    file = folder / "hub" / "checkpoints" / NAME
    file.parent.mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(torchvision.models.alexnet(weights=None).state_dict(), file)
    yield folder
    file.unlink()


@pytest.fixture
def lpips(home, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(home))
    monkeypatch.setattr(integration, "file_digest", lambda file: "7be5be79" + 56 * "0")
    return Lpips(CPU)


def photograph(side=64):
    """Smooth, with an edge."""
    i, j = torch.meshgrid(torch.arange(float(side)), torch.arange(float(side)), indexing="ij")
    waves = [0.5 + 0.3 * torch.sin(i / (5 + k) + j / (8 - k)) for k in range(3)]
    return torch.stack(waves)[None] + 0.15 * (i > j)


def noise(sigma, side=64):
    return sigma * torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))


# --- the metric -----------------------------------------------------------------------------------


@needs_library
def test_it_is_none_of_equal_images_and_grows_with_the_noise(lpips):
    x_hat = photograph()
    assert lpips(x_hat, x_hat).item() == 0
    small, large = (lpips(x_hat + noise(sigma), x_hat).item() for sigma in (0.01, 0.1))
    assert 0 < small < large


@needs_library
def test_it_is_the_formula_of_its_paper(lpips, home):
    """Eq. (1) of Zhang et al.: unit features, their differences squared, weighted and averaged."""
    x_hat = photograph()
    x = (x_hat + noise(0.1)).clamp(0, 1)
    alexnet = torchvision.models.alexnet()
    alexnet.load_state_dict(torch.load(home / "hub" / "checkpoints" / NAME, map_location=CPU))
    learned = torch.load(Path(library.__file__).parent / "lpips_models" / "alex.pth", CPU)
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1)
    a, b = ((2 * image - 1 - shift) / scale for image in (x, x_hat))
    expected, level = 0.0, 0
    with torch.no_grad():
        for layer in alexnet.features:
            a, b = layer(a), layer(b)
            if isinstance(layer, torch.nn.ReLU):
                unit_a, unit_b = (f / f.norm(dim=1, keepdim=True).clamp_min(1e-12) for f in (a, b))
                weights = learned[f"lin{level}.model.1.weight"].view(-1, 1, 1)
                expected += (weights * (unit_a - unit_b).square()).sum(1).mean().item()
                level += 1
    assert level == 5
    assert lpips(x, x_hat).item() == pytest.approx(expected, rel=1e-3)


@needs_library
def test_it_is_that_of_a_direct_call_image_by_image(lpips):
    x_hat = torch.cat([photograph(), 1 - photograph()])
    x = x_hat + noise(0.2)  # beyond [0, 1], as an iterate may be
    direct = [
        library.learned_perceptual_image_patch_similarity(*pair, normalize=True).item()
        for pair in zip(x.clamp(0, 1).split(1), x_hat.clamp(0, 1).split(1), strict=True)
    ]
    assert lpips(x, x_hat).tolist() == pytest.approx(direct, rel=1e-5)
    assert direct[0] != pytest.approx(direct[1], rel=1e-3)


@needs_library
def test_the_smallest_image_passes_and_a_smaller_or_other_one_is_refused(lpips):
    x_hat = photograph(SMALLEST)
    assert lpips(1 - x_hat, x_hat).item() > 0
    for x, other in (
        (photograph(SMALLEST - 1), photograph(SMALLEST - 1)),
        (photograph(40), photograph(41)),
        (photograph()[:, :1], photograph()[:, :1]),
    ):
        with pytest.raises(LpipsError, match=r"of at least 31 pixels, not of \(1, "):
            lpips(x, other)


# --- what is missing is said before the work ------------------------------------------------------


@needs_library
def test_a_missing_trunk_is_named_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    expected = f"there is no {tmp_path}/hub/checkpoints/{NAME}: download https://.*{NAME} there"
    for ask in (trunk_file, lambda: Lpips(CPU)):
        with pytest.raises(LpipsError, match=expected):
            ask()
    assert not any(tmp_path.rglob("*.pth"))


@needs_library
def test_another_file_of_its_name_is_refused(home, monkeypatch):
    """As the random one is."""
    monkeypatch.setenv("TORCH_HOME", str(home))
    with pytest.raises(LpipsError, match=f"{NAME} is damaged or another file: .* 7be5be79"):
        trunk_file()


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics.image.lpip", None)
    with pytest.raises(LpipsError, match=r'ModuleNotFoundError.*pip install "rglib\[lpips\]"'):
        trunk_file()


@pytest.mark.slow
def test_the_workflow_says_it_before_any_job(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "nothing"))
    project = Project.copied(tmp_path / "project")
    said = project.snakemake("lpips", fails=True)
    assert "LPIPS needs" in said
    assert not (project / "work").exists()


# --- folders --------------------------------------------------------------------------------------


def save(folder, name, x):
    write_png(folder / f"{name}.png", to_uint8(x))


@needs_library
def test_restored_images_are_compared_with_their_truths(lpips, tmp_path):
    x_hat = photograph()
    for image, sigma in (("0001", 0.1), ("null", 0.0)):
        save(tmp_path / "images" / "completion80", image, x_hat + noise(sigma))
        save(tmp_path / "seen" / "completion80", f"{image}_truth", x_hat)
        save(tmp_path / "seen" / "completion80", f"{image}_start", 0 * x_hat)
    table = lpips_of_images(lpips, tmp_path / "images", tmp_path / "seen")
    assert list(table["image"]) == ["0001", "null"]
    exact = lpips(*(to_tensor(to_uint8(x)) for x in (x_hat + noise(0.1), x_hat))).item()
    assert list(table["lpips"]) == pytest.approx([exact, 0])


@needs_library
def test_an_image_that_is_too_small_is_named(lpips, tmp_path):
    save(tmp_path / "images" / "a", "tiny", photograph(20))
    save(tmp_path / "seen" / "a", "tiny_truth", photograph(20))
    with pytest.raises(LpipsError, match=f"images/a/tiny.png: .* at least {SMALLEST} pixels"):
        lpips_of_images(lpips, tmp_path / "images", tmp_path / "seen")


# --- the table ------------------------------------------------------------------------------------


def values_of(results, values, folder):
    """The files of the methods' jobs, in another order than the results, with these values."""
    table = results[["method", "seed", "problem_id", "image"]].assign(lpips=values)[::-1]
    paths = []
    for method, rows in table.groupby("method"):
        paths.append(str(folder / f"{method}.csv"))
        rows.to_csv(paths[-1], index=False)
    return paths


@pytest.fixture
def results():
    """Two methods on two problems, of two images each."""
    problems = ["completion80", "sr2_bicubic_n0.01"]
    frames = [evaluation(method, problems) for method in ("rg1", "rerg")]
    return pd.concat(frames, ignore_index=True).replace({"image": {"one": "0001", "two": "null"}})


def test_the_column_stands_beside_the_results_row_by_row(results, tmp_path):
    values = [k / 8 for k in range(8)]
    joined = with_lpips(results, values_of(results, values, tmp_path))
    assert list(joined["lpips"]) == values
    assert joined.drop(columns="lpips").equals(results)


def test_a_result_without_a_value_is_no_silent_gap(results, tmp_path):
    paths = values_of(results.iloc[1:], 0.5, tmp_path)
    with pytest.raises(ResultsError, match="no LPIPS of rg1 on completion80, seed 0, image 0001"):
        with_lpips(results, paths)


def test_means_are_laid_out_and_the_lowest_is_bold(results, tmp_path):
    values = [0.10, 0.20, 0.30, 0.50, 0.40, 0.50, 0.10, 0.10]  # rg1's two problems, then rerg's
    joined = with_lpips(results, values_of(results, values, tmp_path))
    text = lpips_markdown(joined, labels=LABELS, provenance=PROVENANCE)
    rows = {
        tuple(cells[:2]): cells[-1]
        for cells in ([cell.strip() for cell in line[1:-1].split("|")] for line in text.split("\n"))
        if len(cells) == 5
    }
    assert rows["problem", "method"] == "LPIPS (lower is better)"
    completion, sr = "completion, 80 % missing", "SR ×2 bicubic, σ = 0.01"
    assert rows[completion, "RG1"] == "**0.150**" and rows[completion, "RERG"] == "0.450"
    assert rows[sr, "RG1"] == "0.400" and rows[sr, "RERG"] == "**0.100**"


def test_a_stand_in_is_named_in_the_sentence_above_the_means(results, tmp_path):
    joined = with_lpips(results, values_of(results, 0.5, tmp_path))
    made = replace(PROVENANCE, test_set="three others", stand_in_for="Set5")
    text = lpips_markdown(joined, labels=LABELS, provenance=made)
    assert "images of the STAND-IN test set three others (not Set5)" in text


def test_a_diverged_restoration_has_no_value_and_is_in_no_mean(results, tmp_path):
    diverge(results, "completion80", "null")
    joined = with_lpips(results, values_of(results, 0.5, tmp_path))
    assert joined["lpips"].isna().sum() == 2
    assert math.isnan(joined.loc[joined["image"] == "null", "lpips"].iloc[0])
    text = lpips_markdown(joined, labels=LABELS, provenance=PROVENANCE)
    assert text.count("diverged (1 of 2)") == 2 * 3
    assert text.count("**0.500**") == 2  # of the other problem
