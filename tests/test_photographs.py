import io
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo
from scipy.io import savemat

from rglib.data.images import ImageError
from rglib.data.photographs import (
    FORMATS,
    Photograph,
    check_format,
    check_range,
    photographs_in,
    read_kernel,
    read_mask,
    read_photograph,
    write_mask,
    write_photograph,
)

ORIENTATION = 0x0112  # of EXIF
GREY_PROFILE = bytes(16) + b"GRAY" + bytes(108)  # as much of one as tells its channels
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


# --- 16 bits and floats ---------------------------------------------------------------------------


def deep(*shape, dtype=np.uint16):
    """Numbers whose lower bytes matter."""
    rng = np.random.default_rng(1)
    return rng.integers(0, 65536, shape, dtype=np.uint16).astype(dtype)


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("profile", [None, "grey or sRGB"])
def test_16_bits_come_back(tmp_path, ending, channels, profile):
    grey = channels < 3
    profile = profile and (GREY_PROFILE if grey else PROFILE)
    expected = deep(6, 7, channels)
    tifffile.imwrite(
        tmp_path / "a.tif",
        expected[..., 0] if channels == 1 else expected,
        photometric="minisblack" if grey else "rgb",
        planarconfig=None if channels == 1 else "contig",
        extrasamples=() if channels % 2 else ("unassalpha",),
        iccprofile=profile,
    )
    found = read_photograph(tmp_path / "a.tif")
    assert (found.bits, found.grey, found.profile) == (16, grey, profile)
    colours = expected[..., : 1 if grey else 3] / 65535
    written = found.pixels[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(written, np.broadcast_to(colours, (6, 7, 3)), rtol=1e-6)
    path = tmp_path / f"b{ending}"
    write_photograph(path, found)
    again = (
        tifffile.imread(path)
        if ending == ".tif"
        else np.asarray(imagecodecs.png_decode(path.read_bytes()))
    )
    assert again.dtype == np.uint16
    np.testing.assert_array_equal(again.reshape(expected.shape), expected)
    assert read_photograph(path).profile == profile
    if ending == ".png":
        assert Image.open(path).info.get("icc_profile") == profile


def test_arrays_of_16_bits_are_images_of_16_bits(tmp_path):
    np.save(tmp_path / "a.npy", deep(6, 7, 3).astype(">u2"))
    found = read_photograph(tmp_path / "a.npy")
    write_photograph(tmp_path / "b.png", found)
    content = (tmp_path / "b.png").read_bytes()
    np.testing.assert_array_equal(imagecodecs.png_decode(content), deep(6, 7, 3))


def test_floats_of_a_tiff_come_back_and_are_rounded_to_16_bits_in_a_png(tmp_path):
    values = (deep(6, 7, 3) / 65535).astype(np.float32)
    values[0, 0] = -0.25, 0.5, 1.5
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    found = read_photograph(tmp_path / "a.tif")
    assert found.bits == 32
    write_photograph(tmp_path / "b.tif", found)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif"), values)
    write_photograph(tmp_path / "b.png", found)
    rounded = imagecodecs.png_decode((tmp_path / "b.png").read_bytes())
    assert rounded[0, 0].tolist() == [0, 32768, 65535]
    np.testing.assert_array_equal(rounded[1:], deep(6, 7, 3)[1:])


@pytest.mark.parametrize("kind", ["alpha", "float alpha"])
def test_alpha_keeps_its_depth_as_it_grows(kind):
    white = 65535 if kind == "alpha" else 1
    alpha = np.linspace(0, white, 16).astype(np.uint16 if kind == "alpha" else np.float32)
    grown = Photograph(torch.zeros(1, 3, 1, 16), alpha[None]).with_pixels(torch.zeros(1, 3, 2, 32))
    assert grown.alpha.dtype == alpha.dtype and grown.alpha.shape == (2, 32)
    np.testing.assert_allclose(grown.alpha[0, 4:-4:2] / white, alpha[2:-2] / white, atol=0.04)


# --- colour profiles ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("space", ["grey", "RGB", "CMYK", "damaged"])
@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif", ".webp", ".bmp"])
def test_a_profile_is_written_where_it_fits(tmp_path, mode, space, ending):
    profile = {
        "grey": GREY_PROFILE,
        "RGB": PROFILE,
        "CMYK": PROFILE[:16] + b"CMYK" + PROFILE[20:],
        "damaged": b"none",
    }[space]
    Image.fromarray(levels(5, 5)).convert(mode).save(tmp_path / "a.png", icc_profile=profile)
    photograph = read_photograph(tmp_path / "a.png")
    fits = (mode, space) in (("L", "grey"), ("RGB", "RGB"))
    assert photograph.profile == (profile if fits else None)
    path = tmp_path / f"b{ending}"
    if fits and ending == ".bmp":
        with pytest.raises(
            ImageError, match=r"a colour profile, which \.bmp cannot keep; take one"
        ):
            write_photograph(path, photograph)
        return
    write_photograph(path, photograph)
    again = Image.open(path)
    written = again.info.get("icc_profile")
    assert written == (profile if fits and (mode, ending) != ("L", ".webp") else None)
    assert again.mode == ("RGB" if ending == ".webp" else mode)


def test_floats_of_a_tiff_that_are_no_levels_are_refused(tmp_path):
    for value, message in {
        np.nan: "values that are not finite",
        255: "go to 255, and white",
    }.items():
        pixels = np.full((4, 4, 3), value, np.float32)
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
        with pytest.raises(ImageError, match=f"a.tif: .*{message}"):
            read_photograph(tmp_path / "a.tif")


def test_levels_that_are_not_those_of_srgb_are_refused(tmp_path):
    gamma = PngInfo()
    gamma.add(b"gAMA", (55556).to_bytes(4, "big"))
    Image.fromarray(levels(4, 4, 3)).save(tmp_path / "a.png", pnginfo=gamma)
    with pytest.raises(ImageError, match=r"a\.png: it has a gamma of 1/1\.8, .*convert it to sRGB"):
        read_photograph(tmp_path / "a.png")


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
    "cmyk.jpg": (saved(Image.new("CMYK", (4, 4)), format="JPEG"), "its colours are CMYK"),
    "bits.npy": (npy(np.zeros((4, 4), np.int64)), "int64, whose white is not known"),
    "white.npy": (npy(np.full((4, 4), 255.0)), "its values go to 255, and white is 1"),
    "first.npy": (npy(np.zeros((3, 4, 4))), r"is \(3, 4, 4\); an image is"),
    "batch.npy": (npy(np.zeros((1, 4, 4, 3))), r"is \(1, 4, 4, 3\); an image is"),
    "row.npy": (npy(np.zeros(4)), r"is \(4,\); an image is"),
    "missing.npy": (None, "cannot read the array .*missing.npy"),
    "text.npy": (b"hello", "cannot read the array"),
    "objects.npy": (npy(np.array([{}, {}])), "cannot read the array"),
    "complex.npy": (npy(np.zeros((4, 4), complex)), "holds complex128"),
    "nan.npy": (npy(np.full((4, 4), np.nan)), "not finite"),
    "empty.npy": (npy(np.zeros((0, 4))), "empty"),
    "deep.npy": (npy(levels(4, 4).astype(np.uint16)), "its levels go to .* alone, and"),
    "binary.png": (
        saved(Image.fromarray(np.eye(9, dtype=np.uint8)), format="PNG"),
        "go to 1 alone",
    ),
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
        ("a.jpg", Photograph(torch.zeros(1, 3, 2, 2), bits=16), "16 bits a channel, which .jpg"),
        ("a.webp", Photograph(torch.zeros(1, 3, 2, 2), bits=32), "32 bits a channel, which .webp"),
        (
            "a.bmp",
            Photograph(torch.zeros(1, 3, 2, 2), profile=b"x"),
            "a colour profile, which .bmp",
        ),
        ("a.tif", Photograph(torch.full((1, 3, 2, 2), torch.nan), bits=32), "not finite"),
        ("a.png", Photograph(torch.full((1, 3, 2, 2), torch.nan)), "not finite"),
    ],
)
def test_what_a_format_cannot_keep_is_not_written(tmp_path, name, photograph, message):
    with pytest.raises(ImageError, match=message):
        write_photograph(tmp_path / name, photograph)
    assert list(tmp_path.iterdir()) == []


def test_photographs_of_a_folder_by_name(tmp_path):
    for name in ("b.JPG", "a.png", "c.npy", ".hidden.png", "d.txt", "f.gif", "g.mat"):
        (tmp_path / name).touch()
    (tmp_path / "e.png").mkdir()
    assert [path.name for path in photographs_in(tmp_path)] == ["a.png", "b.JPG", "c.npy", "f.gif"]
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


def test_compression_of_a_mask_is_seen_through(tmp_path):
    known = np.ones((48, 64), bool)
    known[13:30, 21:45] = False
    Image.fromarray(known).convert("L").save(tmp_path / "m.jpg", quality=60)
    found = read_mask(tmp_path / "m.jpg", height=48, width=64)
    assert np.array_equal(found[0, 0].numpy() == 1, known)
    levels = np.asarray(Image.open(tmp_path / "m.jpg"))
    assert len(np.unique(levels)) > 10
    Image.fromarray(levels).save(tmp_path / "m.png")
    with pytest.raises(ImageError, match=r"m\.png: it has \d+ values from 0 to 255; make it black"):
        read_mask(tmp_path / "m.png", height=48, width=64)


@pytest.mark.parametrize("name", ["m.npy", "m.npz", "m.mat", "alpha.png", "16.tif", "palette.png"])
def test_masks_in_files_of_all_kinds(tmp_path, name):
    known = levels(6, 5) > 127
    path = tmp_path / name
    if path.suffix == ".npy":
        np.save(path, known[..., None])
    elif path.suffix == ".npz":
        np.savez(path, mask=known.astype(np.int32))
    elif path.suffix == ".mat":
        savemat(path, {"mask": known})
    elif path.suffix == ".tif":
        tifffile.imwrite(path, known.astype(np.uint16) * 65535, photometric="minisblack")
    elif name == "alpha.png":
        white = np.full((6, 5, 3), 255, np.uint8)
        Image.fromarray(np.dstack((white, known.astype(np.uint8) * 255))).save(path)
    else:
        image = Image.fromarray(known.astype(np.uint8), mode="P")
        image.putpalette([0, 0, 0, 128, 0, 0])
        image.save(path)
    found = read_mask(path, height=6, width=5)
    assert np.array_equal(found[0, 0].numpy(), known.astype(np.float32))


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


def in_a_cell(*kernels):
    cell = np.empty((1, len(kernels)), object)
    cell[0] = kernels
    return cell


KERNELS = {
    "k.npy": lambda path: np.save(path, KERNEL),
    "integers.npy": lambda path: np.save(path, KERNEL.astype(np.int64)),
    "big.npy": lambda path: np.save(path, (1000 * KERNEL).astype(">u2")),
    "channel.npy": lambda path: np.save(path, KERNEL[..., None]),
    "batch.npy": lambda path: np.save(path, KERNEL[None, None]),
    "k.npz": lambda path: np.savez(path, k=KERNEL),
    "k.mat": lambda path: savemat(path, {"f": KERNEL}),
    "cell.mat": lambda path: savemat(path, {"kernels": in_a_cell(KERNEL)}),
    "k.csv": lambda path: np.savetxt(path, KERNEL, delimiter=","),
    "k.txt": lambda path: np.savetxt(path, KERNEL),
    "k.tsv": lambda path: np.savetxt(path, KERNEL, delimiter="\t"),
    "k.png": lambda path: Image.fromarray((60 * KERNEL).astype(np.uint8)).save(path),
    "rgb.png": lambda path: Image.fromarray(
        np.repeat((60 * KERNEL).astype(np.uint8)[..., None], 3, axis=2)
    ).save(path),
    "deep.png": lambda path: Image.fromarray((9999 * KERNEL).astype(np.uint16)).save(path),
    "k.tif": lambda path: tifffile.imwrite(path, KERNEL.astype(np.float32)),
}


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_in_files_of_all_kinds_sum_to_one(tmp_path, name):
    KERNELS[name](tmp_path / name)
    np.testing.assert_allclose(read_kernel(tmp_path / name).numpy(), KERNEL / 12, atol=1e-7)


def test_one_of_several_kernels(tmp_path):
    savemat(tmp_path / "k.mat", {"kernels": in_a_cell(np.eye(3), KERNEL), "x": np.ones((9, 9))})
    found = read_kernel(tmp_path / "k.mat", name="kernels[1]")
    np.testing.assert_allclose(found.numpy(), KERNEL / 12)
    with pytest.raises(ImageError, match=r"kernels\[0\] \(3x3\).*; --kernel-name names the one"):
        read_kernel(tmp_path / "k.mat")
    with pytest.raises(ImageError, match=r"cannot choose f in .*only arrays and variables have"):
        read_kernel(tmp_path / "k.csv", name="f")


@pytest.mark.parametrize("axis", [0, 2])
def test_one_of_a_stack_of_kernels(tmp_path, axis):
    stack = np.stack([np.eye(3), KERNEL, np.ones((3, 3)), KERNEL.T], axis)
    np.save(tmp_path / "k.npy", stack)
    for name, kernel in {"array[1]": KERNEL, "array[3]": KERNEL.T}.items():
        found = read_kernel(tmp_path / "k.npy", name=name).numpy()
        np.testing.assert_allclose(found, kernel / 12)


def test_one_row_and_negative_entries_are_a_kernel(tmp_path):
    (tmp_path / "k.csv").write_text("-1 4 -1")
    assert read_kernel(tmp_path / "k.csv").tolist() == [[-0.5, 2, -0.5]]


def test_kernels_are_not_coloured_or_transparent(tmp_path):
    Image.fromarray(levels(3, 3, 3)).save(tmp_path / "k.png")
    with pytest.raises(ImageError, match="it is coloured, and a blur kernel is grey"):
        read_kernel(tmp_path / "k.png")
    Image.fromarray(levels(3, 3, 2)).save(tmp_path / "k.png")
    with pytest.raises(ImageError, match="it has transparent pixels, and a blur kernel has none"):
        read_kernel(tmp_path / "k.png")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "k.npy",
            npy(np.ones((4, 5))),
            "is 4x5; it needs two odd sides, around the entry",
        ),
        (
            "k.npy",
            npy(np.ones((3, 3, 3))),
            r"array\[0\] \(3x3\), array\[1\] .*--kernel-name names the one",
        ),
        ("k.npy", npy(np.ones(5)), "is 5; it needs two axes, rows and columns"),
        ("k.npy", npy(np.ones((2, 2, 3, 3))), "is 2x2x3x3; it needs two axes"),
        ("k.npy", npy(np.zeros((3, 3))), "has the sum 0.0; it must be positive"),
        ("k.npy", None, "cannot read the array"),
        ("k.csv", b"1,2\n3", "cannot read numbers from"),
        ("k.csv", b"1,x,3", "cannot read numbers from"),
        ("k.csv", b"1,nan,3", "line 1: they are not all finite"),
        ("k.txt", b"", "cannot read numbers from .*k.txt: there are none"),
        ("k.csv", b"-1,0,-1", "has the sum -2.0; it must be positive"),
        ("k.dat", b"1 2 3", "it is none of PNG"),
        ("k.csv", None, "cannot read numbers from"),
        ("k.png", b"no", "cannot read the image"),
    ],
)
def test_kernels_that_are_none(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=message):
        read_kernel(tmp_path / name)


@pytest.mark.parametrize(("sigma", "least", "most"), [(0, -0.4, 1.4), (0.1, -1, 2), (1, -6, 7)])
def test_noise_may_take_values_beyond_black_and_white_and_nothing_else_may(sigma, least, most):
    check_range(Path("a.npy"), torch.tensor([[least, most]]), sigma=sigma)
    for values in ([least - 0.6, 0.5], [0.5, most + 0.6]):
        with pytest.raises(ImageError, match=r"a\.npy.* bring them to \[0, 1\]$"):
            check_range(Path("a.npy"), torch.tensor([values]), sigma=sigma)


@pytest.mark.parametrize("ending", [".jpg", ".bmp", ".npy", ".webp"])
@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("profile", [None, b"profile"])
@pytest.mark.parametrize("alpha", [None, np.zeros((2, 2), np.uint8)], ids=["opaque", "alpha"])
def test_the_endings_that_are_named_keep_everything(ending, bits, profile, alpha):
    photograph = Photograph(torch.zeros(1, 3, 2, 2), alpha, profile=profile, bits=bits)
    try:
        check_format(Path(f"a{ending}"), photograph)
    except ImageError as error:
        named = str(error).split("take one of ")[1].split(", ")
        for other in named:
            check_format(Path(f"a{other}"), photograph)
        assert ending not in named and ".png" in named


def test_a_kernel_of_even_sides_is_read_with_the_zeros_that_are_asked_for(tmp_path):
    kernel = np.ones((4, 6))
    for padded, added in ((kernel, None), (np.pad(kernel, ((0, 1), (1, 0))), 1)):
        np.save(tmp_path / "k.npy", padded)
        if added:
            assert read_kernel(tmp_path / "k.npy").shape == (5, 7)
        else:
            with pytest.raises(ImageError, match="add a row or column of zeros"):
                read_kernel(tmp_path / "k.npy")
