"""A user's image files: photographs with alpha channel and colour profile, masks and blur kernels.

`rglib.data.images` reads what networks are trained and tested on and refuses the rest; here is what
a photograph may have beside its pixels, and comes out again.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
import torch
from PIL import Image
from PIL.PngImagePlugin import putchunk
from torch import Tensor

from rglib.data.arrays import ARRAYS, TEXT, read_array, read_text, shape_of, without_single_axes
from rglib.data.decoding import WHITE, ImageError, decode, unusable
from rglib.data.masks import MaskError, known_pixels
from rglib.files import replacing

ARRAY = ".npy"  # the one format that keeps every number as it is
PNG, TIFF = (".png",), (".tif", ".tiff")
WITH_ALPHA = (*PNG, *TIFF, ".webp")
DEEP = (ARRAY, *PNG, *TIFF)  # can keep more than 8 bits
OPTIONS: dict[str, dict[str, Any]] = {  # of Pillow's writers, by what they write
    ".png": {},
    ".webp": {"lossless": True, "exact": True},
    ".bmp": {},
    ".jpg": {"quality": 95, "subsampling": 0},
    ".jpeg": {"quality": 95, "subsampling": 0},
}
FORMATS = (ARRAY, *PNG, *TIFF, ".webp", ".bmp", ".jpg", ".jpeg")
WITH_PROFILE = tuple(ending for ending in FORMATS if ending != ".bmp")
IN_FOLDERS = (*FORMATS, ".npz", ".gif", ".ppm", ".pgm", ".pbm")  # are read
DTYPES: dict[int, np.dtype[Any]] = {
    8: np.dtype(np.uint8),
    16: np.dtype(np.uint16),
    32: np.dtype(np.float32),
}  # by bits
LOSSY = ("JPEG", "MPO", "WEBP")
PNG_HEADER = 33  # bytes: the signature and IHDR
BEYOND = 0.5  # of white: further than filters overshoot
SIGMAS = 6  # of noise: further than it goes
FAR = 10  # beyond it floats are on another range: noise of std 1 goes to about 6


@dataclass(frozen=True)
class Photograph:
    """What is in a photograph's file.

    Attributes:
        pixels: (1, 3, H, W) float32, nominally in [0, 1], turned as its EXIF orientation says.
        alpha: uint8, uint16 or float32 (H, W), or None without transparency.
        grey: whether the file has one channel, which `pixels` repeats.
        profile: the ICC colour profile, if it is one of such channels, or None.
        bits: of a channel in the file, 8, 16 or 32 for floats of a TIFF.
    """

    pixels: Tensor
    alpha: np.ndarray | None = None
    grey: bool = False
    profile: bytes | None = None
    bits: int = 8

    def with_pixels(self, pixels: Tensor) -> Photograph:
        """The same photograph restored, (1, 3, H, W); alpha is resized to it, cubically."""
        alpha = self.alpha
        if alpha is not None and alpha.shape != pixels.shape[-2:]:
            alpha = _resized(alpha, width=pixels.shape[-1], height=pixels.shape[-2])
        return replace(self, pixels=pixels, alpha=alpha)


def read_photograph(path: Path) -> Photograph:
    """Read an image file, or the array (H, W), (H, W, 1) or (H, W, 3) in .npy, .npz or .mat.

    Levels of 8 and 16 bits are divided by white, 255 and 65535, floats are on [0, 1] as they are.

    Raises:
        ImageError: it is missing, damaged, or holds anything but one picture in grey or RGB on
            [0, 1]; see `rglib.data.decoding`.
    """
    if path.suffix.lower() in ARRAYS:
        return _of_array(path)
    picture = decode(path)
    if picture.encoding is not None:
        raise unusable(path, f"it has {picture.encoding}, which is not sRGB's; convert it to sRGB")
    grey = picture.colours.shape[2] == 1
    space = b"GRAY" if grey else b"RGB "
    fits = picture.profile is not None and picture.profile[16:20] == space
    return Photograph(
        _in_colour(picture.colours, path),
        picture.alpha,
        grey,
        picture.profile if fits else None,
        bits=8 * picture.colours.dtype.itemsize,
    )


def check_range(path: Path, pixels: Tensor, *, sigma: float) -> None:
    """Check that values (..., H, W) are those of an image on [0, 1] with noise of std ``sigma``.

    Raises:
        ImageError: they go further than noise and filters do, as of an image on [-1, 1].
    """
    reach = BEYOND + SIGMAS * sigma
    least, most = pixels.min().item(), pixels.max().item()
    if least < -reach or most > 1 + reach:
        raise unusable(
            path,
            f"its values go from {least:.3g} to {most:.3g}, and noise of {sigma:g} does not take "
            "them so far from black, 0, and white, 1; bring them to [0, 1]",
        )


def write_photograph(path: Path, photograph: Photograph) -> None:
    """Write a photograph, whole or not at all, in the format of the path's ending.

    Into .npy goes float32 (H, W, 3), or (H, W) for a grey one, every number as it is; into the
    others as many bits as `bits_in` says, clipped to [0, 1] and rounded. A grey one is the mean of
    the three channels.

    Raises:
        ImageError: the format cannot keep what the photograph has, or values are not finite.
        OSError: it cannot be written.
    """
    check_format(path, photograph)
    content = _encoded(path.suffix.lower(), photograph, path)
    with replacing(path) as partial:
        partial.write_bytes(content)


def check_format(path: Path, photograph: Photograph | None = None) -> None:
    """Find out before the work whether a file of this name can be written and keeps everything.

    Raises:
        ImageError: it cannot.
    """
    ending = path.suffix.lower()
    if ending not in FORMATS:
        raise ImageError(f"cannot write {path}: its ending must be one of {', '.join(FORMATS)}")
    if photograph is None:
        return
    able = {
        what: formats
        for what, there, formats in (
            ("an alpha channel", photograph.alpha is not None, WITH_ALPHA),
            (f"{photograph.bits} bits a channel", photograph.bits != 8, DEEP),
            ("a colour profile", photograph.profile is not None, WITH_PROFILE),
        )
        if there
    }
    for what, formats in able.items():
        if ending not in formats:
            keep_all = [e for e in FORMATS if all(e in others for others in able.values())]
            raise ImageError(
                f"cannot write {path}: the image has {what}, which {ending} cannot keep; "
                f"take one of {', '.join(keep_all)}"
            )


def photographs_in(folder: Path) -> list[Path]:
    """The images directly in a folder, by their endings, in the order of their names.

    Raises:
        ImageError: there are none.
    """
    found = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in IN_FOLDERS and path.is_file() and not path.name.startswith(".")
    ]
    if not found:
        raise ImageError(f"there are no images in {folder}: none ends in {', '.join(IN_FOLDERS)}")
    return found


def bits_in(path: Path, photograph: Photograph) -> int:
    """Bits of a channel in a file of this name: those of the photograph where it can keep them."""
    ending = path.suffix.lower()
    if ending == ARRAY:
        return 32
    if ending in TIFF:
        return photograph.bits
    return min(photograph.bits, 16 if ending in PNG else 8)


def as_levels(pixels: Tensor, bits: int) -> np.ndarray:
    """Images (1, 3, H, W) as (H, W, 3): clipped and rounded to 8 or 16 bits, or float32 as is."""
    values = pixels[0].detach().permute(1, 2, 0).cpu().numpy()
    return _at_depth(values, DTYPES[bits])


def read_mask(path: Path, *, height: int, width: int) -> Tensor:
    """Read which pixels are known, (1, 1, H, W) of ones and zeros, see `rglib.data.masks`.

    Raises:
        ImageError: it cannot be read, is not of this size, knows nothing or is ambiguous.
    """
    if path.suffix.lower() in ARRAYS:
        array = without_single_axes(_only_array(path))
        colours, alpha, lossy = _with_channels(array, path), None, False
    else:
        picture = decode(path)
        colours, alpha, lossy = picture.colours, picture.alpha, picture.format in LOSSY
    if colours.shape[:2] != (height, width):
        raise ImageError(
            f"the mask {path} has {colours.shape[1]}x{colours.shape[0]} pixels, its image "
            f"{width}x{height}"
        )
    try:
        known = known_pixels(colours, alpha, lossy=lossy)
    except MaskError as error:
        raise ImageError(f"cannot use the mask {path}: {error}") from error
    return torch.from_numpy(known.astype(np.float32))[None, None]


def write_mask(path: Path, mask: Tensor) -> None:
    """Write a mask (1, 1, H, W): what is known is white."""
    write_photograph(path, Photograph(mask.expand(-1, 3, -1, -1), grey=True))


def read_kernel(path: Path, *, name: str | None = None) -> Tensor:
    """Read a blur kernel, (odd, odd) float64, divided by its sum.

    From .npy, .npz and .mat in any type of numbers, of several arrays the one with a ``name``; from
    a table in .csv, .txt or .tsv; or from a grey image, whose levels count. It is convolved with
    images: its first row acts on what lies below a pixel.

    Raises:
        ImageError: it cannot be read, its sides are even, or its sum is not positive.
    """
    ending = path.suffix.lower()
    if name is not None and ending not in ARRAYS:
        raise ImageError(f"cannot choose {name} in {path}: only arrays and variables have names")
    if ending in ARRAYS:
        choosing = "--kernel-name names the one that is meant"
        kernel = read_array(path, name=name, choosing=choosing, stacked=True)
    else:
        kernel = read_text(path) if ending in TEXT else _grey_levels(path)
    if kernel.ndim != 2:
        raise ImageError(
            f"the blur kernel {path} is {shape_of(kernel)}; it needs two axes, rows and columns"
        )
    if not all(side % 2 for side in kernel.shape):
        raise ImageError(
            f"the blur kernel {path} is {shape_of(kernel)}; it needs two odd sides, around the "
            "entry in its middle: add a row or column of zeros"
        )
    total = kernel.sum(dtype=np.float64)
    if not total > 0:
        raise ImageError(f"the blur kernel {path} has the sum {total}; it must be positive")
    return torch.from_numpy(kernel.astype(np.float64) / total)


def size_of(pixels: Tensor) -> str:
    """Width x height of images (..., H, W), for messages."""
    return f"{pixels.shape[-1]}x{pixels.shape[-2]}"


# --- reading --------------------------------------------------------------------------------------


def _of_array(path: Path) -> Photograph:
    levels = _with_channels(_only_array(path), path)
    bits = 16 if levels.dtype == np.uint16 else 8
    if levels.dtype.kind in "bf":
        levels = levels.astype(np.float32)
    if levels.dtype not in WHITE:
        raise unusable(
            path,
            f"it holds {levels.dtype}, whose white is not known; save floats on [0, 1], uint8 "
            "or uint16",
        )
    return Photograph(_in_colour(levels, path), grey=levels.shape[2] == 1, bits=bits)


def _only_array(path: Path) -> np.ndarray:
    return read_array(path, choosing="keep the one that is meant")


def _with_channels(array: np.ndarray, path: Path) -> np.ndarray:
    """(H, W), (H, W, 1) or (H, W, 3) to one of the last two."""
    channels = array[..., None] if array.ndim == 2 else array
    if channels.ndim != 3 or channels.shape[2] not in (1, 3):
        raise ImageError(f"the array {path} is {array.shape}; an image is (H, W) or (H, W, 3)")
    return channels


def _in_colour(levels: np.ndarray, path: Path) -> Tensor:
    """(H, W, 1) or (H, W, 3) of levels to (1, 3, H, W) on [0, 1]."""
    white, most = WHITE[levels.dtype], levels.max()
    if levels.dtype.kind == "u" and 0 < most <= white / 255:  # as of 0 and 1, or 8 bits in 16
        raise unusable(
            path,
            f"its levels go to {most} alone, and white is {white}; multiply them, or save it "
            "with the bits that it has",
        )
    values = (levels / white).astype(np.float32)
    if not np.isfinite(values).all():
        raise unusable(path, "it has values that are not finite")
    if (far := np.abs(values).max()) > FAR:
        raise unusable(
            path, f"its values go to {far:g}, and white is 1; divide them by their white"
        )
    if values.shape[2] == 1:
        values = np.repeat(values, 3, axis=2)
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))[None]


def _grey_levels(path: Path) -> np.ndarray:
    picture = decode(path)
    colours, alpha = picture.colours, picture.alpha
    if not (colours == colours[..., :1]).all():
        raise unusable(path, "it is coloured, and a blur kernel is grey")
    if alpha is not None and alpha.min() < WHITE[alpha.dtype]:
        raise unusable(path, "it has transparent pixels, and a blur kernel has none")
    if not np.isfinite(colours).all():
        raise unusable(path, "it has values that are not finite")
    return colours[..., 0]


# --- writing --------------------------------------------------------------------------------------


def _encoded(ending: str, photograph: Photograph, path: Path) -> bytes:
    bits = bits_in(path, photograph)
    pixels = photograph.pixels
    if ending != ARRAY and not pixels.isfinite().all():
        raise ImageError(f"cannot write {path}: values are not finite, the restoration diverged")
    if photograph.grey:
        pixels = pixels.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    levels = as_levels(pixels, bits)
    if photograph.grey:
        levels = levels[..., :1]
    if photograph.alpha is not None:
        alpha = photograph.alpha / WHITE[photograph.alpha.dtype]
        levels = np.dstack((levels, _at_depth(alpha, levels.dtype)))
    levels = levels[..., 0] if levels.shape[2] == 1 else levels
    if ending == ARRAY:
        return _npy(levels)
    if ending in TIFF:
        return _tiff(levels, photograph)
    if bits == 16:
        return _deep_png(levels, photograph.profile)
    image = Image.fromarray(levels)
    # WebP has no grey
    profile = None if photograph.grey and ending == ".webp" else photograph.profile
    buffer = io.BytesIO()
    kind = Image.registered_extensions()[ending]
    image.save(buffer, format=kind, icc_profile=profile, **OPTIONS[ending])
    return buffer.getvalue()


def _at_depth(values: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Values on [0, 1] as levels: clipped and rounded, floats as they are."""
    if dtype.kind == "f":
        return values.astype(dtype)
    levels: np.ndarray = np.rint(np.clip(values, 0, 1) * WHITE[dtype]).astype(dtype)
    return levels


def _resized(alpha: np.ndarray, *, width: int, height: int) -> np.ndarray:
    shares = Image.fromarray((alpha / WHITE[alpha.dtype]).astype(np.float32))
    resized = np.asarray(shares.resize((width, height), Image.Resampling.BICUBIC))
    return _at_depth(np.clip(resized, 0, 1), alpha.dtype)


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()  # NumPy's own writing says neither which file nor why it failed
    np.save(buffer, array)
    return buffer.getvalue()


def _tiff(levels: np.ndarray, photograph: Photograph) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        levels,
        photometric="minisblack" if photograph.grey else "rgb",
        planarconfig="contig" if levels.ndim == 3 else None,
        extrasamples=None if photograph.alpha is None else ("unassalpha",),
        compression="zlib",
        iccprofile=photograph.profile,
        metadata=None,
    )
    return buffer.getvalue()


def _deep_png(levels: np.ndarray, profile: bytes | None) -> bytes:
    """A PNG of 16 bits, with the chunk of its profile after the header."""
    encoded = bytes(imagecodecs.png_encode(np.ascontiguousarray(levels)))
    buffer = io.BytesIO()
    if profile is not None:
        putchunk(buffer, b"iCCP", b"ICC profile\0\0", zlib.compress(profile))
    return encoded[:PNG_HEADER] + buffer.getvalue() + encoded[PNG_HEADER:]
