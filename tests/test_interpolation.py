"""Unknown pixels between known ones, against a sparse direct solution of Laplace's equation."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from scipy.sparse.linalg import spsolve

from rglib.core.interpolation import interpolated


def photo(height, width, channels=3, seed=0):
    """Smooth, as photographs are between their edges."""
    coarse = torch.rand(2, channels, 5, 6, generator=torch.Generator().manual_seed(seed))
    size = (height, width)
    x = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic", align_corners=False)
    return x.double()


def some(height, width, keep, channels=1, seed=1):
    drawn = torch.rand(2, channels, height, width, generator=torch.Generator().manual_seed(seed))
    return (drawn < keep).float()


def harmonic(y, known):
    """Each unknown pixel (H, W) is the mean of its neighbours within the image."""
    height, width = y.shape
    rows, columns, values, right = [], [], [], []
    for i in range(height):
        for j in range(width):
            here = i * width + j
            beside = [] if known[i, j] else [(i, j - 1), (i, j + 1), (i - 1, j), (i + 1, j)]
            inside = [p for p in beside if 0 <= p[0] < height and 0 <= p[1] < width]
            rows += [here] * (len(inside) + 1)
            columns += [here, *(k * width + m for k, m in inside)]
            values += [max(len(inside), 1), *[-1] * len(inside)]
            right.append(0.0 if inside else y[i, j])
    matrix = csr_array((np.array(values, float), (rows, columns)), shape=(y.size, y.size))
    return spsolve(matrix.tocsc(), np.array(right)).reshape(height, width)


@pytest.mark.parametrize("keep", [0.05, 0.1, 0.2, 0.5])
def test_it_is_near_the_solution_of_laplaces_equation(keep):
    x, known = photo(45, 64), some(45, 64, keep)
    found = interpolated(known * x, known, otherwise=0.5)
    for image, mask, one in zip(x, known, found, strict=True):
        for truth, channel in zip(image, one, strict=True):
            expected = harmonic(truth.numpy(), mask[0].numpy())
            away = np.sqrt(np.mean((channel.numpy() - expected) ** 2))
            of_grey = np.sqrt(np.mean((np.where(mask[0], truth, 0.5) - expected) ** 2))
            assert away < 0.1 * of_grey


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (7, 1), (16, 16), (33, 20)])
def test_known_pixels_stay_and_the_rest_lies_between_them(height, width):
    x, known = photo(height, width), some(height, width, 0.3, channels=3)
    found = interpolated(x, known, otherwise=0.5)
    assert torch.equal(found[known.bool()], x[known.bool()])
    channels = (part.flatten(0, 1) for part in (x, known, found))
    for truth, mask, channel in zip(*channels, strict=True):
        if mask.any():
            low, high = truth[mask.bool()].aminmax()
            assert low - 1e-12 <= channel.min() and channel.max() <= high + 1e-12
        else:
            assert (channel == 0.5).all()


def test_what_is_unknown_does_not_count():
    x, known = photo(20, 20), some(20, 20, 0.3)
    other = torch.where(known.bool(), x, torch.nan)
    torch.testing.assert_close(
        interpolated(other, known, otherwise=0.5), interpolated(x, known, otherwise=0.5)
    )


def test_a_constant_image_is_found_from_one_pixel():
    known = torch.zeros(1, 1, 31, 17)
    known[..., 4, 12] = 1
    x = torch.full((1, 3, 31, 17), 0.7)
    torch.testing.assert_close(interpolated(x * known, known, otherwise=0.5), x)


def test_a_mask_is_for_all_images_and_channels_or_for_each():
    x, known = photo(24, 24), some(24, 24, 0.2)
    of_all = interpolated(x, known[:1], otherwise=0.5)
    of_each = interpolated(x, known[:1].expand(2, 3, 24, 24), otherwise=0.5)
    assert torch.equal(of_all, of_each)
