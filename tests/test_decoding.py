"""Files of every kind against pixels that these tests made themselves."""

import errno
import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageSequence

from rglib.data import decoding
from rglib.data.decoding import READ, ImageError, decode, image_size, upright

HEIGHT, WIDTH = 24, 36
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def levels(channels, dtype=np.uint8, seed=0):
    """Levels (H, W, channels) of that type, floats on [0, 1]."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.random((HEIGHT, WIDTH, channels)).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, (HEIGHT, WIDTH, channels), dtype, endpoint=True)


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def chunk(kind, body):
    return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))


def png(pixels, colour_type, *chunks):
    """A PNG made by hand of pixels (H, W, C), of 8 or 16 bits."""
    deep = pixels.dtype == np.uint16
    height, width = pixels.shape[:2]
    header = struct.pack(">LLBBBBB", width, height, 16 if deep else 8, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2" if deep else "u1").tobytes() for row in pixels)
    parts = (chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(rows)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def tiff(pixels, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **{"photometric": "rgb"} | options)
    return buffer.getvalue()


def read(tmp_path, content, name="file"):
    (tmp_path / name).write_bytes(content)
    return decode(tmp_path / name)


def same(found, expected):
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


# --- channels and depth ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)], ids=["L", "RGB", "LA", "RGBA"]
)
def test_png(tmp_path, dtype, colour_type, channels):
    pixels = levels(channels, dtype)
    found = read(tmp_path, png(pixels, colour_type))
    colours = 3 if channels > 2 else 1
    same(found.colours, pixels[..., :colours])
    if channels % 2:
        assert found.alpha is None
    else:
        same(found.alpha, pixels[..., -1])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3)], ids=["L", "RGB"])
def test_the_transparent_colour_of_a_png_is_alpha(tmp_path, dtype, colour_type, channels):
    pixels = levels(channels, dtype)
    named = chunk(b"tRNS", pixels[5, 7].astype(">u2").tobytes())
    found = read(tmp_path, png(pixels, colour_type, named))
    transparent = (pixels == pixels[5, 7]).all(axis=2)
    same(found.colours, pixels)
    same(found.alpha, np.where(transparent, 0, np.iinfo(dtype).max).astype(dtype))


def test_the_transparent_level_of_one_bit(tmp_path):
    image = Image.fromarray(GREY[..., 0] > 99)
    found = read(tmp_path, saved(image, "PNG", transparency=0))
    same(found.colours[..., 0], np.where(GREY[..., 0] > 99, 255, 0).astype(np.uint8))
    same(found.alpha, found.colours[..., 0])


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_fewer_bits_are_spread_over_eight(tmp_path, bits):
    values = np.arange(2**bits, dtype=np.uint8)[None]
    packed = np.packbits(np.unpackbits(values[..., None], axis=2)[..., 8 - bits :])
    header = struct.pack(">LLBBBBB", values.shape[1], 1, bits, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" + packed.tobytes())
    content = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    found = read(tmp_path, b"\x89PNG\r\n\x1a\n" + content)
    same(found.colours[..., 0], (values * (255 // (2**bits - 1))).astype(np.uint8))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_tiff(tmp_path, dtype, order, planes, tiled, compression):
    pixels = levels(3, dtype)
    content = tiff(
        pixels if planes == "contig" else pixels.transpose(2, 0, 1),
        planarconfig=planes,
        byteorder="<" if order == "little" else ">",
        tile=(16, 16) if tiled else None,
        compression=compression,
        predictor=compression is not None and dtype != np.float16,
    )
    expected = pixels.astype(np.float32) if np.dtype(dtype).kind == "f" else pixels
    same(read(tmp_path, content).colours, expected)


GREY = levels(1)
GREY_OF = {
    "grey": (tiff(GREY[..., 0], photometric="minisblack"), GREY),
    "white is zero": (tiff(GREY[..., 0], photometric="miniswhite"), 255 - GREY),
    "16 bits, white is zero": (
        tiff(levels(1, np.uint16)[..., 0], photometric="miniswhite"),
        65535 - levels(1, np.uint16),
    ),
    "one bit": (
        tiff(GREY[..., 0] > 99, photometric="minisblack"),
        np.where(GREY > 99, 255, 0).astype(np.uint8),
    ),
    "one bit, of a fax": (
        saved(Image.fromarray(GREY[..., 0] > 99), "TIFF", compression="group4"),
        np.where(GREY > 99, 255, 0).astype(np.uint8),
    ),
    "big": (tiff(GREY[..., 0], photometric="minisblack", bigtiff=True), GREY),
    "ImageJ's": (tiff(GREY[..., 0], photometric="minisblack", imagej=True), GREY),
    "one row": (tiff(GREY[:1, :, 0], photometric="minisblack"), GREY[:1]),
    "one pixel": (tiff(GREY[:1, :1, 0], photometric="minisblack"), GREY[:1, :1]),
}


@pytest.mark.parametrize("case", GREY_OF)
def test_grey_tiff(tmp_path, case):
    content, expected = GREY_OF[case]
    same(read(tmp_path, content).colours, expected)


def test_twelve_bits_of_a_tiff_go_from_black_to_white(tmp_path):
    values = np.array([[0, 1, 2048, 4095]], np.uint16)
    packed = bytes.fromhex("000001800fff")
    page = {
        256: 4,  # width, and then height, bits, no compression, black is zero
        257: 1,
        258: 12,
        259: 1,
        262: 1,
        273: 8,  # where the pixels are, channels, rows, bytes
        277: 1,
        278: 1,
        279: len(packed),
    }
    entries = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in page.items())
    directory = struct.pack("<H", len(page)) + entries + bytes(4)
    content = b"II*\0" + struct.pack("<L", 8 + len(packed)) + packed + directory
    found = read(tmp_path, content)
    same(found.colours[..., 0], np.rint(values / 4095 * 65535).astype(np.uint16))


def test_the_palette_of_a_tiff(tmp_path):
    palette = levels(3).reshape(-1, 3)[:256]
    indices = GREY[..., 0]
    content = tiff(indices, photometric="palette", colormap=palette.T.astype(np.uint16) * 257)
    same(read(tmp_path, content).colours, palette[indices])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_of_a_tiff(tmp_path, dtype, channels):
    pixels = levels(channels, dtype)
    content = tiff(
        pixels,
        photometric="rgb" if channels == 4 else "minisblack",
        planarconfig="contig",
        extrasamples=["unassalpha"],
    )
    found = read(tmp_path, content)
    same(found.colours, pixels[..., :-1])
    same(found.alpha, pixels[..., -1])


def test_alpha_that_is_multiplied_into_colours_is_divided_out(tmp_path):
    colours = levels(3, np.float32)
    alpha = np.array([0, 0.25, 1], np.float32)[np.arange(WIDTH) % 3][None].repeat(HEIGHT, 0)
    pixels = np.dstack((colours * alpha[..., None], alpha))
    found = read(tmp_path, tiff(pixels, extrasamples=["assocalpha"]))
    visible = alpha > 0
    np.testing.assert_allclose(found.colours[visible], colours[visible], rtol=1e-6)
    assert (found.colours[~visible] == 0).all()


@pytest.mark.parametrize("mode", ["RGB", "YCbCr"])
def test_jpeg_in_a_tiff(tmp_path, mode):
    i, j = np.mgrid[:HEIGHT, :WIDTH]
    smooth = np.stack((3 * i + 90, 2 * j + 60, i + j), axis=-1).astype(np.uint8)
    image = Image.fromarray(smooth).convert(mode)
    found = read(tmp_path, saved(image, "TIFF", compression="jpeg", quality=97)).colours
    assert np.abs(found.astype(int) - smooth).max() < 8


@pytest.mark.parametrize("kind", ["BMP", "GIF", "WEBP", "PPM", "PNG"])
def test_other_formats_and_palettes(tmp_path, kind):
    palette = levels(3).reshape(-1, 3)[:16]
    colours = palette[GREY[..., 0] % 16]
    image = Image.fromarray(colours)
    if kind in ("GIF", "PNG"):
        image = Image.fromarray(GREY[..., 0] % 16, mode="P")
        image.putpalette(palette.ravel().tolist())
    options = {"lossless": True} if kind == "WEBP" else {}
    found = read(tmp_path, saved(image, kind, **options))
    same(found.colours, colours)
    assert found.alpha is None


@pytest.mark.parametrize("kind", ["GIF", "PNG"])
def test_the_transparent_colour_of_a_palette_is_alpha(tmp_path, kind):
    image = Image.fromarray(GREY[..., 0] % 3, mode="P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    found = read(tmp_path, saved(image, kind, transparency=1))
    same(found.alpha, np.where(GREY[..., 0] % 3 == 1, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("magic", [b"P4", b"P5", b"P6"])
def test_netpbm_of_8_bits_and_of_one(tmp_path, magic, plain):
    bits = np.array([[0, 1, 1, 0], [1, 0, 0, 1]], np.uint8)
    pixels = levels(3)[:2, :4, : 3 if magic == b"P6" else 1]
    if magic == b"P4":
        pixels = 255 * (1 - bits[..., None])
    white = b"" if magic == b"P4" else b"\n255"
    stored = bits.ravel() if magic == b"P4" else pixels.ravel()
    if plain:
        content = b"P%d 4 2%s\n" % (int(magic[1:]) - 3, white) + b" ".join(
            b"%d" % x for x in stored
        )
    else:
        packed = np.packbits(bits, axis=1) if magic == b"P4" else stored
        content = magic + b" 4 2" + white + b"\n" + packed.tobytes()
    same(read(tmp_path, content).colours, pixels)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg(tmp_path, mode, progressive):
    image = Image.linear_gradient("L").convert(mode)
    found = read(tmp_path, saved(image, "JPEG", quality=97, progressive=progressive))
    expected = np.asarray(image, int).reshape(256, 256, -1)
    assert found.colours.shape == expected.shape
    assert np.abs(found.colours - expected).max() < 4


def test_the_profile_comes_along(tmp_path):
    image = Image.fromarray(levels(3))
    for kind in ("PNG", "JPEG", "WEBP", "TIFF"):
        assert read(tmp_path, saved(image, kind, icc_profile=SRGB)).profile == SRGB
    assert read(tmp_path, tiff(levels(3, np.uint16), iccprofile=SRGB)).profile == SRGB


SRGB_CHUNKS = (
    chunk(b"gAMA", struct.pack(">L", 45455)),
    chunk(b"cHRM", struct.pack(">8L", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
)
WIDE = chunk(b"cHRM", struct.pack(">8L", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))
PROFILE = chunk(b"iCCP", b"x\0\0" + zlib.compress(SRGB))
ENCODINGS = {
    "none": ((), None),
    "sRGB": ((chunk(b"sRGB", b"\0"),), None),
    "sRGB's numbers": (SRGB_CHUNKS, None),
    "linear": ((chunk(b"gAMA", struct.pack(">L", 100000)),), "a gamma of 1/1"),
    "gamma 1.8": ((chunk(b"gAMA", struct.pack(">L", 55556)),), "a gamma of 1/1.8"),
    "wide": ((SRGB_CHUNKS[0], WIDE), "a cHRM chunk"),
    "high dynamic range": ((chunk(b"cICP", bytes([9, 16, 0, 1])),), "a cICP chunk"),
    "linear by a profile": ((chunk(b"gAMA", struct.pack(">L", 100000)), PROFILE), None),
}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("case", ENCODINGS)
def test_how_a_png_says_its_levels_are_meant(tmp_path, case, dtype):
    chunks, expected = ENCODINGS[case]
    assert read(tmp_path, png(levels(3, dtype), 2, *chunks)).encoding == expected


# --- orientation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "16 bits"])
def test_orientation(tmp_path, orientation, kind):
    turns = {  # by Pillow's transposition of the stored picture
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    image = Image.fromarray(levels(3))
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = {
        "PNG": lambda: saved(image, "PNG", exif=exif),
        "WEBP": lambda: saved(image, "WEBP", exif=exif, lossless=True),
        "TIFF": lambda: tiff(levels(3), extratags=[(0x0112, 3, 1, orientation, True)]),
        "16 bits": lambda: png(
            levels(3).astype(np.uint16) * 257, 2, chunk(b"eXIf", exif.tobytes()[6:])
        ),
    }[kind]()
    turn = turns[orientation]
    expected = np.asarray(image if turn is None else image.transpose(turn))
    found = read(tmp_path, content).colours
    same((found // 257).astype(np.uint8) if kind == "16 bits" else found, expected)
    assert image_size(tmp_path / "file") == (WIDTH, HEIGHT)  # as stored


def exif_of(*entries, extra=b""):
    """EXIF, little-endian, of entries (tag, type, count, four bytes of the value)."""
    body = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + bytes(4) + extra


SIX = (0x112, 3, 1, struct.pack("<HH", 6, 0))
BEYOND = struct.pack("<I", 38)  # after two entries
FAULTY_EXIF = {
    "a denominator of zero": (exif_of(SIX, (0x11A, 5, 1, BEYOND), extra=bytes(8)), True),
    "a text for a number": (exif_of(SIX, (0x11A, 2, 4, b"abc\0")), True),
    "a negative fraction": (
        exif_of(SIX, (0x11A, 10, 1, BEYOND), extra=struct.pack("<ii", -72, 0)),
        True,
    ),
    "an offset outside": (exif_of(SIX, (0x11A, 5, 1, struct.pack("<I", 99999))), True),
    "a type that is none": (exif_of(SIX, (0x9286, 99, 4, b"abcd")), True),
    "a place that is none": (exif_of(SIX, (0x8825, 4, 1, struct.pack("<I", 4_000_000))), True),
    "two headers": (b"Exif\0\0" + exif_of(SIX), True),
    "two of one": (exif_of((0x112, 3, 2, struct.pack("<HH", 6, 6))), True),
    "its orientation as a text": (exif_of((0x112, 2, 2, b"6\0\0\0")), True),
    "no orientation it has": (exif_of((0x112, 3, 1, struct.pack("<HH", 9, 0))), False),
    "an orientation of zero": (exif_of((0x112, 3, 1, bytes(4))), False),
    "words": (exif_of((0x112, 2, 4, b"abc\0")), False),
    "garbage": (b"Exif\0\0\0\x08\0\x02garbage!", False),
}


@pytest.mark.parametrize("case", FAULTY_EXIF)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_orientation_is_used_where_it_can_be_read(tmp_path, kind, case):
    exif, turned = FAULTY_EXIF[case]
    options = {"lossless": True} if kind == "WEBP" else {"quality": 97} if kind == "JPEG" else {}
    image = Image.linear_gradient("L").resize((32, 16)).convert("RGB")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nor does a word of it come up
        found = read(tmp_path, saved(image, kind, exif=exif, **options)).colours
    expected = image.transpose(Image.Transpose.ROTATE_270) if turned else image
    assert np.abs(found.astype(int) - np.asarray(expected)).max() < 20
    assert found.shape[:2] == ((32, 16) if turned else (16, 32))


@pytest.mark.parametrize("orientation", [None, "up", (1, 2), 3.9, b"6", -1])
def test_what_is_no_orientation_turns_nothing_or_what_it_says(orientation):
    pixels = levels(3)
    expected = {3.9: pixels[::-1, ::-1], b"6": pixels[::-1].swapaxes(0, 1)}.get(orientation, pixels)
    same(upright(pixels, orientation), expected)


# --- what is refused ------------------------------------------------------------------------------


def frames(kind, **options):
    images = [Image.fromarray(levels(3, seed=i)) for i in range(3)]
    return saved(images[0], kind, save_all=True, append_images=images[1:], **options)


def mpo(*kinds, smaller=1):
    """A JPEG of several pictures, whose kinds are as a camera says them, the later ones smaller."""
    first, *others = (Image.fromarray(levels(3, seed=i)) for i in range(len(kinds)))
    others = [image.reduce(smaller) for image in others]
    content = bytearray(saved(first, "MPO", save_all=True, append_images=others))
    codes = {"first": 0x030000, "thumbnail": 0x010001, "gain map": 0, "stereo": 0x020002}
    start = content.index(b"\x02\xb0")  # the tag of the entries, of 16 bytes each
    (offset,) = struct.unpack_from("<L", content, start + 8)
    base = content.index(b"MPF\0") + 4
    for i, kind in enumerate(kinds):
        struct.pack_into("<L", content, base + offset + 16 * i, codes[kind])
    return bytes(content)


FIVE = np.dstack((levels(3), levels(2)))
REFUSED = {
    "CMYK": (saved(Image.new("CMYK", (8, 8)), "JPEG"), "CMYK, for printing; convert it to RGB"),
    "CMYK in a TIFF": (tiff(levels(4), photometric="separated"), "CMYK"),
    "CMYK in a deep TIFF": (tiff(levels(4, np.uint16), photometric="separated"), "CMYK"),
    "Lab": (tiff(levels(3), photometric="cielab"), "CIELAB; convert it to RGB"),
    "YCbCr": (tiff(levels(3), photometric="ycbcr"), "YCBCR"),
    "pages": (tiff(np.stack([levels(3)] * 2)), "2 pictures; save the one that is meant"),
    "an ImageJ stack": (tiff(np.stack([GREY[..., 0]] * 3), imagej=True, photometric=None), "3 pic"),
    "planes as pages": (tiff(levels(3).transpose(2, 0, 1), photometric="minisblack"), "3 pictures"),
    "a volume": (
        tiff(np.zeros((16, 16, 16), np.uint8), photometric=None, volumetric=True, tile=(16,) * 3),
        "volume of 16 slices",
    ),
    "a fourth channel": (
        tiff(levels(4), extrasamples=["unspecified"]),
        "4 channels 1 are neither colours nor said to be alpha",
    ),
    "five channels": (tiff(FIVE, extrasamples=["unassalpha", "unspecified"]), "5 channels"),
    "three greys": (tiff(levels(3), photometric="minisblack", planarconfig="contig"), "3 channels"),
    "signed": (tiff(levels(3, np.int16)), "it holds int16; save it with 8 or 16 bits"),
    "32-bit integers": (tiff(levels(3, np.uint32)), "uint32"),
    "complex": (tiff(np.zeros((8, 8), np.complex64), photometric=None), "complex64"),
    "APNG": (frames("PNG"), "it holds 3 pictures"),
    "APNG beside a picture": (frames("PNG", default_image=True), "it holds 3 pictures"),
    "GIF": (frames("GIF"), "it holds 3 pictures"),
    "WebP": (frames("WEBP", lossless=True), "it holds 3 pictures"),
    "stereo": (mpo("first", "stereo", "stereo"), "it holds 3 pictures"),
    "stereo, one smaller": (mpo("first", "stereo", smaller=2), "it holds 2 pictures"),
    "two pictures in a JPEG": (mpo("first", "gain map"), "it holds 2 pictures"),
    "floats": (saved(Image.new("F", (4, 4)), "PPM"), "not of 8 bits"),
    "a deep PPM": (b"P6 2 1 65535\n" + bytes(12), "not of 8 bits"),
    "a coarse PPM": (b"P6 2 1 15\n" + bytes(6), "not of 8 bits"),
    "a deep PGM": (b"P5 2 1 65535\n" + bytes(4), "not of 8 bits"),
    "AVIF": (saved(Image.new("RGB", (8, 8)), "AVIF"), f"AVIF is not read.*{READ}"),
    "JPEG 2000": (saved(Image.new("RGB", (8, 8)), "JPEG2000"), "JPEG2000 is not read"),
    "an icon": (saved(Image.new("RGB", (16, 16)), "ICO"), "ICO is not read"),
    "raw": (tiff(levels(3), subfiletype=1), "it holds small copies alone, as a camera's raw"),
    "Git LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "it is Git LFS's pointer to it; fetch it with `git lfs pull`",
    ),
    "HEIC": (b"\0\0\0\x18ftypheic" + bytes(40), f"it is none of {READ}"),
    "a text": (b"hello", f"it is none of {READ}"),
    "empty": (b"", "it is empty"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_one_picture_in_grey_or_rgb_is_refused(tmp_path, case):
    content, message = REFUSED[case]
    with pytest.raises(ImageError, match=f"file: .*{message}") as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kinds", [("first", "thumbnail", "gain map"), ("first", "gain map")])
def test_pictures_that_belong_to_a_cameras_first_one_do_no_harm(tmp_path, kinds):
    found = read(tmp_path, mpo(*kinds, smaller=2))
    first = next(ImageSequence.Iterator(Image.open(tmp_path / "file")))
    same(found.colours, np.asarray(first))


def test_smaller_copies_in_a_tiff_do_no_harm(tmp_path):
    pixels = levels(3, np.uint16)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(pixels, photometric="rgb")
        file.write(pixels[::4, ::4], photometric="rgb", subfiletype=1)
    same(decode(tmp_path / "a.tif").colours, pixels)


@pytest.mark.parametrize("tags", [True, False])
def test_pages_that_lead_in_a_circle_are_named(tmp_path, tags):
    content = bytearray(tiff(levels(3)))
    (start,) = struct.unpack_from("<L", content, 4)
    (count,) = struct.unpack_from("<H", content, start)
    struct.pack_into("<L", content, start + 2 + 12 * count, start)
    if not tags:
        content = b"II*\0\x08\0\0\0\0\0\x08\0\0\0"
    with pytest.raises(ImageError, match="file: its pages lead in a circle"):
        read(tmp_path, bytes(content))


WHOLE = {
    "8.png": saved(Image.fromarray(levels(3)), "PNG"),
    "16.png": png(levels(3, np.uint16), 2),
    "raw.tif": tiff(levels(3, np.uint16)),
    "zlib.tif": tiff(levels(3), compression="zlib"),
    "tiled.tif": tiff(levels(3), compression="lzw", tile=(16, 16)),
    "a.jpg": saved(Image.fromarray(levels(3)), "JPEG"),
    "a.webp": saved(Image.fromarray(levels(3)), "WEBP"),
    "a.gif": saved(Image.fromarray(GREY[..., 0]), "GIF"),
    "a.bmp": saved(Image.fromarray(levels(3)), "BMP"),
}


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("name", WHOLE)
def test_files_that_are_cut_off_are_named(tmp_path, name, share):
    content = WHOLE[name]
    decode_whole = read(tmp_path, content, name)
    assert decode_whole.colours.shape[:2] == (HEIGHT, WIDTH)
    with pytest.raises(ImageError, match=f"cannot read the image .*{name}: .") as caught:
        read(tmp_path, content[: int(share * len(content))], name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", WHOLE)
def test_damaged_files_are_read_or_named(tmp_path, name):
    rng = np.random.default_rng(0)
    for _ in range(60):
        content = bytearray(WHOLE[name])
        for place in rng.integers(0, len(content), 3):
            content[place] = rng.integers(256)
        try:
            read(tmp_path, bytes(content), name)
        except ImageError as error:
            assert name in str(error) and "\n" not in str(error)


def test_more_pixels_than_the_limit_are_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "PIXELS_AT_MOST", HEIGHT * WIDTH - 1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", (HEIGHT * WIDTH - 1) // 2)
    for content in (WHOLE["8.png"], WHOLE["16.png"], WHOLE["raw.tif"]):
        with pytest.raises(ImageError, match="exceeds the limit of 863 pixels; cut it into parts"):
            read(tmp_path, content)


# --- what is no file ------------------------------------------------------------------------------


def test_missing_files_folders_pipes_and_circles(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    reasons = {
        "missing": "there is no such file",
        "folder": "it is no file",
        "pipe": "it is no file",
        "circle": os.strerror(errno.ELOOP),
        "x" * 300: os.strerror(errno.ENAMETOOLONG),
    }
    for name, reason in reasons.items():
        for function in (decode, image_size):
            with pytest.raises(ImageError, match=f"image .*{name}: {reason}"):
                function(tmp_path / name)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(self, *_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    (tmp_path / "a.png").write_bytes(WHOLE["8.png"])
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ImageError, match=r"a\.png: Permission denied$"):
        decode(tmp_path / "a.png")


@pytest.mark.parametrize(
    "name", ["with space", "line\nbreak", "-dash", "ünï", os.fsdecode(b"\xff")]
)
@pytest.mark.parametrize("kind", WHOLE)
def test_any_name_will_do(tmp_path, name, kind):
    assert read(tmp_path, WHOLE[kind], name).colours.shape[:2] == (HEIGHT, WIDTH)


def test_a_lack_of_memory_is_not_taken_for_damage(tmp_path, monkeypatch):
    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", full)
    with pytest.raises(MemoryError):
        read(tmp_path, WHOLE["8.png"])
