import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from rglib.core.metrics import psnr, ssim


def pair(batch, height, width, seed, noise=0.1):
    rng = np.random.default_rng(seed)
    x_hat = rng.random((batch, 3, height, width))
    x = x_hat + noise * rng.normal(size=x_hat.shape)  # leaves [0, 1]: nothing may clamp
    return torch.from_numpy(x).float(), torch.from_numpy(x_hat).float()


def test_an_error_of_a_tenth_everywhere_is_20_db():
    x_hat = torch.full((2, 3, 4, 5), 0.95)  # the estimate is above 1
    torch.testing.assert_close(psnr(x_hat + 0.1, x_hat), torch.full((2,), 20.0))


def test_psnr_is_of_the_three_channels_together_and_of_each_image_alone():
    x_hat = torch.zeros(2, 3, 4, 4)
    x = x_hat.clone()
    x[0, 0] = 0.3  # mean square error 0.03
    x[1, 1, 0, 0] = 1  # mean square error 1 / 48
    expected = torch.tensor([-10 * np.log10(0.03), 10 * np.log10(48)])
    torch.testing.assert_close(psnr(x, x_hat), expected.float())


def test_a_perfect_restoration_has_infinite_psnr_and_ssim_1():
    _, x_hat = pair(1, 12, 12, seed=0)
    assert psnr(x_hat, x_hat).item() == float("inf")
    assert ssim(x_hat, x_hat).item() == pytest.approx(1)


@given(height=st.integers(11, 40), width=st.integers(11, 40), seed=st.integers(0, 2**31))
@settings(max_examples=25)
def test_ssim_equals_scikit_images_over_the_valid_area(height, width, seed):
    x, x_hat = pair(2, height, width, seed)
    for ours, a, b in zip(ssim(x, x_hat), x.double().numpy(), x_hat.double().numpy(), strict=True):
        _, everywhere = structural_similarity(
            a,
            b,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1,
            channel_axis=0,
            full=True,
        )
        valid = everywhere[:, 5:-5, 5:-5]
        assert ours.item() == pytest.approx(valid.mean(), abs=1e-9)


@pytest.mark.parametrize("size", [(10, 30), (30, 10)])
def test_ssim_of_an_image_smaller_than_its_window_is_refused(size):
    with pytest.raises(ValueError, match="11x11"):
        ssim(torch.zeros(1, 3, *size), torch.zeros(1, 3, *size))
