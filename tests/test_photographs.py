import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageCms

from rglib.images import ImageError
from rglib.photographs import (
    FORMATS,
    Photograph,
    photographs_in,
    read_kernel,
    read_mask,
    read_photograph,
    write_mask,
    write_photograph,
)

ORIENTATION = 0x0112  # of EXIF
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def levels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def as_array(photograph):
    return photograph.pixels[0].permute(1, 2, 0).mul(255).round().byte().numpy()


@pytest.mark.parametrize("ending", [".png", ".tif", ".tiff", ".webp", ".bmp"])
def test_lossless_formats_give_the_same_pixels_again(tmp_path, ending):
    path, pixels = tmp_path / f"a{ending}", levels(5, 7, 3)
    write_photograph(path, Photograph(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255))
    found = read_photograph(path)
    assert np.array_equal(as_array(found), pixels)
    assert (found.alpha, found.grey) == (None, False)
    assert np.array_equal(np.asarray(Image.open(path)), pixels)


@pytest.mark.parametrize("ending", [".png", ".tif", ".webp"])
def test_alpha_and_profile_go_through(tmp_path, ending):
    source, target = tmp_path / f"a{ending}", tmp_path / f"b{ending}"
    image = Image.fromarray(levels(6, 8, 4))
    image.save(
        source,
        icc_profile=PROFILE,
        **({"lossless": True, "exact": True} if ending == ".webp" else {}),
    )
    write_photograph(target, read_photograph(source))
    again = Image.open(target)
    assert again.mode == "RGBA" and again.info["icc_profile"] == PROFILE
    assert np.array_equal(np.asarray(again)[..., 3], np.asarray(image)[..., 3])
    opaque = np.asarray(image)[..., 3] > 0
    assert np.array_equal(np.asarray(again)[opaque], np.asarray(image)[opaque])


def test_alpha_grows_with_the_image():
    alpha = np.repeat(np.array([0, 255], dtype=np.uint8), 8)[None].repeat(4, axis=0)
    photograph = Photograph(torch.zeros(1, 3, 4, 16), alpha)
    grown = photograph.with_pixels(torch.zeros(1, 3, 8, 32)).alpha
    assert grown.shape == (8, 32)
    assert (grown[:, :12] == 0).all() and (grown[:, 20:] == 255).all()


def test_transparency_of_a_palette_is_alpha(tmp_path):
    image = Image.fromarray(levels(4, 4) % 3).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.save(tmp_path / "a.png", transparency=1)
    found = read_photograph(tmp_path / "a.png")
    assert np.array_equal(found.alpha == 0, np.asarray(image) == 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_applied_and_not_written_again(tmp_path, orientation):
    image = Image.fromarray(levels(4, 6, 4))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    found = read_photograph(tmp_path / "a.png")
    turned = orientation > 4
    assert found.pixels.shape[-2:] == found.alpha.shape == ((6, 4) if turned else (4, 6))
    write_photograph(tmp_path / "b.png", found)
    assert ORIENTATION not in Image.open(tmp_path / "b.png").getexif()
    again = read_photograph(tmp_path / "b.png")
    assert torch.equal(again.pixels, found.pixels) and np.array_equal(again.alpha, found.alpha)
    corners = {
        1: (0, 0),
        2: (0, 5),
        3: (3, 5),
        4: (3, 0),
        5: (0, 0),
        6: (3, 0),
        7: (3, 5),
        8: (0, 5),
    }
    assert np.array_equal(as_array(found)[0, 0], np.asarray(image)[(*corners[orientation],)][:3])


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_grey_stays_grey(tmp_path, mode):
    image = Image.fromarray(levels(5, 5)).convert(mode)
    image.save(tmp_path / "a.png")
    found = read_photograph(tmp_path / "a.png")
    assert found.grey and (found.pixels == found.pixels[:, :1]).all()
    write_photograph(tmp_path / "b.png", found)
    again = Image.open(tmp_path / "b.png")
    assert again.mode == ("LA" if mode == "LA" else "L")
    assert np.array_equal(np.asarray(again.convert("L")), np.asarray(image.convert("L")))


def test_the_channels_of_a_grey_photograph_are_averaged(tmp_path):
    pixels = torch.tensor([0.0, 0.3, 0.9]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    write_photograph(tmp_path / "a.npy", Photograph(pixels, grey=True))
    np.testing.assert_allclose(np.load(tmp_path / "a.npy"), np.full((2, 2), 0.4), rtol=1e-6)


@given(
    array=arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(1, 4), st.just(3)),
        elements=st.floats(-2, 2, width=32),
    )
)
def test_arrays_keep_every_number(tmp_path_factory, array):
    path = tmp_path_factory.mktemp("arrays") / "a.npy"
    np.save(path, array)
    write_photograph(path, read_photograph(path))
    assert np.array_equal(np.load(path), array)


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535)])
def test_arrays_of_integers_are_divided_by_white(tmp_path, dtype, white):
    np.save(tmp_path / "a.npy", np.array([[0, white, white // 5]], dtype=dtype))
    found = read_photograph(tmp_path / "a.npy")
    assert found.grey
    torch.testing.assert_close(found.pixels[0, 0], torch.tensor([[0.0, 1.0, 0.2]]))


def test_what_is_written_into_8_bits_is_clipped_and_rounded(tmp_path):
    pixels = torch.tensor([-0.1, 0.5, 1.2]).view(1, 3, 1, 1)
    write_photograph(tmp_path / "a.png", Photograph(pixels))
    assert np.asarray(Image.open(tmp_path / "a.png")).tolist() == [[[0, 128, 255]]]


# --- what cannot be read or written ---------------------------------------------------------------


def saved(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


BAD = {
    "missing.png": (None, "cannot read the image .*missing.png"),
    "text.png": (b"hello", "cannot read the image .*text.png"),
    "cut.png": (saved(Image.fromarray(levels(50, 50, 3)), format="PNG")[:3000], "cannot read"),
    "deep.png": (saved(Image.fromarray(np.zeros((4, 4), np.uint16)), format="PNG"), "16 bits"),
    "cmyk.jpg": (saved(Image.new("CMYK", (4, 4)), format="JPEG"), "mode CMYK"),
    "missing.npy": (None, "cannot read the array .*missing.npy"),
    "text.npy": (b"hello", "cannot read the array"),
    "objects.npy": (npy(np.array([{}, {}])), "cannot read the array"),
    "complex.npy": (npy(np.zeros((4, 4), complex)), "holds complex128"),
    "nan.npy": (npy(np.full((4, 4), np.nan)), "not finite"),
    "empty.npy": (npy(np.zeros((0, 4))), "empty"),
    "four.npy": (npy(np.zeros((4, 4, 4))), r"is \(4, 4, 4\); an image is"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_photograph_is_named(tmp_path, name):
    content, message = BAD[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=message) as caught:
        read_photograph(tmp_path / name)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "photograph", "message"),
    [
        ("a.gif", Photograph(torch.zeros(1, 3, 2, 2)), r"ending must be one of \.npy, \.png"),
        ("a", Photograph(torch.zeros(1, 3, 2, 2)), "ending must be"),
        ("a.jpg", Photograph(torch.zeros(1, 3, 2, 2), np.zeros((2, 2), np.uint8)), "alpha channel"),
        ("a.npy", Photograph(torch.zeros(1, 3, 2, 2), np.zeros((2, 2), np.uint8)), "alpha channel"),
        ("a.png", Photograph(torch.full((1, 3, 2, 2), torch.nan)), "not finite"),
    ],
)
def test_what_a_format_cannot_keep_is_not_written(tmp_path, name, photograph, message):
    with pytest.raises(ImageError, match=message):
        write_photograph(tmp_path / name, photograph)
    assert list(tmp_path.iterdir()) == []


def test_photographs_of_a_folder_by_name(tmp_path):
    for name in ("b.JPG", "a.png", "c.npy", ".hidden.png", "d.txt"):
        (tmp_path / name).touch()
    (tmp_path / "e.png").mkdir()
    assert [path.name for path in photographs_in(tmp_path)] == ["a.png", "b.JPG", "c.npy"]
    assert {".png", ".jpg", ".npy"} <= set(FORMATS)
    with pytest.raises(ImageError, match="no images in"):
        photographs_in(tmp_path / "e.png")


# --- masks and kernels ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA"])
def test_white_is_known_whatever_the_mode(tmp_path, mode):
    known = levels(6, 5) > 127
    Image.fromarray(known.astype(np.uint8) * 255).convert(mode).save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png", height=6, width=5)
    assert mask.shape == (1, 1, 6, 5) and np.array_equal(mask[0, 0].numpy() == 1, known)


def test_half_as_bright_as_white_is_known(tmp_path):
    Image.fromarray(np.array([[127, 128]], dtype=np.uint8)).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", height=1, width=2).flatten().tolist() == [0, 1]


def test_a_mask_comes_back(tmp_path):
    mask = (torch.rand(1, 1, 7, 5) > 0.5).float()
    write_mask(tmp_path / "m.png", mask)
    assert torch.equal(read_mask(tmp_path / "m.png", height=7, width=5), mask)


def test_masks_that_do_not_fit(tmp_path):
    write_mask(tmp_path / "m.png", torch.zeros(1, 1, 7, 5))
    with pytest.raises(ImageError, match=r"m\.png has 5x7 pixels, its image 7x5"):
        read_mask(tmp_path / "m.png", height=5, width=7)
    with pytest.raises(ImageError, match=r"no pixel is known: white is known"):
        read_mask(tmp_path / "m.png", height=7, width=5)


KERNEL = np.array([[1.0, 2, 1], [0, 4, 0], [3, 0, 1]])


@pytest.mark.parametrize("ending", [".npy", ".csv", ".png"])
def test_kernels_sum_to_one(tmp_path, ending):
    path = tmp_path / f"k{ending}"
    if ending == ".npy":
        np.save(path, KERNEL)
    elif ending == ".csv":
        np.savetxt(path, KERNEL, delimiter=",")
    else:
        Image.fromarray((60 * KERNEL).astype(np.uint8)).save(path)
    np.testing.assert_allclose(read_kernel(path).numpy(), KERNEL / 12, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("k.npy", npy(np.ones((4, 5))), "is 4x5; it needs two odd sides"),
        ("k.npy", npy(np.ones((3, 3, 3))), "is 3x3x3; it needs two odd sides"),
        ("k.npy", npy(np.zeros((3, 3))), "has the sum 0.0; it must be positive"),
        ("k.npy", None, "cannot read the array"),
        ("k.csv", b"1,2\n3", "cannot read numbers from"),
        ("k.csv", b"1,x,3", "cannot read numbers from"),
        ("k.csv", b"1,nan,3", "has the sum nan"),
        ("k.csv", None, "cannot read numbers from"),
        ("k.png", b"no", "cannot read the image"),
    ],
)
def test_kernels_that_are_none(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=message):
        read_kernel(tmp_path / name)
