"""The data sets: where each comes from, how it is checked, and the manifest of what was found.

Each is looked for in the local mirror folders, then in what was downloaded before, then at its
addresses. The three embedded sets ship inside the wheels of scikit-image, scikit-learn and
matplotlib and need neither.
"""

import csv
import hashlib
import importlib.util
import json
import logging
import os
import shutil
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

from filelock import FileLock

from rglib.data.download import Archive, DownloadError, UnpackError, download, unpack
from rglib.data.images import ImageError, read_image, write_png
from rglib.data.manifest import ImageFile, LeftOut, Manifest
from rglib.files import file_digest, replacing

log = logging.getLogger(__name__)

FOLDER_PREFIX = "folder:"
DOWNLOADS = Path("work/downloads")  # of a project
LONGEST_NAME = 200  # bytes of an image's name: those of its results are longer, up to 255
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


class DatasetUnavailable(Exception):  # noqa: N818 - it is a state of the world, not a mistake
    """A data set cannot be had; the message says what was tried and what to do."""


class DatasetError(ValueError):
    """A data set is unknown, or a folder that should hold it holds something else."""


# --- what is known of a data set ------------------------------------------------------------------


@dataclass(frozen=True)
class Photo:
    """A photograph inside an installed package; `box` is the crop (left, top, right, bottom)."""

    package: str
    file: str
    box: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One data set.

    `layouts` are globs relative to a mirror folder; the first is also where a download goes, so
    that a folder of downloads can serve as a mirror. `members` is the glob of the wanted files
    inside each of `archives`, which are tried in order. `file_sha256` and `rgb_sha256` map names to
    the sha256 of the file's bytes, or of its decoded RGB bytes, where these are known.
    """

    id: str
    title: str
    layouts: tuple[str, ...] = ()
    count: int | None = None
    members: str = ""
    archives: tuple[Archive, ...] = ()
    file_sha256: Mapping[str, str] | None = None
    rgb_sha256: Mapping[str, str] | None = None
    embedded: tuple[Photo, ...] = ()


def _table(name: str) -> list[dict[str, str]]:
    path = Path(__file__).with_name(name)
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _archives(*names: str) -> tuple[Archive, ...]:
    rows = {row["file"]: row for row in _table("sources.csv")}
    return tuple(
        Archive(
            url=rows[name]["url"],
            file=name,
            bytes=int(rows[name]["bytes"]) if rows[name]["bytes"] else None,
            sha256=rows[name]["sha256"] or None,
            md5=rows[name]["md5"] or None,
            pin=rows[name]["pin"] == "yes",
        )
        for name in names
    )


def _bsds500(split: str, count: int) -> Dataset:
    return Dataset(
        id=f"bsds500_{split}",
        title=f"BSDS500 {split}",
        layouts=(f"BSDS500/{split}/*.jpg", f"BSR/BSDS500/data/images/{split}/*.jpg"),
        count=count,
        members=f"images/{split}/*.jpg",
        archives=_archives("BSR_bsds500.tgz", "BSDS500-a04b7c6.zip"),
        file_sha256={
            row["image"]: row["sha256"]
            for row in _table("bsds500_sha256.csv")
            if row["split"] == split
        },
    )


def _div2k(id: str, title: str, folder: str, original: str, archive: str, count: int) -> Dataset:
    return Dataset(
        id=id,
        title=title,
        layouts=(f"DIV2K/{folder}/*.png", f"DIV2K/{original}/*.png", f"{original}/*.png"),
        count=count,
        members=f"{original}/*.png",
        archives=_archives(archive),
    )


def _flickr2k(id: str, title: str, folder: str, original: str) -> Dataset:
    return Dataset(
        id=id,
        title=title,
        layouts=(f"Flickr2K/{folder}/*.png", f"Flickr2K/{original}/*.png"),
        count=2650,
        members=f"{original}/*.png",
        archives=_archives("Flickr2K.tar", "Flickr2K.zip"),
    )


# Packages to folders; the files are read where they lie, so that nothing is fetched (pooch would).
_PHOTO_FOLDERS = {
    "skimage": "data",
    "sklearn": "datasets/images",
    "matplotlib": "mpl-data/sample_data",
}
_INSTALLED_AS = {"skimage": "scikit-image", "sklearn": "scikit-learn"}  # where pip's name differs

_DATASETS = (
    Dataset(
        id="set5",
        title="Set5",
        layouts=("Set5/*.png", "Set5_HR/*.png", "Set5/*.bmp"),
        count=5,
        members="Set5_HR/*.png",
        archives=_archives("Set5_HR.tar.gz"),
        rgb_sha256={row["image"]: row["rgb_sha256"] for row in _table("set5_rgb_sha256.csv")},
    ),
    _bsds500("train", 200),
    _bsds500("val", 100),
    _bsds500("test", 200),
    _div2k(
        "div2k_x4",
        "DIV2K train, bicubic X4",
        "train_X4",
        "DIV2K_train_LR_bicubic/X4",
        "DIV2K_train_LR_bicubic_X4.zip",
        800,
    ),
    _div2k("div2k_hr", "DIV2K train", "train_HR", "DIV2K_train_HR", "DIV2K_train_HR.zip", 800),
    _div2k(
        "div2k_valid_x4",
        "DIV2K validation, bicubic X4",
        "valid_X4",
        "DIV2K_valid_LR_bicubic/X4",
        "DIV2K_valid_LR_bicubic_X4.zip",
        100,
    ),
    _div2k(
        "div2k_valid_hr",
        "DIV2K validation",
        "valid_HR",
        "DIV2K_valid_HR",
        "DIV2K_valid_HR.zip",
        100,
    ),
    _flickr2k("flickr2k_x4", "Flickr2K, bicubic X4", "X4", "Flickr2K_LR_bicubic/X4"),
    _flickr2k("flickr2k_hr", "Flickr2K", "HR", "Flickr2K_HR"),
    Dataset(
        id="wed",
        title="Waterloo Exploration Database",
        layouts=(
            "WED/*.bmp",
            "WED/pristine_images/*.bmp",
            "exploration_database_and_code/pristine_images/*.bmp",
        ),
        count=4744,
        members="pristine_images/*.bmp",
        archives=_archives("exploration_database_and_code.rar"),
    ),
    Dataset(id="photos_cid22", title="CID22 photographs", layouts=("photos/cid22/*.png",)),
    Dataset(id="photos_clic", title="CLIC photographs", layouts=("photos/clic/*.png",)),
    Dataset(id="photos_wallpapers", title="wallpapers", layouts=("photos/wallpapers/*.jpg",)),
    Dataset(
        id="photos_val_cid22",
        title="CID22 validation photographs",
        layouts=("photos_val/cid22/*.png",),
    ),
    Dataset(
        id="embedded_train",
        title="embedded training photographs",
        # motorcycle_right shows the scene of motorcycle_left; retina is cut free of its black frame
        embedded=(
            Photo("skimage", "astronaut.png"),
            Photo("skimage", "hubble_deep_field.jpg"),
            Photo("skimage", "ihc.png"),
            Photo("skimage", "motorcycle_left.png"),
            Photo("skimage", "retina.jpg", (300, 300, 1100, 1100)),
            Photo("sklearn", "china.jpg"),
        ),
    ),
    Dataset(
        id="embedded_validation",
        title="embedded validation photographs",
        embedded=(Photo("sklearn", "flower.jpg"), Photo("skimage", "rocket.jpg")),
    ),
    Dataset(
        id="embedded_test",
        title="embedded test photographs",
        # about the size and the subjects of Set5
        embedded=(
            Photo("skimage", "chelsea.png", (90, 20, 346, 276)),
            Photo("skimage", "coffee.png", (180, 60, 436, 316)),
            Photo("matplotlib", "grace_hopper.jpg", (128, 40, 384, 296)),
        ),
    ),
)

CATALOGUE: dict[str, Dataset] = {dataset.id: dataset for dataset in _DATASETS}

LEAKS: Mapping[str, str] = {
    "302003": "BSDS500/train/302003 is the photograph that Set5's woman is cut from",
    "12003": "BSDS500/train/12003 holds Set3C's starfish",
}


def without_leaks(manifest: Manifest) -> Manifest:
    """Leave out the images of `LEAKS`, wherever they turn up.

    The paper's training set contains a photograph of its test set. They are recognised by the
    sha256 of their files, so a copy of BSDS500 in any folder is cleaned as well.
    """
    known = CATALOGUE["bsds500_train"].file_sha256 or {}
    leaks = {known[name] for name in LEAKS}
    return replace(manifest, images=tuple(i for i in manifest.images if i.sha256 not in leaks))


# --- finding them ---------------------------------------------------------------------------------


def mirror_folders(configured: Iterable[str | Path] = ()) -> tuple[Path, ...]:
    """Return the mirror folders: those of RGLIB_MIRRORS first, then the configured ones.

    The variable's folders are separated as in PATH.
    """
    from_environment = [p for p in os.environ.get("RGLIB_MIRRORS", "").split(os.pathsep) if p]
    return tuple(Path(p).expanduser() for p in (*from_environment, *configured))


def definition(dataset_id: str) -> str:
    """Return a hash of what the catalogue says a data set consists of, not of where it is found."""
    known = CATALOGUE.get(dataset_id)
    content = known and [known.count, known.file_sha256, known.rgb_sha256, known.embedded]
    return hashlib.sha256(json.dumps([dataset_id, content], default=asdict).encode()).hexdigest()


def slug(dataset_id: str) -> str:
    """Return a file name for a data set: its id, or the folder's name and a hash of its path."""
    if not dataset_id.startswith(FOLDER_PREFIX):
        return dataset_id
    path = dataset_id.removeprefix(FOLDER_PREFIX)
    name = "".join(c if c.isalnum() else "_" for c in Path(path).name[:40])
    return f"folder_{name}_{hashlib.sha256(path.encode()).hexdigest()[:8]}"


def at_hand(
    dataset_id: str, *, mirrors: Sequence[Path], data_dir: Path, root: Path = Path()
) -> list[Path]:
    """The files that a data set is found in without fetching anything; none if it is out of reach.

    Of a folder, those that have the name of an image. Where nothing else is, the archives that were
    downloaded, if by hand. ``root`` is the project's folder.
    """
    if dataset_id.startswith(FOLDER_PREFIX):
        folder = _folder(dataset_id)
        return _candidates(root / folder) if (root / folder).is_dir() else []
    dataset = CATALOGUE[dataset_id]
    if dataset.embedded:
        return [_copy_of(photo, root / data_dir / dataset.id) for photo in dataset.embedded]
    for place in (*mirrors, data_dir):
        if files := _matches(root / place, dataset):
            return files
    archives = [root / data_dir / "archives" / archive.file for archive in dataset.archives]
    return [path for path in archives if path.is_file()]


def shown(name: str) -> str:
    """A file's name with what of it cannot be printed or stored as text escaped."""
    return "".join(
        character if printable(character) else character.encode("unicode_escape").decode()
        for character in name
    )


def printable(text: str) -> bool:
    """Whether tables, figures and terminals can show it: no control characters, valid Unicode."""
    return not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text)


def resolve(
    dataset_id: str, *, mirrors: Sequence[Path], data_dir: Path, offline: bool = False
) -> Manifest:
    """Find a data set, downloading it into `data_dir` where no mirror has it.

    `dataset_id` is a key of `CATALOGUE`, or `folder:<path>` for the images of any folder. A mirror
    without the data set's folder is passed over. `offline` tries no address. Of a folder, a file
    that cannot be used is left out with a warning, and named in the manifest.

    Raises DatasetError for an unknown id, and for a mirror or folder that is there but does not
    hold the right number of images or the right ones; DatasetUnavailable where the data set is
    nowhere.
    """
    if dataset_id.startswith(FOLDER_PREFIX):
        return _from_folder(dataset_id)
    if dataset_id not in CATALOGUE:
        raise DatasetError(
            f"unknown data set {dataset_id!r}; known are {', '.join(CATALOGUE)} "
            f"and {FOLDER_PREFIX}<path>"
        )
    dataset = CATALOGUE[dataset_id]
    if dataset.embedded:
        return _embedded(dataset, data_dir)
    for mirror in mirrors:
        if images := _found_in(mirror, dataset):
            return Manifest(dataset.id, dataset.title, "mirror", images)
    tried = [_why_not(mirror, dataset) for mirror in mirrors]
    data_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(data_dir / f"{dataset.id}.lock"):
        images = _found_in(data_dir, dataset)
        for archive in () if images else dataset.archives:
            try:
                images = _fetch(dataset, archive, data_dir, offline=offline)
                break
            except (DownloadError, UnpackError, DatasetError) as error:
                tried.append(str(error))
    if not images:
        raise DatasetUnavailable(_unavailable(dataset, data_dir, tried))
    return Manifest(dataset.id, dataset.title, "download", images)


def resolve_test(
    dataset_id: str,
    *,
    stand_in: str | None,
    mirrors: Sequence[Path],
    data_dir: Path,
    offline: bool = False,
) -> Manifest:
    """Find the test set, or where it is out of reach its stand-in, with a loud warning.

    The stand-in's manifest has `stand_in_for` set. Without a stand-in, raises what `resolve` does.
    """
    try:
        return resolve(dataset_id, mirrors=mirrors, data_dir=data_dir, offline=offline)
    except DatasetUnavailable as error:
        if stand_in is None:
            raise
        title = CATALOGUE[dataset_id].title
        found = resolve(stand_in, mirrors=mirrors, data_dir=data_dir, offline=offline)
        log.warning(_LOUD.format(title=title, stand_in=found.title, reason=error, line="!" * 88))
        return replace(found, stand_in_for=title)


_LOUD = """
{line}
!! THE TEST SET {title} IS OUT OF REACH.
!! Everything is evaluated on {stand_in} INSTEAD.
!! The numbers cannot be compared with the paper's; each table and figure names the stand-in.
!! Once {title} is in a mirror, or its archive was put by hand where it says below, run the same
!! command again: it replaces the stand-in. To try a download again, add: --forcerun test_set
{line}
{reason}
{line}"""


def _from_folder(dataset_id: str) -> Manifest:
    folder = _folder(dataset_id)
    if not folder.is_dir():
        raise DatasetError(f"data set {dataset_id}: there is no folder {folder}")
    files = _candidates(folder)
    left_out = tuple(found for path in files if (found := _unusable(path)))
    for file in left_out:
        log.warning("data set %s: left out %s: %s", dataset_id, file.file, file.why)
    names = {file.file for file in left_out}
    images = _image_files(path for path in files if shown(path.name) not in names)
    if not images:
        others = f"; left out: {'; '.join(f.why for f in left_out)}" if left_out else ""
        raise DatasetError(
            f"data set {dataset_id}: no {', '.join(IMAGE_SUFFIXES)} in {folder}{others}"
        )
    for image, following in pairwise(images):
        if image.name == following.name:  # results are told apart by the image's name
            raise DatasetError(
                f"data set {dataset_id}: {image.path} and {following.path} share a name"
            )
    return Manifest(dataset_id, folder.name, "folder", images, left_out=left_out)


def _folder(dataset_id: str) -> Path:
    return Path(dataset_id.removeprefix(FOLDER_PREFIX)).expanduser()


def _candidates(folder: Path) -> list[Path]:
    """What has the name of an image and is not hidden."""
    return [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]


def _unusable(path: Path) -> LeftOut | None:
    """Why a file of a folder is not one of its images, found out before anything is computed."""
    name, digest = shown(path.name), None
    try:
        digest = file_digest(path)
        if fault := _fault_of_name(path):
            return LeftOut(name, digest, fault)
        read_image(path)
    except ImageError as error:
        return LeftOut(name, digest, shown(str(error)))
    except OSError as error:
        why = f"cannot read the image {path}: {error.strerror or error}"
        return LeftOut(name, digest, shown(why))
    return None


def _fault_of_name(path: Path) -> str:
    """Why results cannot be named after a file, or nothing."""
    if not printable(path.name):
        return "its name has characters that cannot be printed"
    if len(os.fsencode(path.stem)) > LONGEST_NAME:
        return f"its name is longer than {LONGEST_NAME} bytes, too long for those of its results"
    return ""


def _embedded(dataset: Dataset, data_dir: Path) -> Manifest:
    images = _image_files(_photo_file(photo, data_dir / dataset.id) for photo in dataset.embedded)
    return Manifest(dataset.id, dataset.title, "embedded", images)


def _photo_file(photo: Photo, folder: Path) -> Path:
    spec = importlib.util.find_spec(photo.package)  # imports nothing
    name = _INSTALLED_AS.get(photo.package, photo.package)
    install = f"pip install -c constraints.txt {name}"
    if spec is None or spec.origin is None:
        raise DatasetUnavailable(f"{photo.file} ships with {name}, which is not there: {install}")
    path = Path(spec.origin).parent / _PHOTO_FOLDERS[photo.package] / photo.file
    if not path.is_file():
        raise DatasetUnavailable(f"the installed {name} does not ship {path}: {install}")
    copy = _copy_of(photo, folder)
    if photo.box is None:
        with replacing(copy) as partial:
            shutil.copyfile(path, partial)
    else:
        left, top, right, bottom = photo.box
        write_png(copy, read_image(path)[top:bottom, left:right])
    return copy


def _copy_of(photo: Photo, folder: Path) -> Path:
    """Where a photograph, or what is cut from it, lies: environments are moved and made anew."""
    file = Path(photo.file)
    return folder / (file.name if photo.box is None else f"{file.stem}.png")


def _image_files(paths: Iterable[Path]) -> tuple[ImageFile, ...]:
    images = [ImageFile(path.stem, _in_project(path), file_digest(path)) for path in paths]
    return tuple(sorted(images, key=lambda image: (image.name, image.path)))


def _in_project(path: Path) -> Path:
    """A path from the working folder where it lies in there, as the project may be moved."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _matches(root: Path, dataset: Dataset) -> list[Path]:
    """Return the files of the first layout that has any, hidden ones left out."""
    for layout in dataset.layouts:
        if files := [path for path in root.glob(layout) if not path.name.startswith(".")]:
            return files
    return []


def _found_in(root: Path, dataset: Dataset) -> tuple[ImageFile, ...]:
    """Return the checked images of the data set under `root`; none where there is no folder."""
    files = _matches(root, dataset)
    if not files:
        folder = (root / dataset.layouts[0]).parent
        if folder.is_dir():
            raise DatasetError(f"{dataset.title}: {folder} is there, but has no images in it")
        return ()
    if dataset.count is not None and len(files) != dataset.count:
        raise DatasetError(
            f"{dataset.title}: {files[0].parent} has {len(files)} images instead of "
            f"{dataset.count}; complete it, or take it away to use another source"
        )
    for path in files:
        if fault := _fault_of_name(path):
            raise DatasetError(f"{dataset.title}: {shown(str(path))}: {fault}; rename it")
    return _checked(dataset, _image_files(files))


def _checked(dataset: Dataset, images: tuple[ImageFile, ...]) -> tuple[ImageFile, ...]:
    """Raise DatasetError unless the images are the pinned ones; name them as the pins do."""
    if dataset.file_sha256 is not None:
        digests, pins, what = [i.sha256 for i in images], dataset.file_sha256, "file's"
    elif dataset.rgb_sha256 is not None:
        digests, pins, what = [_rgb_digest(i.path) for i in images], dataset.rgb_sha256, "pixels'"
    else:
        return images
    names = {digest: name for name, digest in pins.items()}
    for image, digest in zip(images, digests, strict=True):
        if digest not in names:
            raise DatasetError(
                f"{dataset.title}: {image.path} is not an image of this data set: its {what} "
                f"sha256 {digest} is not among the known ones; take its folder away to use "
                "another source"
            )
    named = (
        replace(image, name=names[digest]) for image, digest in zip(images, digests, strict=True)
    )
    return tuple(sorted(named, key=lambda image: image.name))


def _rgb_digest(path: Path) -> str:
    try:
        return hashlib.sha256(read_image(path).tobytes()).hexdigest()
    except ImageError as error:
        raise DatasetError(str(error)) from error


def _fetch(
    dataset: Dataset, archive: Archive, data_dir: Path, *, offline: bool
) -> tuple[ImageFile, ...]:
    """Download, unpack and check; leave nothing unpacked that fails the check."""
    archives = data_dir / "archives"
    if offline and not (archives / archive.file).exists():  # it may have been put there by hand
        raise DownloadError(f"{archive.url}: not tried, offline")
    into = (data_dir / dataset.layouts[0]).parent
    unpack(download(archive, archives), into, members=dataset.members)
    try:
        return _found_in(data_dir, dataset)
    except DatasetError:
        shutil.rmtree(into)
        raise


def _why_not(mirror: Path, dataset: Dataset) -> str:
    what = "no such folder" if not mirror.is_dir() else f"no {' nor '.join(dataset.layouts)} in it"
    return f"mirror {mirror}: {what}"


def _unavailable(dataset: Dataset, data_dir: Path, tried: Sequence[str]) -> str:
    by_hand = data_dir / "archives"
    lines = [
        f"the data set {dataset.title} ({dataset.id}) is out of reach. Tried:",
        *([f"  - {what}" for what in tried] or ["  - nothing: no mirror is configured"]),
        "What to do, one of:",
        f"  - have its images as {dataset.layouts[0]} under a folder that `mirrors` of the "
        "configuration or the environment variable RGLIB_MIRRORS names",
        *(f"  - download {a.url} by hand to {by_hand / a.file}" for a in dataset.archives),
    ]
    if not dataset.archives:
        lines.append("It has no public address to download it from.")
    return "\n".join(lines)
