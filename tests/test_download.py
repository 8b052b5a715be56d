import errno
import hashlib
import io
import os
import re
import shutil
import stat
import struct
import tarfile
import threading
import time
import zipfile
import zlib
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import killing
import numpy as np
import pytest
import rarfile

from rglib.data.download import (
    Archive,
    ChecksumError,
    DownloadError,
    UnpackError,
    download,
    unpack,
)

CONTENT = bytes(range(256)) * 4000


@dataclass
class Server:
    """What the server on 127.0.0.1 does, and what it was asked."""

    content: bytes = CONTENT
    ranges: bool = True
    statuses: list[int] = field(default_factory=list)  # answered first, one per request
    cut_after: list[int] = field(default_factory=list)  # break the connection after so many bytes
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[str | None] = field(default_factory=list)  # the Range header of each request
    pause: float = 0.0  # between pieces of a twentieth, in seconds
    url: str = ""

    def answer(self, handler):
        wanted = handler.headers.get("Range")
        self.asked.append(wanted)
        if self.statuses:
            handler.send_response(self.statuses.pop(0))
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        total = len(self.content)
        if start >= total:
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{total}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206 if wanted and self.ranges else 200)
        if wanted and self.ranges:
            handler.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        handler.send_header("Content-Length", str(total - start))
        for name, value in self.headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        end = start + self.cut_after.pop(0) if self.cut_after else total
        for first in range(start, end, total // 20):
            handler.wfile.write(self.content[first : min(end, first + total // 20)])
            time.sleep(self.pause)
        handler.close_connection = True


@pytest.fixture
def server():
    behaviour = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            behaviour.answer(self)

        def log_message(self, *args):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.handle_error = lambda *args: None  # clients that hang up are part of the tests
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    behaviour.url = f"http://127.0.0.1:{http.server_port}/data.bin"
    yield behaviour
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def archive_of(server):
    return Archive(server.url, "data.bin", sha256=hashlib.sha256(CONTENT).hexdigest())


def test_downloads_and_leaves_no_part(server, tmp_path):
    path = download(archive_of(server), tmp_path / "new")
    assert path.read_bytes() == CONTENT
    assert {p.name for p in path.parent.iterdir()} <= {"data.bin", "data.bin.lock"}


def test_progress_counts_the_bytes_with_those_that_were_there(server, tmp_path, told):
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:24_000])
    server.pause = 0.01
    download(archive_of(server), tmp_path)
    assert told()[-1].startswith("data.bin: byte 1.02M of 1.02M, ")
    assert len(CONTENT) == 1_024_000


def test_a_verified_file_is_not_fetched_again(server, tmp_path):
    download(archive_of(server), tmp_path)
    download(archive_of(server), tmp_path)
    assert len(server.asked) == 1


def test_a_partial_download_is_resumed(server, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:1000])
    assert download(archive_of(server), tmp_path).read_bytes() == CONTENT
    assert server.asked == ["bytes=1000-"]


def test_a_server_without_ranges_is_started_over(server, tmp_path):
    server.ranges = False
    (tmp_path / "data.bin.part").write_bytes(b"something else altogether")
    assert download(archive_of(server), tmp_path).read_bytes() == CONTENT


def test_a_complete_part_only_needs_its_checksum(server, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(CONTENT)
    assert download(archive_of(server), tmp_path).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("size_known", [True, False])
def test_a_part_that_is_too_long_is_thrown_away(server, tmp_path, size_known):
    (tmp_path / "data.bin.part").write_bytes(CONTENT + b"more")
    archive = replace(archive_of(server), bytes=len(CONTENT) if size_known else None)
    assert download(archive, tmp_path, pause=0).read_bytes() == CONTENT


def test_broken_connections_are_resumed_as_long_as_bytes_come(server, tmp_path):
    server.cut_after = [100_000] * 8  # more often than `retries`
    assert download(archive_of(server), tmp_path, retries=1, pause=0).read_bytes() == CONTENT
    assert server.asked[:3] == [None, "bytes=100000-", "bytes=200000-"]


def test_a_killed_download_keeps_its_part(server, tmp_path):
    server.cut_after = [100_000, 0, 0]
    with pytest.raises(DownloadError, match=r"data\.bin"):
        download(archive_of(server), tmp_path, retries=1, pause=0)
    assert (tmp_path / "data.bin.part").read_bytes() == CONTENT[:100_000]
    assert not (tmp_path / "data.bin").exists()
    assert download(archive_of(server), tmp_path).read_bytes() == CONTENT


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.statuses = [503, 429]
    assert download(archive_of(server), tmp_path, pause=0).read_bytes() == CONTENT


def test_a_missing_file_is_not_asked_for_again(server, tmp_path):
    server.statuses = [404]
    with pytest.raises(DownloadError, match=f"{server.url}.*404"):
        download(archive_of(server), tmp_path, pause=0)
    assert len(server.asked) == 1


def test_no_server(tmp_path):
    archive = Archive("http://127.0.0.1:9/data.bin", "data.bin")
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1"):
        download(archive, tmp_path, retries=1, pause=0)


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_a_wrong_checksum_names_expected_and_got(server, tmp_path, algorithm):
    got = hashlib.new(algorithm, CONTENT).hexdigest()
    archive = Archive(server.url, "data.bin", **{algorithm: "0" * len(got)})
    with pytest.raises(ChecksumError, match=f"data.bin.*{'0' * len(got)}.*{got}"):
        download(archive, tmp_path)
    assert not (tmp_path / "data.bin").exists()
    assert (tmp_path / "data.bin.rejected").exists()


def test_a_wrong_size_is_seen_before_the_download(server, tmp_path):
    with pytest.raises(DownloadError, match=f"expected 7 bytes.*{len(CONTENT)}"):
        download(Archive(server.url, "data.bin", bytes=7), tmp_path)


def test_the_first_download_is_pinned(server, tmp_path):
    archive = Archive(server.url, "data.bin")
    path = download(archive, tmp_path)
    pin = (tmp_path / "data.bin.sha256").read_text()
    assert pin == f"{hashlib.sha256(CONTENT).hexdigest()}  data.bin\n"
    path.unlink()
    server.content = CONTENT[::-1]
    with pytest.raises(ChecksumError, match=pin.split()[0]):
        download(archive, tmp_path)


def test_remedies_of_a_wrong_file_work_as_typed(server, tmp_path):
    server.content, right = CONTENT[::-1], server.content
    with pytest.raises(ChecksumError, match=r"Run again to download it anew$"):
        download(archive_of(server), tmp_path)
    server.content = right
    assert download(archive_of(server), tmp_path).read_bytes() == CONTENT


def test_a_file_that_its_server_changed_is_taken_as_its_message_says(server, tmp_path):
    archive = Archive(server.url, "data.bin")
    download(archive, tmp_path).unlink()
    server.content = CONTENT[::-1]
    for _ in range(2):  # running again is not enough
        with pytest.raises(ChecksumError) as caught:
            download(archive, tmp_path)
    (pin,) = re.findall(r"; to take another one, delete (\S+)$", str(caught.value))
    Path(pin).unlink()
    assert download(archive, tmp_path).read_bytes() == CONTENT[::-1]


def test_a_generated_archive_is_not_pinned(server, tmp_path):
    download(Archive(server.url, "data.bin", pin=False), tmp_path)
    assert not (tmp_path / "data.bin.sha256").exists()


def test_a_web_page_is_never_pinned(server, tmp_path):
    server.headers = {"Content-Type": "text/html; charset=utf-8"}
    with pytest.raises(DownloadError, match="web page"):
        download(Archive(server.url, "data.bin"), tmp_path)
    assert not (tmp_path / "data.bin.sha256").exists()


def test_a_gzip_label_does_not_unpack_the_file(server, tmp_path):
    server.headers = {"Content-Encoding": "gzip"}
    assert download(archive_of(server), tmp_path).read_bytes() == CONTENT


def test_two_at_once_fetch_once(server, tmp_path):
    threads = [
        threading.Thread(target=download, args=(archive_of(server), tmp_path)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_a_full_disk_names_the_file_and_keeps_what_came(server, tmp_path, full_disk):
    with full_disk(500_000), pytest.raises(OSError, match=r"data\.bin\.part") as caught:
        download(archive_of(server), tmp_path, pause=0)
    assert caught.value.errno == errno.EFBIG
    assert (tmp_path / "data.bin.part").read_bytes() == CONTENT[:500_000]
    assert not (tmp_path / "data.bin").exists()
    assert download(archive_of(server), tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=500000-"]


def moved_away(path):
    """In one step: a kill must not leave half of it."""
    if path.exists():
        path.rename(path.with_name(f"{path.name}.{time.monotonic_ns()}"))


def fetch(folder):
    moved_away(folder / "data.bin")
    url = (folder.parent / "url").read_text()
    download(Archive(url, "data.bin", sha256=hashlib.sha256(10 * CONTENT).hexdigest()), folder)


def a_download_is_whole_or_none(folder):
    path = folder / "data.bin"
    assert not path.exists() or path.read_bytes() == 10 * CONTENT


def part(folder):
    path = folder / "data.bin.part"
    return path.stat().st_size if path.exists() else 0


@pytest.mark.slow
def test_a_download_killed_at_any_moment_is_never_taken_for_a_whole_one(server, tmp_path):
    server.content, server.pause = 10 * CONTENT, 0.01
    (tmp_path / "url").write_text(server.url)
    killing.at_random_moments(
        fetch, tmp_path, kills=20, share=0.3, check=a_download_is_whole_or_none, progress=part
    )
    assert (tmp_path / "killed" / "data.bin").exists()
    assert len([asked for asked in server.asked if asked]) > 5  # resumed


# --- unpack ---------------------------------------------------------------------------------------

FILES = {
    "Set/readme.txt": b"read me",
    "Set/images/a.png": b"a" * 3000,
    "Set/images/b.png": b"",
    "Set/images/._a.png": b"hidden",
    "Set/other/a.png": b"not wanted",
}


def make_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def make_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def make_rar(path, files, method=0x30):
    """Write a RAR 3 archive of stored files, after the published format."""

    def block(kind, flags, body, content=b""):
        head = struct.pack("<BHH", kind, flags, 7 + len(body)) + body
        return struct.pack("<H", zlib.crc32(head) & 0xFFFF) + head + content

    with path.open("wb") as archive:
        archive.write(b"Rar!\x1a\x07\x00" + block(0x73, 0, bytes(6)))
        for name, content in files.items():
            raw = name.encode()
            size, crc = len(content), zlib.crc32(content)
            body = struct.pack(
                "<LLBLLBBHL", size, size, 3, crc, 0x21 << 16, 20, method, len(raw), 0o100644
            )
            archive.write(block(0x74, 0x8000, body + raw, content))
        archive.write(block(0x7B, 0x4000, b""))


MAKERS = {
    "tar": make_tar,
    "tgz": lambda path, files: make_tar(path, files, "w:gz"),
    "zip": make_zip,
    "rar": make_rar,
}


@pytest.fixture(params=MAKERS)
def make(request, tmp_path):
    def build(files):
        path = tmp_path / f"archive.{request.param}"
        MAKERS[request.param](path, files)
        return path

    return build


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_progress_counts_how_much_of_the_archive_is_read(make, tmp_path, told):
    noise = np.random.default_rng(0).integers(0, 256, (10, 40_000), np.uint8)  # hardly compresses
    archive = make({f"Set/images/{n}.png": row.tobytes() for n, row in enumerate(noise)})
    unpack(archive, tmp_path / "set", members="*.png")
    read = [re.match(rf"unpacking {archive.name}: byte (\S+)k of ", line)[1] for line in told()[1:]]
    assert len(read) == 10 and read == sorted(read, key=float)
    assert float(read[-1]) == pytest.approx(archive.stat().st_size / 1000, rel=0.01)
    assert float(read[5]) == pytest.approx(float(read[-1]) * 6 / 10, rel=0.15)


def test_unpacks_only_what_is_wanted(make, tmp_path):
    into = unpack(make(FILES), tmp_path / "data" / "set", members="images/*.png")
    assert names(into) == ["a.png", "b.png"]
    assert (into / "a.png").read_bytes() == b"a" * 3000
    assert names(into.parent) == ["set"]


@pytest.mark.parametrize("name", ["../evil.png", "images/../../evil.png", "/tmp/evil.png"])
def test_refuses_to_leave_the_folder(make, tmp_path, name):
    path = make({"images/good.png": b"good", name: b"evil"})
    with pytest.raises(UnpackError, match=r"evil\.png"):
        unpack(path, tmp_path / "set", members="*.png")
    assert names(tmp_path) == [path.name]


def test_refuses_backslashes_and_drives(tmp_path):
    for name in ("..\\evil.png", "C:\\evil.png", "C:evil.png"):
        make_tar(tmp_path / "a.tar", {name: b"evil"})
        with pytest.raises(UnpackError, match="leave the folder"):
            unpack(tmp_path / "a.tar", tmp_path / "set", members="*.png")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_refuses_links_and_devices_in_tar(tmp_path, kind):
    member = tarfile.TarInfo("images/link.png")
    member.type, member.linkname = kind, "/etc/passwd"
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(member)
    with pytest.raises(UnpackError, match=r"link\.png is a link"):
        unpack(tmp_path / "a.tar", tmp_path / "set", members="*.png")
    assert not (tmp_path / "set").exists()


def test_refuses_links_in_zip(tmp_path):
    info = zipfile.ZipInfo("images/link.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(UnpackError, match=r"link\.png is a link"):
        unpack(tmp_path / "a.zip", tmp_path / "set", members="*.png")


@pytest.mark.parametrize("kind", ["tgz", "zip"])
def test_refuses_a_bomb(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    MAKERS[kind](path, {"images/bomb.png": bytes(20_000_000)})
    with pytest.raises(UnpackError, match="bomb"):
        unpack(path, tmp_path / "set", members="*.png")
    assert names(tmp_path) == [path.name]


def test_refuses_more_than_the_limit_in_all(make, tmp_path):
    path = make({f"images/{i}.png": os.urandom(1000) for i in range(5)})
    with pytest.raises(UnpackError, match="4000 bytes"):
        unpack(path, tmp_path / "set", members="*.png", max_bytes=4000)
    unpack(path, tmp_path / "set", members="*.png", max_bytes=5000)


def test_refuses_two_files_of_one_name(make, tmp_path):
    with pytest.raises(UnpackError, match=r"two wanted members named a\.png"):
        unpack(make(FILES), tmp_path / "set", members="*.png")


def test_says_when_nothing_matches(make, tmp_path):
    with pytest.raises(UnpackError, match=r"no member matches \*\.bmp"):
        unpack(make(FILES), tmp_path / "set", members="*.bmp")


def test_says_when_it_is_no_archive(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"<html>")
    with pytest.raises(UnpackError, match="not a tar, zip or rar archive"):
        unpack(tmp_path / "a.zip", tmp_path / "set", members="*")


def test_a_truncated_archive_leaves_nothing(tmp_path):
    path = tmp_path / "a.tgz"
    make_tar(path, {f"images/{i}.png": os.urandom(50_000) for i in range(5)}, "w:gz")
    path.write_bytes(path.read_bytes()[:150_000])
    with pytest.raises(UnpackError, match=r"a\.tgz"):
        unpack(path, tmp_path / "set", members="*.png")
    assert names(tmp_path) == ["a.tgz"]


def test_a_full_disk_is_no_fault_of_the_archive(make, tmp_path, full_disk):
    path = make({f"images/{i}.png": os.urandom(300_000) for i in range(3)})
    with full_disk(200_000), pytest.raises(OSError, match="set'") as caught:
        unpack(path, tmp_path / "set", members="*.png")
    assert caught.value.errno == errno.EFBIG
    assert names(tmp_path) == [path.name]
    unpack(path, tmp_path / "set", members="*.png")


def test_a_name_that_no_file_can_have_is_refused(tmp_path):
    make_tar(tmp_path / "a.tar", {"images/\u00fc\0.png": b"evil"})
    with pytest.raises(UnpackError, match=r"a\.tar.*null"):
        unpack(tmp_path / "a.tar", tmp_path / "set", members="*.png")
    assert names(tmp_path) == ["a.tar"]


def unpack_in(folder):
    folder.mkdir(exist_ok=True)
    moved_away(folder / "set")
    unpack(folder.parent / "a.tgz", folder / "set", members="images/*.png")


def unpacked_is_whole_or_none(folder):
    if (folder / "set").exists():
        sizes = {path.name: path.stat().st_size for path in (folder / "set").iterdir()}
        assert sizes == {f"{i}.png": 100_000 for i in range(30)}


@pytest.mark.slow
def test_unpacking_killed_at_any_moment_is_never_taken_for_whole(tmp_path):
    files = {f"images/{i}.png": os.urandom(100_000) for i in range(30)}
    make_tar(tmp_path / "a.tgz", files, "w:gz")
    killing.at_random_moments(
        unpack_in, tmp_path, kills=20, share=1.0, check=unpacked_is_whole_or_none
    )
    assert not list((tmp_path / "killed").glob(".*"))


def test_what_a_killed_run_left_is_cleared(make, tmp_path):
    left = tmp_path / ".set.partial"
    left.mkdir()
    (left / "half.png").write_bytes(b"half")
    into = unpack(make(FILES), tmp_path / "set", members="images/*.png")
    assert names(into) == ["a.png", "b.png"]
    assert not left.exists()


def test_never_writes_into_a_folder_that_is_there(make, tmp_path):
    (tmp_path / "set").mkdir()
    with pytest.raises(UnpackError, match="already exists"):
        unpack(make(FILES), tmp_path / "set", members="*.png")


def test_rar_without_a_tool_says_what_to_install(tmp_path, monkeypatch):
    make_rar(tmp_path / "a.rar", {"images/a.bmp": b"compressed"}, method=0x33)

    def no_tool(*args, **kwargs):
        raise rarfile.RarCannotExec("Cannot find working tool")

    monkeypatch.setattr(rarfile, "tool_setup", no_tool)
    with pytest.raises(UnpackError, match="unrar, unar or bsdtar"):
        unpack(tmp_path / "a.rar", tmp_path / "set", members="*.bmp")


@pytest.mark.parametrize("tool", ["unrar", "unar", "bsdtar"])
def test_each_tool_that_is_named_for_rar_is_found(tmp_path, monkeypatch, tool):
    """With a program of that name alone; that it unpacks is its own matter."""
    make_rar(tmp_path / "a.rar", {"images/a.bmp": b"compressed"}, method=0x33)
    monkeypatch.setattr(rarfile, "CURRENT_SETUP", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnpackError) as caught:
        unpack(tmp_path / "a.rar", tmp_path / "set", members="*.bmp")
    assert tool in str(caught.value).split("install one of")[1]
    program = tmp_path / tool
    program.write_text(f"#!{shutil.which('sh', path=os.defpath)}\nprintf compressed\n")
    program.chmod(0o755)
    into = unpack(tmp_path / "a.rar", tmp_path / "set", members="*.bmp")
    assert (into / "a.bmp").read_bytes() == b"compressed"
