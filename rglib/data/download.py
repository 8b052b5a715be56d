"""Downloading archives (resumed, verified, pinned) and unpacking them safely.

Nothing half done is ever found under its final name: a download grows in `<file>.part`, an unpacked
folder in a hidden sibling, and both are renamed when they are whole and verified.
"""

import errno
import logging
import os
import shutil
import stat
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

import rarfile
import requests
import urllib3
from filelock import FileLock

from rglib.files import file_digest, replacing, writing
from rglib.progress import BYTE, progress

log = logging.getLogger(__name__)

CHUNK = 1 << 20  # bytes read at a time
TIMEOUT = (10, 60)  # seconds to connect, seconds without a byte


class DownloadError(Exception):
    """An archive could not be fetched; the message names the address and the reason."""


class ChecksumError(DownloadError):
    """A file is not the one that was published or pinned; the message has expected and got."""


class UnpackError(Exception):
    """An archive is damaged, hostile, or needs a tool that is not installed."""


@dataclass(frozen=True)
class Archive:
    """A file to download: what is known of it before it is here.

    `bytes`, `sha256` and `md5` are None where they were not published. Without any published
    checksum the first download is pinned (see `download`), unless `pin` is False: for archives that
    the server generates anew, and whose content is checked instead.
    """

    url: str
    file: str
    bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None
    pin: bool = True


class _TransientError(Exception):
    """A failure that another try may cure."""


def download(archive: Archive, folder: Path, *, retries: int = 3, pause: float = 1.0) -> Path:
    """Fetch `archive` into `folder` and return the verified file.

    A file already there is verified and not fetched again. A partial download is resumed.
    `retries` limits the tries in a row that bring no new byte, waiting `pause`, 2 `pause`,
    4 `pause`, ... seconds between them, so that a long download survives any number of broken
    connections. Where no checksum is published, the sha256 of the first download is recorded in
    `<file>.sha256` and holds from then on. Two processes asking for the same file take turns.

    Raises DownloadError (nothing came), ChecksumError (the wrong file came; it is set aside as
    `<file>.rejected`), OSError (it cannot be written; what came so far is kept).
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / archive.file
    part = target.with_name(target.name + ".part")
    with FileLock(target.with_name(target.name + ".lock")):
        if target.exists():
            _verify(archive, target, pin_file=_pin_file(target))
            return target
        _fetch_stubbornly(archive, part, retries=retries, pause=pause)
        _verify(archive, part, pin_file=_pin_file(target))
        os.replace(part, target)
    return target


def unpack(
    archive: Path,
    into: Path,
    *,
    members: str,
    max_bytes: int = 64 << 30,
    max_ratio: float = 100.0,
) -> Path:
    """Unpack the members matching the glob `members` flat into the new folder `into`.

    The glob is matched from the right, part by part: `X4/*.png` matches `any/where/X4/0001.png`.
    Hidden files are left out. Reads .tar, .tar.gz, .tgz, .zip and .rar, whatever the suffix says.

    Raises UnpackError where nothing matches, where the archive is damaged, where any member has an
    absolute path or `..` in it, where a wanted member is a link or another special file, where two
    have the same name, and where the files come to more than `max_bytes` or `max_ratio` times the
    archive's size; OSError where the files cannot be written.
    """
    if into.exists():
        raise UnpackError(f"cannot unpack {archive}: {into} already exists")
    limit = min(max_bytes, int(max_ratio * archive.stat().st_size))
    partial = into.with_name(f".{into.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a run that was killed
    partial.mkdir(parents=True)
    try:
        with writing(into), _opened(archive) as all_members:
            _unpack_members(all_members, partial, glob=members, limit=limit, archive=archive)
        os.rename(partial, into)
    except rarfile.RarCannotExec as error:
        raise UnpackError(
            f"cannot unpack {archive}: no tool for RAR archives is installed; "
            "install one of unrar, unar or bsdtar (libarchive-tools) and run again"
        ) from error
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
            raise
        raise UnpackError(f"cannot unpack {archive}: {error or type(error).__name__}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return into


# --- download -------------------------------------------------------------------------------------


def _pin_file(target: Path) -> Path:
    return target.with_name(target.name + ".sha256")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _fetch_stubbornly(archive: Archive, part: Path, *, retries: int, pause: float) -> None:
    failures = 0
    while True:
        before = _size(part)
        try:
            return _fetch(archive, part)
        except _TransientError as error:
            failures = 0 if _size(part) > before else failures + 1
            if failures > retries:
                raise DownloadError(f"cannot download {archive.url}: {error}") from error
            log.info("%s: %s; trying again", archive.url, error)
            time.sleep(pause * 2 ** max(0, failures - 1))


def _fetch(archive: Archive, part: Path) -> None:
    """Bring `part` from where it is to its full size, or raise."""
    have = _size(part)
    if archive.bytes is not None and have >= archive.bytes:
        if have == archive.bytes:
            return
        part.unlink()  # longer than the whole file: not a part of it
        have = 0
    # identity: servers that label a .tgz "Content-Encoding: gzip" would have it unpacked on the way
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with requests.get(archive.url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            if response.status_code == 416:  # the part is complete, or no part of this file
                if response.headers.get("Content-Range") == f"bytes */{have}":
                    return
                part.unlink()
                raise _TransientError("the server has no such range; starting over")
            _check_status(archive, response)
            resumed = response.status_code == 206
            if resumed and not response.headers.get("Content-Range", "").startswith(
                f"bytes {have}-"
            ):
                part.unlink()
                raise _TransientError("the server sent another range; starting over")
            _receive(archive, response, part, start=have if resumed else 0)
    except (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError) as error:
        raise _TransientError(str(error)) from error
    except requests.RequestException as error:
        raise DownloadError(f"cannot download {archive.url}: {error}") from error


def _check_status(archive: Archive, response: requests.Response) -> None:
    status = f"the server answered {response.status_code} {response.reason}"
    if response.status_code >= 500 or response.status_code == 429:
        raise _TransientError(status)
    if response.status_code not in (200, 206):
        raise DownloadError(f"cannot download {archive.url}: {status}")
    if response.headers.get("Content-Type", "").startswith("text/html"):
        # a login or error page must not become the pinned first download
        raise DownloadError(f"cannot download {archive.url}: the server answered with a web page")


def _receive(archive: Archive, response: requests.Response, part: Path, *, start: int) -> None:
    """Write the body to `part` from byte `start` on; _TransientError where it ends too early."""
    length = response.headers.get("Content-Length")
    total = start + int(length) if length else archive.bytes
    if archive.bytes is not None and total != archive.bytes:
        raise DownloadError(
            f"cannot download {archive.url}: expected {archive.bytes} bytes, the server has {total}"
        )
    counted = progress(archive.file, total=total, done=start, unit=BYTE)
    with writing(part), part.open("ab" if start else "wb") as file, counted as advance:
        for chunk in response.raw.stream(CHUNK, decode_content=False):
            file.write(chunk)
            advance(len(chunk))
    if total is not None and _size(part) < total:
        raise _TransientError(f"the connection ended after {_size(part)} of {total} bytes")


def _verify(archive: Archive, path: Path, *, pin_file: Path) -> None:
    """Check size and checksums; record the sha256 where none was published or pinned yet."""
    if archive.bytes is not None and _size(path) != archive.bytes:
        _reject(archive, path, what="bytes", expected=str(archive.bytes), got=str(_size(path)))
    if archive.sha256 is not None:
        _check(archive, path, "sha256", archive.sha256)
    elif archive.md5 is not None:
        _check(archive, path, "md5", archive.md5)
    elif archive.pin and pin_file.exists():
        pinned = pin_file.read_text().split()[0]
        _check(
            archive, path, "sha256", pinned, otherwise=f"; to take another one, delete {pin_file}"
        )
    elif archive.pin:
        with replacing(pin_file) as partial:
            partial.write_text(f"{file_digest(path)}  {archive.file}\n")  # as sha256sum -c reads it


def _check(
    archive: Archive, path: Path, algorithm: str, expected: str, *, otherwise: str = ""
) -> None:
    got = file_digest(path, algorithm)
    if got != expected:
        _reject(archive, path, what=algorithm, expected=expected, got=got, otherwise=otherwise)


def _reject(
    archive: Archive, path: Path, *, what: str, expected: str, got: str, otherwise: str = ""
) -> None:
    rejected = path.with_name(archive.file + ".rejected")
    os.replace(path, rejected)
    raise ChecksumError(
        f"{archive.file} from {archive.url} is not the file it should be: "
        f"expected {what} {expected}, got {got}; it was set aside as {rejected}. "
        f"Run again to download it anew{otherwise}"
    )


# --- unpack ---------------------------------------------------------------------------------------

_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    rarfile.Error,
    zlib.error,
    EOFError,
    OSError,
    NotImplementedError,  # zip: a compression that Python cannot read
    RuntimeError,  # zip: encrypted
    ValueError,  # a name with a null byte, an offset before the beginning
)
# These are not the archive's fault: another address would not help, nor a stand-in.
_OF_THE_MACHINE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
)


@dataclass(frozen=True)
class _Member:
    name: str
    offset: int  # about where in the archive's file, for the progress
    regular: bool  # neither folder nor link nor device
    folder: bool
    open: Callable[[], IO[bytes]]


@contextmanager
def _opened(path: Path) -> Iterator[Iterator[_Member]]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield _zip_members(archive)
    elif tarfile.is_tarfile(path):
        with path.open("rb") as file, tarfile.open(fileobj=file) as archive:
            yield _tar_members(archive, file.tell)
    elif rarfile.is_rarfile(path):
        with rarfile.RarFile(path) as archive:
            yield _rar_members(archive)
    else:
        raise UnpackError(f"cannot unpack {path}: not a tar, zip or rar archive")


def _zip_members(archive: zipfile.ZipFile) -> Iterator[_Member]:
    for info in archive.infolist():
        mode = info.external_attr >> 16  # 0 in archives that were not made on Unix
        regular = not info.is_dir() and stat.S_IFMT(mode) in (0, stat.S_IFREG)
        yield _Member(
            name=info.filename,
            offset=info.header_offset,
            regular=regular,
            folder=info.is_dir(),
            open=partial(archive.open, info),
        )


def _tar_members(archive: tarfile.TarFile, position: Callable[[], int]) -> Iterator[_Member]:
    for info in archive:
        yield _Member(
            name=info.name,
            offset=position(),  # what info has is counted in the unpacked bytes
            regular=info.isreg(),
            folder=info.isdir(),
            open=partial(_extracted, archive, info),
        )


def _extracted(archive: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(info)
    if file is None:  # of what is not regular, and no such member is opened
        raise UnpackError(f"cannot unpack {info.name}: it has no content")
    return file


def _rar_members(archive: rarfile.RarFile) -> Iterator[_Member]:
    for info in archive.infolist():
        yield _Member(
            name=info.filename,
            offset=info.header_offset,
            regular=info.is_file(),
            folder=info.is_dir(),
            open=partial(archive.open, info),
        )


def _unpack_members(
    members: Iterator[_Member], folder: Path, *, glob: str, limit: int, archive: Path
) -> None:
    left = limit
    for member in _counted(members, archive):
        path = _safe_path(member.name, archive)
        if member.folder or path.name.startswith(".") or not path.match(glob):
            continue
        if not member.regular:
            raise UnpackError(f"refusing {archive}: {member.name} is a link or a special file")
        target = folder / path.name
        if target.exists():
            raise UnpackError(f"cannot unpack {archive}: two wanted members named {path.name}")
        left -= _copy(member, target, left)
        if left < 0:
            raise UnpackError(
                f"refusing {archive}: it unpacks to more than {limit} bytes, like a zip bomb"
            )
    if not any(folder.iterdir()):
        raise UnpackError(f"cannot unpack {archive}: no member matches {glob}")


def _counted(members: Iterator[_Member], archive: Path) -> Iterator[_Member]:
    """The members, with progress by how much of the archive lies before each."""
    size, passed = _size(archive), 0
    with progress(f"unpacking {archive.name}", total=size, unit=BYTE) as advance:
        for member in members:
            advance(member.offset - passed)
            passed = member.offset
            yield member
        advance(size - passed)


def _safe_path(name: str, archive: Path) -> PurePosixPath:
    path = PurePosixPath(name)
    windows = PureWindowsPath(name)  # also knows drives and backslashes
    if path.is_absolute() or windows.anchor or ".." in windows.parts:
        raise UnpackError(f"refusing {archive}: its member {name} would leave the folder")
    return path


def _copy(member: _Member, target: Path, limit: int) -> int:
    """Copy at most one chunk more than `limit` bytes; return how many bytes were copied."""
    copied = 0
    with closing(member.open()) as source, target.open("xb") as file:
        while copied <= limit and (chunk := source.read(CHUNK)):
            file.write(chunk)
            copied += len(chunk)
    return copied
