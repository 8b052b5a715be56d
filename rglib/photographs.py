"""A user's image files: photographs with alpha channel and colour profile, masks and blur kernels.

`rglib.images` reads what networks are trained and tested on and refuses the rest; here is what a
photograph may have beside its pixels, and comes out again.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from rglib.files import replacing
from rglib.images import ImageError, check_depth, opened, to_tensor, to_uint8

ARRAY = ".npy"  # the one format that keeps every number as it is
WITH_ALPHA = (".png", ".tif", ".tiff", ".webp")
OPTIONS: dict[str, dict[str, Any]] = {  # of Pillow's writers, by what they write
    ".png": {},
    ".tif": {"compression": "tiff_deflate"},
    ".tiff": {"compression": "tiff_deflate"},
    ".webp": {"lossless": True},
    ".bmp": {},
    ".jpg": {"quality": 95, "subsampling": 0},
    ".jpeg": {"quality": 95, "subsampling": 0},
}
FORMATS = (ARRAY, *OPTIONS)
GREATEST = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}  # white, in arrays of integers


@dataclass(frozen=True)
class Photograph:
    """What is in a photograph's file.

    Attributes:
        pixels: (1, 3, H, W) float32, nominally in [0, 1], turned as its EXIF orientation says.
        alpha: uint8 (H, W), or None without transparency.
        grey: whether the file has one channel, which `pixels` repeats.
        profile: the ICC colour profile, or None.
    """

    pixels: Tensor
    alpha: np.ndarray | None = None
    grey: bool = False
    profile: bytes | None = None

    def with_pixels(self, pixels: Tensor) -> Photograph:
        """The same photograph restored, (1, 3, H, W); alpha is resized to it, cubically."""
        alpha = self.alpha
        size = (pixels.shape[-1], pixels.shape[-2])
        if alpha is not None and alpha.shape != size[::-1]:
            alpha = np.asarray(Image.fromarray(alpha).resize(size, Image.Resampling.BICUBIC))
        return replace(self, pixels=pixels, alpha=alpha)


def read_photograph(path: Path) -> Photograph:
    """Read an image of 8 bits a channel, or an array (H, W) or (H, W, 3) from .npy.

    Arrays of floats are on [0, 1] as they are, of uint8 and uint16 they are divided by 255 and
    65535: the way for images of 16 bits, whose lower half Pillow would drop.

    Raises:
        ImageError: it is missing, damaged, no image, of 16 bits or of other than grey or RGB.
    """
    if path.suffix.lower() == ARRAY:
        array = _read_array(path)
        return Photograph(torch.from_numpy(_in_colour(array, path)), grey=array.ndim == 2)
    with opened(path) as image:
        check_depth(image, path)
        grey = image.mode in ("1", "L", "LA")
        profile = image.info.get("icc_profile")
        turned = ImageOps.exif_transpose(image)
        pixels = to_tensor(np.array(turned.convert("RGB")))
        alpha = None
        if turned.has_transparency_data:
            alpha = np.array(turned.convert("RGBA").getchannel("A"))
    return Photograph(pixels, alpha, grey, profile)


def write_photograph(path: Path, photograph: Photograph) -> None:
    """Write a photograph, whole or not at all, in the format of the path's ending.

    Into .npy goes float32 (H, W, 3), or (H, W) for a grey one, every number as it is; into the
    others 8 bits, clipped to [0, 1] and rounded. A grey one is the mean of the three channels.

    Raises:
        ImageError: the format has no alpha channel and the photograph does, or values are not
            finite.
        OSError: it cannot be written.
    """
    check_format(path, photograph)
    pixels = photograph.pixels
    if photograph.grey:
        pixels = pixels.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    if path.suffix.lower() == ARRAY:
        array = pixels[0].permute(1, 2, 0).cpu().numpy()
        buffer = io.BytesIO()  # NumPy's own writing says neither which file nor why it failed
        np.save(buffer, array[..., 0] if photograph.grey else array)
        with replacing(path) as partial:
            partial.write_bytes(buffer.getvalue())
        return
    if not pixels.isfinite().all():
        raise ImageError(f"cannot write {path}: values are not finite, the restoration diverged")
    image = Image.fromarray(to_uint8(pixels))
    image = image.convert("L") if photograph.grey else image
    if photograph.alpha is not None:
        image.putalpha(Image.fromarray(photograph.alpha))
    with replacing(path) as partial:
        image.save(partial, icc_profile=photograph.profile, **OPTIONS[path.suffix.lower()])


def check_format(path: Path, photograph: Photograph | None = None) -> None:
    """Find out before the work whether a file of this name can be written, with its alpha channel.

    Raises:
        ImageError: it cannot.
    """
    ending = path.suffix.lower()
    if ending not in FORMATS:
        raise ImageError(f"cannot write {path}: its ending must be one of {', '.join(FORMATS)}")
    if photograph is not None and photograph.alpha is not None and ending not in WITH_ALPHA:
        raise ImageError(
            f"cannot write {path}: the image has an alpha channel, which {ending} cannot keep; "
            f"take one of {', '.join(WITH_ALPHA)}"
        )


def photographs_in(folder: Path) -> list[Path]:
    """The images directly in a folder, by their endings, in the order of their names.

    Raises:
        ImageError: there are none.
    """
    found = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in FORMATS and path.is_file() and not path.name.startswith(".")
    ]
    if not found:
        raise ImageError(f"there are no images in {folder}: none ends in {', '.join(FORMATS)}")
    return found


def read_mask(path: Path, *, height: int, width: int) -> Tensor:
    """Read which pixels are known, (1, 1, H, W) of ones and zeros: white is known, black is not.

    Colours count by their brightness; what is at least half as bright as white is known.

    Raises:
        ImageError: it cannot be read, is not of this size or knows nothing.
    """
    brightness = read_photograph(path).pixels.mean(dim=1, keepdim=True)
    known = (brightness >= 0.5).float()
    if known.shape[-2:] != (height, width):
        raise ImageError(
            f"the mask {path} has {known.shape[-1]}x{known.shape[-2]} pixels, its image "
            f"{width}x{height}"
        )
    if not known.any():
        raise ImageError(f"the mask {path} says that no pixel is known: white is known, black not")
    return known


def write_mask(path: Path, mask: Tensor) -> None:
    """Write a mask (1, 1, H, W): what is known is white."""
    write_photograph(path, Photograph(mask.expand(-1, 3, -1, -1), grey=True))


def read_kernel(path: Path) -> Tensor:
    """Read a blur kernel, (odd, odd) float64, divided by its sum, from .npy, .csv or an image.

    Raises:
        ImageError: it cannot be read, its sides are even, or its sum is not positive.
    """
    ending = path.suffix.lower()
    if ending == ARRAY:
        kernel = _read_array(path)
    elif ending == ".csv":
        kernel = _read_csv(path)
    else:
        kernel = read_photograph(path).pixels[0].mean(dim=0).numpy()
    sides = "x".join(map(str, kernel.shape))
    if kernel.ndim != 2 or not all(side % 2 for side in kernel.shape):
        raise ImageError(f"the blur kernel {path} is {sides}; it needs two odd sides")
    total = kernel.sum(dtype=np.float64)
    if not (np.isfinite(total) and total > 0):
        raise ImageError(f"the blur kernel {path} has the sum {total}; it must be positive")
    return torch.from_numpy(kernel.astype(np.float64) / total)


def _read_array(path: Path) -> np.ndarray:
    """Numbers from .npy as float32, integers by what is white in them; no code in it is run."""
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ImageError(f"cannot read the array {path}: {error}") from error
    if array.dtype in GREATEST:
        array = array / GREATEST[array.dtype]
    if array.dtype.kind != "f":
        raise ImageError(f"the array {path} holds {array.dtype}; use floats, uint8 or uint16")
    if array.size == 0 or not np.isfinite(array).all():
        raise ImageError(f"the array {path} is empty or has values that are not finite")
    return np.asarray(array, dtype=np.float32)


def _read_csv(path: Path) -> np.ndarray:
    try:
        return np.loadtxt(path, delimiter=",", ndmin=2)
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot read numbers from {path}: {error}") from error


def _in_colour(array: np.ndarray, path: Path) -> np.ndarray:
    """(H, W) or (H, W, 3) to (1, 3, H, W)."""
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] != 3:
        raise ImageError(f"the array {path} is {array.shape}; an image is (H, W) or (H, W, 3)")
    return np.ascontiguousarray(array.transpose(2, 0, 1))[None]


def size_of(pixels: Tensor) -> str:
    """Width x height of images (..., H, W), for messages."""
    return f"{pixels.shape[-1]}x{pixels.shape[-2]}"
