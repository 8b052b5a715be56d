"""Reading and writing images, the store of training images, and random crops from it.

Images are uint8 arrays (H, W, 3) on 0..255 as files, float tensors (1, 3, H, W) in [0, 1] for the
networks.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from rglib.data.decoding import ImageError as ImageError
from rglib.data.decoding import decode, image_size, unusable
from rglib.files import file_digest, replacing
from rglib.progress import progress

if TYPE_CHECKING:
    from rglib.data.manifest import ImageFile as FileOfDataset
    from rglib.data.manifest import Manifest


# --- single images --------------------------------------------------------------------------------


def read_image(path: Path) -> np.ndarray:
    """Return the image in `path` as uint8 RGB (H, W, 3), turned as its EXIF orientation says.

    Grey and palette images become RGB, colour profiles are not applied. Raises ImageError where the
    file is missing, damaged or holds anything but one picture in grey or RGB, has transparent
    pixels, or is not of 8 bits a channel.
    """
    picture = decode(path)
    colours, alpha = picture.colours, picture.alpha
    if colours.dtype != np.uint8:
        depth = "floats" if colours.dtype.kind == "f" else "16 bits a channel"
        raise unusable(path, f"it has {depth}; convert it to 8-bit RGB")
    if alpha is not None and alpha.min() < 255:
        raise unusable(path, "it has transparent pixels")
    return np.repeat(colours, 3, axis=2) if colours.shape[2] == 1 else colours


def write_png(path: Path, image: np.ndarray) -> None:
    """Write uint8 (H, W, 3) as PNG, the folder made where it is missing, the file whole or not."""
    with replacing(path) as partial:
        # the default level takes four times as long, for a tenth fewer bytes
        Image.fromarray(image).save(partial, format="PNG", compress_level=1)


# --- the store ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """Where one image lies in the store: `offset` is the index of its first byte."""

    dataset: str
    name: str
    offset: int
    height: int
    width: int
    sha256: str  # of the file's bytes


def build_store(manifests: Sequence[Manifest], folder: Path, *, min_size: int) -> None:
    """Decode the images of `manifests` into one flat file that crops are cut from.

    `folder` receives `pixels.npy` (uint8, all images one after the other, each as (3, H, W)),
    `index.csv` (one `Entry` per image) and, last, `store.json` (digest, data sets, counts, images
    left out because a side is shorter than `min_size` pixels, and why). Equal images give an equal
    digest, wherever their files lie.

    Raises ImageError for a file that is missing, is no longer the one in its manifest or cannot be
    read, and where no image is left; OSError where the store cannot be written.
    """
    files = [(manifest, image) for manifest in manifests for image in manifest.images]
    sizes = [image_size(image.path) for _, image in files]
    kept = [pair for pair, size in zip(files, sizes, strict=True) if min(size) >= min_size]
    if not kept:
        raise ImageError(
            f"no image of the data sets {[m.dataset for m in manifests]} has both sides of "
            f"at least {min_size} pixels: configure other data sets or smaller crops"
        )
    n_bytes = 3 * sum(w * h for w, h in sizes if min(w, h) >= min_size)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "store.json").unlink(missing_ok=True)  # it vouches for the other two files
    with replacing(folder / "pixels.npy") as partial:
        entries = _fill(partial, kept, n_bytes)
    with replacing(folder / "index.csv") as partial:
        _write_index(partial, entries)
    skipped = [
        {"dataset": m.dataset, "name": image.name, "why": f"{w}x{h} is smaller than {min_size}"}
        for (m, image), (w, h) in zip(files, sizes, strict=True)
        if min(w, h) < min_size
    ]
    summary = {
        "digest": _digest(entries),
        "datasets": [{"dataset": m.dataset, "title": m.title} for m in manifests],
        "images": len(entries),
        "bytes": n_bytes,
        "min_size": min_size,
        "skipped": skipped,
    }
    with replacing(folder / "store.json") as partial:
        partial.write_text(json.dumps(summary, indent=1) + "\n")


def _fill(path: Path, files: list[tuple[Manifest, FileOfDataset]], n_bytes: int) -> list[Entry]:
    header = {"descr": "|u1", "fortran_order": False, "shape": (n_bytes,)}
    entries, offset = [], 0
    # written, not memory-mapped: where the disk is full that is an error and no SIGBUS
    counted = progress("image store", total=len(files), unit="image")
    with path.open("wb") as pixels, counted as advance:
        np.lib.format.write_array_header_1_0(pixels, header)
        for manifest, file in files:
            image = read_listed(file)
            height, width, _ = image.shape
            pixels.write(image.transpose(2, 0, 1).tobytes())
            entries.append(Entry(manifest.dataset, file.name, offset, height, width, file.sha256))
            offset += image.size
            advance()
    return entries


def read_listed(file: FileOfDataset) -> np.ndarray:
    """`read_image` of a file of a data set, if its bytes are those that were listed.

    Raises ImageError as `read_image`, and where it is another file by now.
    """
    image = read_image(file.path)
    if file_digest(file.path) != file.sha256:
        raise ImageError(
            f"{file.path} is no longer the file that was listed as {file.name}: run the same "
            "command again, which lists the data set anew"
        )
    return image


def _write_index(path: Path, entries: Iterable[Entry]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, Entry.__annotations__, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(entry) for entry in entries)


def _digest(entries: Iterable[Entry]) -> str:
    lines = json.dumps([list(asdict(entry).values()) for entry in entries])
    return hashlib.sha256(lines.encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class PatchStore:
    """The images that `build_store` laid down, memory-mapped: opening it reads no pixels."""

    folder: Path
    digest: str
    entries: tuple[Entry, ...]
    pixels: np.ndarray

    @classmethod
    def open(cls, folder: Path) -> PatchStore:
        """Open the store in `folder`. Raises ImageError where there is none, or half of one."""
        try:
            summary = json.loads((folder / "store.json").read_text())
            with (folder / "index.csv").open(newline="", encoding="utf-8") as file:
                entries = tuple(_entry(row) for row in csv.DictReader(file))
            pixels = np.load(folder / "pixels.npy", mmap_mode="r")
        except FileNotFoundError as error:
            raise ImageError(f"no image store in {folder}: {error.filename} is missing") from error
        except (ValueError, KeyError) as error:  # cut short, or not what is written there
            raise ImageError(_damaged(folder)) from error
        if _digest(entries) != summary["digest"] or pixels.size != summary["bytes"]:
            raise ImageError(_damaged(folder))
        return cls(folder, summary["digest"], entries, pixels)

    def __len__(self) -> int:
        return len(self.entries)

    def image(self, i: int) -> np.ndarray:
        """Return image `i` as a read-only uint8 view (3, H, W)."""
        entry = self.entries[i]
        size = 3 * entry.height * entry.width
        flat = self.pixels[entry.offset : entry.offset + size]
        return flat.reshape(3, entry.height, entry.width)

    def __reduce__(self) -> tuple[Callable[[Path], PatchStore], tuple[Path]]:
        # a worker process maps the file again; pickling the array would copy every pixel
        return PatchStore.open, (self.folder,)


def _damaged(folder: Path) -> str:
    return f"the image store in {folder} is damaged: delete it and run again"


def _entry(row: dict[str, str]) -> Entry:
    return Entry(
        dataset=row["dataset"],
        name=row["name"],
        offset=int(row["offset"]),
        height=int(row["height"]),
        width=int(row["width"]),
        sha256=row["sha256"],
    )


# --- crops ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CropSampler:
    """Random crops as a pure function of (seed, step).

    So they are the same whatever the number of workers, and resuming needs no state. Sample
    k = step * batch + j lies in epoch k // n at place k % n of that epoch's permutation of the n
    images: each image comes once per epoch, as in the paper. The crop's place in the image is
    uniform.

    Raises ValueError for a batch below 1, a negative seed, an empty store, and a crop larger than
    the smallest image of the store.
    """

    store: PatchStore
    crop: int  # pixels
    batch: int
    seed: int

    def __post_init__(self) -> None:
        if self.crop < 1 or self.batch < 1 or self.seed < 0:
            raise ValueError(
                "crop and batch must be at least 1 and seed at least 0, "
                f"got crop={self.crop}, batch={self.batch}, seed={self.seed}"
            )
        smallest = min((min(e.height, e.width) for e in self.store.entries), default=0)
        if self.crop > smallest:
            raise ValueError(
                f"crops of {self.crop} pixels do not fit the images of {self.store.folder}, whose "
                f"shortest side is {smallest}: build the store with a larger min_size"
            )

    @cached_property
    def _sizes(self) -> np.ndarray:
        return np.array([(e.height, e.width) for e in self.store.entries])

    def images(self, step: int) -> np.ndarray:
        """Return the indices (batch,) of the images that step `step` (from 0) draws from."""
        if step < 0:
            raise ValueError(f"step must be at least 0, got {step}")
        samples = range(step * self.batch, (step + 1) * self.batch)
        n = len(self.store)
        return np.array([_permutation(self.seed, k // n, n)[k % n] for k in samples])

    def places(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the images (batch,) of step `step` (from 0) and each crop's (top, left) in it."""
        images = self.images(step)
        rng = np.random.Generator(np.random.Philox(key=[self.seed, step]))
        return images, rng.integers(0, self._sizes[images] - self.crop, endpoint=True)

    def crops(self, step: int) -> np.ndarray:
        """Return the crops of step `step` (from 0) as uint8 (batch, 3, crop, crop)."""
        images, corners = self.places(step)
        out = np.empty((self.batch, 3, self.crop, self.crop), np.uint8)
        for j, (i, (top, left)) in enumerate(zip(images, corners, strict=True)):
            out[j] = self.store.image(i)[:, top : top + self.crop, left : left + self.crop]
        return out


@lru_cache(maxsize=8)  # consecutive steps share an epoch; training and validation share the cache
def _permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(n)
