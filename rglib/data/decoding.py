"""From an image file to its pixels, at their depth and upright: one picture, or the reason why not.

What a file holds beyond one picture of grey or RGB levels is returned beside them or refused by
name: channels, planes, depth, pages and frames. TIFF is read by tifffile, PNG of 16 bits by
imagecodecs, as Pillow would drop half of the bits; everything else by Pillow. No PyTorch here.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image, ImageFile, MpoImagePlugin, PngImagePlugin, UnidentifiedImageError

WHITE: dict[np.dtype[Any], float] = {
    np.dtype(np.uint8): 255,
    np.dtype(np.uint16): 65535,
    np.dtype(np.float32): 1,
}
BY_PILLOW = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "GIF", "PPM")  # its names of formats
READ = "PNG, JPEG, TIFF, WebP, BMP, GIF and PPM"
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")  # Pillow's, of 8 bits and without surprises
GREY_MODES = ("1", "L", "LA")
PIXELS_AT_MOST = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # what Pillow takes for an attack
LFS = b"version https://git-lfs"
ORIENTATION = 0x0112  # the tag of EXIF and TIFF
THUMBNAILS = ("Large Thumbnail (VGA Equivalent)", "Large Thumbnail (Full HD Equivalent)")
UNDEFINED = "Undefined"  # of a picture in a camera's JPEG, as gain maps are
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
COLOUR_CHANNELS = {  # of the photometric interpretations that are read
    tifffile.PHOTOMETRIC.MINISWHITE: 1,
    tifffile.PHOTOMETRIC.MINISBLACK: 1,
    tifffile.PHOTOMETRIC.PALETTE: 1,
    tifffile.PHOTOMETRIC.RGB: 3,
    tifffile.PHOTOMETRIC.YCBCR: 3,
}
SRGB_GAMMA = 1 / 2.2
SRGB_CHROMATICITY = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)  # white, red, green, blue

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what matters is raised here


class ImageError(ValueError):
    """A file is not an image that can be used; the message names the file and the reason."""


@dataclass(frozen=True)
class Picture:
    """The one picture in a file.

    Attributes:
        colours: (H, W, 1) grey or (H, W, 3) RGB: uint8, uint16, or float32 on [0, 1], upright.
        alpha: (H, W) of the same type, not multiplied into the colours; None without transparency.
        profile: the ICC colour profile, or None.
        format: JPEG, PNG, TIFF and so on.
        encoding: how a PNG without a profile says that its levels are not those of sRGB, or None.
    """

    colours: np.ndarray
    alpha: np.ndarray | None = None
    profile: bytes | None = None
    format: str | None = None
    encoding: str | None = None


def decode(path: Path) -> Picture:
    """Read the picture in a file.

    Raises:
        ImageError: the file is missing, damaged, or holds anything but one picture in grey or RGB.
        MemoryError: it is too large for the memory.
    """
    with _named(path):
        return _tiff_picture(path) if _is_tiff(path) else _pillow_picture(path)


def image_size(path: Path) -> tuple[int, int]:
    """Return (width, height) as stored, before any EXIF turn, without decoding the pixels.

    Raises:
        ImageError: as `decode`, as far as the file's beginning tells.
    """
    with _named(path):
        if _is_tiff(path):
            with tifffile.TiffFile(path) as file:
                page = _page(file, path)
                return page.imagewidth, page.imagelength
        with Image.open(path) as image:
            return image.size


def unusable(path: Path, reason: str) -> ImageError:
    """The error that says why an image which can be read is not used."""
    return ImageError(f"cannot use the image {path}: {reason}")


def upright(pixels: np.ndarray, orientation: object) -> np.ndarray:
    """Turn pixels (H, W, ...) as EXIF's orientation says, 1 to 8; anything else turns nothing."""
    try:
        number = int(orientation)  # type: ignore[call-overload]  # whatever the file says
    except (TypeError, ValueError):
        number = 1
    if number in (2, 3, 7, 8):
        pixels = pixels[:, ::-1]
    if number in (3, 4, 6, 7):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels.swapaxes(0, 1) if 5 <= number <= 8 else pixels)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Whatever a damaged or hostile file provokes becomes an ImageError that names the file."""
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise ImageError(f"cannot read the image {path}: it is no file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tags that are no concern, and of large images
            yield
    except (ImageError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise ImageError(f"cannot read the image {path}: there is no such file") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"cannot read the image {path}: {_what(path)}") from error
    except Image.DecompressionBombError as error:
        raise _too_large(path) from error
    except OSError as error:
        why = error.strerror or f"it is damaged ({error})"  # a decoder's has no words of the system
        raise ImageError(f"cannot read the image {path}: {why}") from error
    except Exception as error:
        raise ImageError(f"cannot read the image {path}: it is damaged ({error})") from error


def _what(path: Path) -> str:
    """What a file that is no image of the formats read is."""
    with path.open("rb") as file:
        start = file.read(len(LFS))
    if not start:
        return "it is empty"
    if start == LFS:
        return "it is Git LFS's pointer to it; fetch it with `git lfs pull`"
    return f"it is none of {READ}"


def _too_large(path: Path) -> ImageError:
    return ImageError(
        f"cannot read the image {path}: its size exceeds the limit of {PIXELS_AT_MOST} pixels; "
        "cut it into parts"
    )


def _is_tiff(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in TIFF_STARTS


# --- by Pillow ------------------------------------------------------------------------------------


def _pillow_picture(path: Path) -> Picture:
    with Image.open(path) as image:
        _check_alone(image, path)
        deep = _is_deep_png(image)
        _check_mode(image, path, deep=deep)
        profile = image.info.get("icc_profile")
        encoding = None if profile else _encoding_of_png(image, path)
        colours, alpha = _deep_png(path) if deep else _pixels(image)
        orientation = _orientation(image)
    return Picture(
        upright(colours, orientation),
        None if alpha is None else upright(alpha, orientation),
        profile,
        image.format,
        encoding,
    )


def _check_alone(image: ImageFile.ImageFile, path: Path) -> None:
    if image.format not in BY_PILLOW:
        raise unusable(path, f"{image.format} is not read; convert it to one of {READ}")
    frames = getattr(image, "n_frames", 1)
    if isinstance(image, MpoImagePlugin.MpoImageFile):
        frames = _pictures_of_mpo(image)
    if frames > 1:
        raise unusable(path, f"it holds {frames} pictures; save the one that is meant by itself")


def _pictures_of_mpo(image: MpoImagePlugin.MpoImageFile) -> int:
    """How many pictures a camera's JPEG holds: thumbnails and gain maps, smaller ones, are none."""
    size, pictures = image.size, 1
    entries = (image.mpinfo or {})[0xB002]
    for i, entry in enumerate(entries[1:], start=1):
        kind = entry["Attribute"]["MPType"]
        image.seek(i)
        smaller = image.width * image.height < size[0] * size[1]
        pictures += not (kind in THUMBNAILS or (kind == UNDEFINED and smaller))
    image.seek(0)
    return pictures


def _check_mode(image: ImageFile.ImageFile, path: Path, *, deep: bool) -> None:
    if deep:
        return
    if image.mode == "CMYK":
        raise unusable(path, "its colours are CMYK, for printing; convert it to RGB")
    if image.mode not in MODES or _is_scaled_ppm(image):
        raise unusable(
            path,
            f"its levels are not of 8 bits (mode {image.mode}); save it as PNG or TIFF, of 8 or 16",
        )


def _is_scaled_ppm(image: ImageFile.ImageFile) -> bool:
    """Whether white is not 255 in a PPM, whose levels Pillow would round to 8 bits."""
    if image.format != "PPM":
        return False
    decoder, *_, arguments = image.tile[0]
    return decoder.startswith("ppm") and isinstance(arguments, tuple) and arguments[-1] != 255


def _is_deep_png(image: ImageFile.ImageFile) -> bool:
    """Whether it is a PNG of 16 bits: Pillow reads grey ones alone in full."""
    tiles = (str(tile.args) for tile in image.tile)
    return image.format == "PNG" and (image.mode == "I;16" or any(";16" in tile for tile in tiles))


def _deep_png(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    import imagecodecs  # large, and needed for these images alone

    try:
        decoded = imagecodecs.png_decode(path.read_bytes())
    except imagecodecs.PngError as error:
        raise ImageError(f"cannot read the image {path}: it is damaged ({error})") from error
    pixels = np.asarray(decoded, dtype=np.uint16)
    return _split(pixels.reshape(*pixels.shape[:2], -1))


def _split(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """(H, W, 1 to 4) to colours and alpha: with 2 and 4 channels the last is alpha."""
    if pixels.shape[2] % 2:
        return pixels, None
    return pixels[..., :-1], pixels[..., -1]


def _pixels(image: ImageFile.ImageFile) -> tuple[np.ndarray, np.ndarray | None]:
    colours = np.array(image.convert("L" if image.mode in GREY_MODES else "RGB"))
    alpha = None
    if image.has_transparency_data:
        alpha = np.array(image.convert("RGBA").getchannel("A"))
    return colours.reshape(*colours.shape[:2], -1), alpha


def _orientation(image: ImageFile.ImageFile) -> object:
    try:
        return image.getexif().get(ORIENTATION)
    except Exception:  # EXIF can be faulty in any way, and the picture is none the worse for it
        return None


def _encoding_of_png(image: ImageFile.ImageFile, path: Path) -> str | None:
    """What the chunks of a PNG without a colour profile say, where it is not sRGB."""
    if not isinstance(image, PngImagePlugin.PngImageFile):
        return None
    if b"cICP" in _chunks(path):
        return "a cICP chunk"
    if "srgb" in image.info:
        return None
    gamma = image.info.get("gamma", SRGB_GAMMA)
    chromaticity = image.info.get("chromaticity", SRGB_CHROMATICITY)
    if not math.isclose(gamma, SRGB_GAMMA, rel_tol=0.02):
        return f"a gamma of 1/{1 / gamma:.3g}" if gamma else "a gamma of 0"
    if not np.allclose(chromaticity, SRGB_CHROMATICITY, atol=0.01):
        return "a cHRM chunk"
    return None


def _chunks(path: Path) -> set[bytes]:
    """The names of a PNG's chunks before its pixels."""
    names = set()
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8 and head[4:] != b"IDAT":
            names.add(head[4:])
            file.seek(int.from_bytes(head[:4], "big") + 4, 1)  # content and checksum
    return names


# --- TIFF -----------------------------------------------------------------------------------------


def _tiff_picture(path: Path) -> Picture:
    with tifffile.TiffFile(path) as file:
        page = _page(file, path)
        of_tile = page.tilewidth * page.tilelength if page.is_tiled else 0
        if max(page.imagewidth * page.imagelength, of_tile) > PIXELS_AT_MOST:
            raise _too_large(path)
        base = _colour_channels(page, path)
        stored = page.asarray()
        pixels = np.moveaxis(stored, 0, -1) if page.axes == "SYX" else stored
        pixels = pixels.reshape(page.imagelength, page.imagewidth, -1)
        pixels = _at_depth(pixels, page, path)
        colours, alpha = (pixels, None) if pixels.shape[2] == base else _split(pixels)
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
            colours = _of_palette(page, pixels[..., 0], path)
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
            colours = (WHITE[colours.dtype] - colours).astype(colours.dtype)
        if alpha is not None and page.extrasamples[0] == tifffile.EXTRASAMPLE.ASSOCALPHA:
            colours = _divided(colours, alpha)
        tags = page.tags
        orientation, profile = (
            tags[tag].value if tag in tags else None for tag in (ORIENTATION, "InterColorProfile")
        )
    return Picture(
        upright(colours, orientation),
        None if alpha is None else upright(alpha, orientation),
        profile,
        "TIFF",
    )


def _page(file: tifffile.TiffFile, path: Path) -> tifffile.TiffPage:
    """The page of the picture, which must be the only one but for smaller copies of it."""
    pages: dict[int, tifffile.TiffPage] = {}
    for page in (frame.aspage() for frame in file.pages):
        if page.offset in pages:
            raise ImageError(f"cannot read the image {path}: its pages lead in a circle")
        pages[page.offset] = page
    alone = [page for page in pages.values() if not page.is_reduced]
    images = (file.imagej_metadata or {}).get("images", 1)
    if not alone:
        raise unusable(path, "it holds small copies alone, as a camera's raw file does; convert it")
    if (count := max(len(alone), images)) > 1:
        raise unusable(path, f"it holds {count} pictures; save the one that is meant by itself")
    (page,) = alone
    if page.imagedepth > 1:
        raise unusable(path, f"it is a volume of {page.imagedepth} slices, and no picture")
    return page


def _colour_channels(page: tifffile.TiffPage, path: Path) -> int:
    """How many channels are colours; another one must be alpha."""
    photometric = page.photometric
    jpeg = page.compression == tifffile.COMPRESSION.JPEG  # which becomes RGB when it is read
    if photometric not in COLOUR_CHANNELS or (
        photometric == tifffile.PHOTOMETRIC.YCBCR and not jpeg
    ):
        cmyk = photometric == tifffile.PHOTOMETRIC.SEPARATED
        name = "CMYK, for printing" if cmyk else getattr(photometric, "name", photometric)
        raise unusable(path, f"its colours are {name}; convert it to RGB or grey")
    base = COLOUR_CHANNELS[tifffile.PHOTOMETRIC(photometric)]
    extra = page.samplesperpixel - base
    alphas = (tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA)
    if extra and not (
        extra == 1 and len(page.extrasamples) == 1 and page.extrasamples[0] in alphas
    ):
        raise unusable(
            path,
            f"of its {page.samplesperpixel} channels {extra} are neither colours nor said to be "
            "alpha; save it as RGB, RGBA or grey",
        )
    ends = (o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True))
    if max(ends, default=0) > path.stat().st_size or 0 in page.databytecounts:
        raise ImageError(f"cannot read the image {path}: it is cut off, parts are missing")
    return base


def _at_depth(pixels: np.ndarray, page: tifffile.TiffPage, path: Path) -> np.ndarray:
    """As uint8, uint16 or float32: levels of fewer bits are spread over 8 or 16."""
    bits = page.bitspersample
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
        return pixels
    if pixels.dtype.kind == "f":
        return pixels.astype(np.float32)
    if pixels.dtype.kind not in "bu" or not isinstance(bits, int) or bits > 16:
        kind = getattr(page.dtype, "name", page.dtype)
        raise unusable(path, f"it holds {kind}; save it with 8 or 16 bits, or float32 on [0, 1]")
    dtype = np.dtype(np.uint8 if bits <= 8 else np.uint16)
    if bits in (8, 16):
        return pixels.astype(dtype)
    spread: np.ndarray = np.rint(pixels * (WHITE[dtype] / (2**bits - 1)))
    return spread.astype(dtype)


def _of_palette(page: tifffile.TiffPage, indices: np.ndarray, path: Path) -> np.ndarray:
    if page.colormap is None:
        raise ImageError(f"cannot read the image {path}: its palette is missing")
    red_green_blue: np.ndarray = (page.colormap >> 8).astype(np.uint8)[:, indices]
    return red_green_blue.transpose(1, 2, 0)


def _divided(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colours that alpha was multiplied into, without it."""
    white = WHITE[colours.dtype]
    share = np.maximum(alpha[..., None].astype(np.float64) / white, np.finfo(np.float32).tiny)
    divided: np.ndarray = np.where(alpha[..., None] > 0, colours / share, 0)
    if colours.dtype.kind != "f":
        divided = np.rint(np.minimum(divided, white))
    return divided.astype(colours.dtype)
