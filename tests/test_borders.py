import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rglib.core.operators import Blur, Downsample
from rglib.restoration.borders import continued


@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    margin=st.integers(0, 30),
    seed=st.integers(0, 9),
)
def test_the_image_stays_and_the_margin_is_at_most_a_side(height, width, margin, seed):
    y = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed))
    wrapped = continued(y, margin)
    added = min(margin, height, width)
    assert wrapped.shape == (2, 3, height + added, width + added)
    assert torch.equal(wrapped[..., :height, :width], y)
    assert y.min() - 1e-6 <= wrapped.min() and wrapped.max() <= y.max() + 1e-6


def test_a_constant_goes_on():
    torch.testing.assert_close(
        continued(torch.full((1, 3, 9, 7), 0.3), 5), torch.full((1, 3, 14, 12), 0.3)
    )


@pytest.mark.parametrize("margin", [8, 16])
def test_a_ramp_comes_back_to_its_beginning_in_small_steps(margin):
    ramp = torch.linspace(0, 1, 33).expand(1, 3, 33, 33)
    row = continued(ramp, margin)[0, 0, 0]
    steps = (row.roll(-1) - row).abs()  # the last one is the seam
    assert (ramp[0, 0, 0, 0] - ramp[0, 0, 0, -1]).abs() == 1  # without a margin
    assert steps.max() < 2 / margin


def smooth(size):
    """An image with much at its borders that does not fit together."""
    i, j = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return (0.5 + 0.3 * torch.sin(i / 7.3 + j / 11) + 0.2 * j / size).expand(1, 3, size, size)


def restored(A, y):
    """The least squares solution with a little damping, from zero: no network, and linear."""
    return A.prox(torch.zeros_like(A.adjoint(y)), y, 1e-3)


def test_part_of_a_blurred_scene_is_restored_better_with_a_margin():
    scene, cut = smooth(128), slice(20, 108)
    blur = lambda side: Blur.gaussian(1.6, height=side, width=side)  # noqa: E731
    y, x = blur(128)(scene)[..., cut, cut], scene[..., cut, cut]
    bare = restored(blur(88), y)
    with_margin = restored(blur(88 + 25), continued(y, 25))[..., :88, :88]
    assert (with_margin - x).square().mean() < 0.1 * (bare - x).square().mean()


def test_part_of_a_small_scene_is_restored_better_with_a_margin():
    scene, cut = smooth(128), slice(20, 108)
    down = lambda side: Downsample.by(2, kernel="bicubic", height=side, width=side)  # noqa: E731
    y, x = down(128)(scene)[..., 10:54, 10:54], scene[..., cut, cut]
    bare = restored(down(88), y)
    with_margin = restored(down(88 + 16), continued(y, 8))[..., :88, :88]
    assert (with_margin - x).square().mean() < 0.1 * (bare - x).square().mean()
