import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rglib.core.metrics import psnr, ssim
from rglib.core.problems import (
    PROBLEMS,
    Completion,
    Deblurring,
    SeededImage,
    SeededStep,
    SuperResolution,
    TrainingDistribution,
    observe,
    observe_test_image,
)

# Set5 means of the starting point, PSNR in dB and SSIM
STARTS = {
    "completion80": (11.16, 0.175),
    "completion90": (10.65, 0.171),
    "deblur_s1.6": (26.53, 0.779),
    "deblur_s2.0": (25.23, 0.731),
    "sr2_bicubic_n0": (32.14, 0.916),
    "sr2_bicubic_n0.01": (31.54, 0.891),
    "sr2_gaussian_n0": (29.84, 0.883),
    "sr2_gaussian_n0.01": (29.48, 0.858),
    "sr3_bicubic_n0": (28.86, 0.843),
    "sr3_bicubic_n0.01": (28.57, 0.823),
    "sr3_gaussian_n0": (27.02, 0.804),
    "sr3_gaussian_n0.01": (26.82, 0.783),
}


def photo(height, width, batch=1):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(5))


# --- the twelve problems --------------------------------------------------------------------------


def test_the_problems_are_the_papers_twelve():
    assert set(PROBLEMS) == set(STARTS)


@pytest.mark.parametrize("problem_id", STARTS)
def test_starting_points_on_set5_have_the_figures_of_the_released_code(problem_id, set5):
    seen = [observe_test_image(problem_id, image) for image in set5.values()]
    decibels = np.mean([psnr(s.x0, s.x_hat).item() for s in seen])
    similarity = np.mean([ssim(s.x0, s.x_hat).item() for s in seen])
    assert decibels == pytest.approx(STARTS[problem_id][0], abs=0.01)
    assert similarity == pytest.approx(STARTS[problem_id][1], abs=0.001)


def pillows_centre(height, width):
    """First row and column of Pillow's centre crop to multiples of 32, half pixels and all."""
    image = Image.fromarray(np.arange(height * width, dtype=np.int32).reshape(height, width))
    left, top = ((side - side // 32 * 32) / 2 for side in (width, height))
    cropped = image.crop((left, top, width - left, height - top))
    assert cropped.size == (width // 32 * 32, height // 32 * 32)
    return divmod(cropped.getpixel((0, 0)), width)


@pytest.mark.parametrize("height, width", [(344, 228), (288, 288), (65, 97), (67, 127), (69, 99)])
def test_ground_truth_is_cropped_as_in_the_released_code(height, width):
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack((rows, columns))[None]

    def kept(problem_id):
        """First row, first column, height and width of what is left."""
        x = PROBLEMS[problem_id].crop(places)
        return (*x[0, :, 0, 0].tolist(), *x.shape[-2:])

    multiple_of_32 = (height // 32 * 32, width // 32 * 32)
    centre = pillows_centre(height, width)
    assert kept("completion80") == (0, 0, height, width)
    assert kept("deblur_s2.0") == (0, 0, height // 8 * 8, width // 8 * 8)
    assert kept("sr2_gaussian_n0") == (*centre, *multiple_of_32)
    assert kept("sr3_bicubic_n0") == (0, 0, height // 3 * 3, width // 3 * 3)


# --- masks and noise ------------------------------------------------------------------------------


@pytest.mark.parametrize(("problem_id", "keep"), [("completion80", 0.2), ("completion90", 0.1)])
def test_the_mask_is_numpys_for_seed_0_and_one_for_all_channels(problem_id, keep):
    seen = observe_test_image(problem_id, photo(512, 340))
    np.random.seed(0)
    expected = np.random.uniform(0, 1, (512, 340, 1)) > 1 - keep
    known = torch.from_numpy(expected).permute(2, 0, 1)[None]
    assert torch.equal(seen.problem.A.mask.bool(), known)
    assert torch.equal(seen.y, torch.where(known, seen.x_hat, 0))
    assert torch.equal(seen.x0, torch.where(known, seen.x_hat, 0.5))


@pytest.mark.parametrize("problem_id", ["deblur_s1.6", "sr2_bicubic_n0.01", "sr3_gaussian_n0.01"])
def test_noise_is_numpys_for_seed_0_in_chw_order_and_is_not_clipped(problem_id):
    image = photo(64, 96).round()  # black and white: half of the noisy pixels leave [0, 1]
    seen = observe_test_image(problem_id, image)
    clean = seen.problem.A(seen.x_hat)
    np.random.seed(0)
    expected = 0.01 * np.random.normal(size=clean.shape[1:])
    np.testing.assert_allclose((seen.y - clean)[0], expected, atol=2e-7)
    assert seen.problem.sigma == 0.01


def test_a_noisy_completion_draws_its_mask_before_its_noise():
    x_hat = photo(20, 30)
    seen = observe(Completion(keep=0.5, sigma=0.1), x_hat, SeededImage(3))
    np.random.seed(3)
    mask = np.random.uniform(0, 1, (20, 30, 1)) > 0.5
    noise = 0.1 * np.random.normal(size=(3, 20, 30))
    expected = mask.transpose(2, 0, 1) * x_hat[0].numpy() + noise
    np.testing.assert_allclose(seen.y[0], expected, atol=1e-6)


def test_seeding_an_image_leaves_numpys_global_generator_alone():
    np.random.seed(11)
    expected = np.random.uniform()
    np.random.seed(11)
    observe_test_image("completion80", photo(16, 16))
    assert np.random.uniform() == expected


def test_images_of_a_training_batch_have_masks_and_noise_of_their_own():
    seen = observe(Completion(keep=0.5, sigma=0.1), photo(16, 16, batch=2), SeededStep(0, 0))
    assert seen.problem.A.mask.shape == (2, 1, 16, 16)
    assert not torch.equal(*seen.problem.A.mask)
    noise = seen.y - seen.problem.A(seen.x_hat)
    assert not torch.equal(*noise)


# --- starting points ------------------------------------------------------------------------------


def cubic_resize(x, factor):
    """Keys' interpolation, a = -0.75, half-pixel centres, border pixels repeated, first axis."""
    a, n = -0.75, len(x)

    def h(d):
        d = abs(d)
        if d <= 1:
            return (a + 2) * d**3 - (a + 3) * d**2 + 1
        return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0

    out = []
    for i in range(n * factor):
        centre = (i + 0.5) / factor - 0.5
        base = int(np.floor(centre))
        near = range(base - 1, base + 3)
        out.append(sum(h(centre - j) * x[min(max(j, 0), n - 1)] for j in near))
    return np.array(out)


@pytest.mark.parametrize("problem_id", ["sr2_bicubic_n0", "sr3_gaussian_n0.01"])
def test_super_resolution_starts_from_a_cubic_resize_of_the_clipped_observation(problem_id):
    seen = observe_test_image(problem_id, 9 * photo(33, 36) - 4)
    factor = PROBLEMS[problem_id].factor
    assert seen.y.min() < 0 and seen.y.max() > 1  # so that clipping shows
    for y, x0 in zip(seen.y[0].double().numpy(), seen.x0[0], strict=True):
        expected = cubic_resize(cubic_resize(y.clip(0, 1), factor).T, factor).T
        np.testing.assert_allclose(x0, expected, atol=3e-6)


@pytest.mark.parametrize(
    "degradation", [Deblurring(sigma_b=2.0, sigma=0.1), SuperResolution(1, "bicubic", 0.1)]
)
def test_deblurring_and_denoising_start_from_the_observation(degradation):
    seen = observe(degradation, photo(32, 32), SeededStep(0, 0))
    assert torch.equal(seen.x0, seen.y)


@given(factor=st.sampled_from([2, 3, 4]), height=st.integers(4, 20), width=st.integers(4, 20))
@settings(max_examples=20)
def test_super_resolution_starts_at_the_size_of_the_truth_whatever_that_is(factor, height, width):
    seen = observe(SuperResolution(factor, "bicubic", 0.0), photo(height, width), SeededStep(0, 0))
    assert seen.y.shape[-2:] == (-(-height // factor), -(-width // factor))
    assert seen.x0.shape == seen.x_hat.shape


# --- randomness in training -----------------------------------------------------------------------


@given(seed=st.integers(0, 2**31), step=st.integers(0, 10**6))
@settings(max_examples=25)
def test_a_steps_randomness_is_a_pure_function_of_seed_and_step(seed, step):
    def draws(seed, step):
        source = SeededStep(seed, step)
        return torch.cat((source.uniform((5,)), source.normal((5,))))

    first = draws(seed, step)
    torch.manual_seed(step)
    assert torch.equal(draws(seed, step), first)
    assert not torch.equal(draws(seed, step + 1), first)
    assert not torch.equal(draws(seed + 1, step), first)


def test_training_problems_follow_the_distribution_of_the_paper():
    drawn = [TrainingDistribution().draw(SeededStep(0, step)) for step in range(3000)]
    blurs = [d for d in drawn if isinstance(d, Deblurring)]
    scalings = [d for d in drawn if isinstance(d, SuperResolution)]
    masks = [d for d in drawn if isinstance(d, Completion)]
    thirds = [len(blurs), len(scalings), len(masks)]
    assert scipy.stats.chisquare(thirds).pvalue > 0.01
    factors = [d.factor for d in scalings]
    assert scipy.stats.chisquare([factors.count(f) for f in (1, 2, 4)]).pvalue > 0.01
    assert {d.kernel for d in scalings} == {"bicubic"}

    def assert_uniform(values, upper):
        assert scipy.stats.kstest(values, "uniform", args=(0, upper)).pvalue > 0.01

    assert_uniform([d.sigma for d in drawn], 50 / 255)
    assert_uniform([d.sigma_b for d in blurs], 4)
    assert_uniform([1 - d.keep for d in masks], 0.99)


def test_every_training_problem_can_be_observed():
    x_hat = photo(32, 32, batch=2)
    for step in range(30):
        randomness = SeededStep(1, step)
        seen = observe(TrainingDistribution().draw(randomness), x_hat, randomness)
        assert seen.x0.shape == x_hat.shape
        assert seen.y.isfinite().all()
