import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import tarfile
import threading
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rglib.data.datasets import (
    CATALOGUE,
    LEAKS,
    Dataset,
    DatasetError,
    DatasetUnavailable,
    Photo,
    definition,
    mirror_folders,
    printable,
    resolve,
    resolve_test,
    shown,
    slug,
    without_leaks,
)
from rglib.data.download import Archive
from rglib.data.images import read_image
from rglib.data.manifest import ImageFile, Manifest
from rglib.files import file_digest

EMBEDDED = ("embedded_train", "embedded_validation", "embedded_test")


@pytest.fixture
def offline(tmp_path):
    return {"mirrors": (), "data_dir": tmp_path / "data", "offline": True}


@pytest.fixture
def real_mirrors():
    mirrors = mirror_folders()
    if not any((mirror / "Set5").is_dir() for mirror in mirrors):
        pytest.skip("RGLIB_MIRRORS names no folder with Set5/ in it")
    return mirrors


def write_images(folder, names, seed=0):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for name in names:
        Image.fromarray(rng.integers(0, 256, (16, 24, 3), np.uint8)).save(folder / name)


# --- catalogue ------------------------------------------------------------------------------------


def test_the_papers_training_set_has_8394_images():
    ids = ("div2k_x4", "bsds500_train", "flickr2k_x4", "wed")
    assert sum(CATALOGUE[id].count for id in ids) == 8394


def test_every_archive_can_be_verified():
    for dataset in CATALOGUE.values():
        for archive in dataset.archives:
            assert archive.url.startswith("http")
            assert archive.sha256 or archive.md5 or archive.pin or dataset.file_sha256


def test_definitions_tell_data_sets_apart_and_not_where_they_come_from(monkeypatch):
    assert len({definition(id) for id in CATALOGUE}) == len(CATALOGUE)
    before = definition("set5")
    monkeypatch.setitem(CATALOGUE, "set5", replace(CATALOGUE["set5"], archives=()))
    assert definition("set5") == before
    monkeypatch.setitem(CATALOGUE, "set5", replace(CATALOGUE["set5"], count=6))
    assert definition("set5") != before


def test_unknown_ids_name_the_known_ones(offline):
    with pytest.raises(DatasetError, match=r"'set6'.*set5.*folder:"):
        resolve("set6", **offline)


# --- embedded -------------------------------------------------------------------------------------


def test_embedded_sets_are_disjoint_and_readable(offline):
    photos = [(p.package, p.file) for id in EMBEDDED for p in CATALOGUE[id].embedded]
    assert len(photos) == len(set(photos))
    assert ("skimage", "motorcycle_right.png") not in photos  # the scene of motorcycle_left
    manifests = [resolve(id, **offline) for id in EMBEDDED]
    digests = [image.sha256 for manifest in manifests for image in manifest.images]
    assert len(digests) == len(set(digests)) == len(photos)
    for manifest in manifests:
        for image in manifest.images:
            assert min(read_image(image.path).shape[:2]) >= 128


def test_embedded_test_images_are_cheap_and_cut_from_their_photographs(offline):
    skimage = pytest.importorskip("skimage")
    manifest = resolve("embedded_test", **offline)
    assert [image.name for image in manifest.images] == ["chelsea", "coffee", "grace_hopper"]
    cut = read_image(manifest.images[0].path)
    assert max(cut.shape[:2]) <= 256
    np.testing.assert_array_equal(cut, skimage.data.chelsea()[20:276, 90:346])
    assert resolve("embedded_test", **offline) == manifest


PHOTOS = {"skimage": "coffee.png", "sklearn": "flower.jpg", "matplotlib": "grace_hopper.jpg"}


@pytest.mark.parametrize("missing", ["package", "file"])
@pytest.mark.parametrize("package", PHOTOS)
def test_the_package_that_is_to_be_installed_ships_the_photograph(
    package, missing, offline, tmp_path, monkeypatch
):
    toy = replace(CATALOGUE["embedded_test"], embedded=(Photo(package, PHOTOS[package]),))
    monkeypatch.setitem(CATALOGUE, "embedded_test", toy)
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").touch()
    bare = importlib.util.spec_from_file_location(package, tmp_path / package / "__init__.py")
    there = None if missing == "package" else bare
    with monkeypatch.context() as patched, pytest.raises(DatasetUnavailable) as caught:
        patched.setattr(importlib.util, "find_spec", lambda name: there)
        resolve("embedded_test", **offline)
    ((file, name),) = re.findall(r": pip install -c (\S+) (\S+)$", str(caught.value))
    pinned = (Path(__file__).parents[1] / file).read_text().splitlines()
    assert any(line.startswith(f"{name}==") for line in pinned)
    shipped = [path for path in importlib.metadata.files(name) if path.parts[0] == package]
    assert PHOTOS[package] in {path.name for path in shipped}
    assert [image.path.name for image in resolve("embedded_test", **offline).images]


# --- mirrors --------------------------------------------------------------------------------------


def test_mirrors_of_the_environment_come_first(monkeypatch):
    monkeypatch.setenv("RGLIB_MIRRORS", os.pathsep.join(["/a", "", "/b"]))
    assert mirror_folders(["/c"]) == (Path("/a"), Path("/b"), Path("/c"))
    monkeypatch.delenv("RGLIB_MIRRORS")
    assert mirror_folders(["/c"]) == (Path("/c"),)


def test_set5_from_the_mirror(real_mirrors, tmp_path):
    manifest = resolve("set5", mirrors=real_mirrors, data_dir=tmp_path, offline=True)
    sizes = {image.name: read_image(image.path).shape for image in manifest.images}
    assert sizes == {
        "baby": (512, 512, 3),
        "bird": (288, 288, 3),
        "butterfly": (256, 256, 3),
        "head": (280, 280, 3),
        "woman": (344, 228, 3),
    }
    assert (manifest.title, manifest.origin) == ("Set5", "mirror")
    assert list(tmp_path.iterdir()) == []


def test_a_changed_set5_image_is_refused(real_mirrors, tmp_path):
    manifest = resolve("set5", mirrors=real_mirrors, data_dir=tmp_path, offline=True)
    (tmp_path / "Set5").mkdir()
    for image in manifest.images:
        pixels = read_image(image.path)
        pixels[0, 0, 0] ^= image.name == "bird"
        # another file name and format: it is the pixels that count
        Image.fromarray(pixels).save(tmp_path / "Set5" / f"{image.name}_GT.bmp")
    with pytest.raises(DatasetError, match=r"bird_GT\.bmp"):
        resolve("set5", mirrors=[tmp_path], data_dir=tmp_path / "data", offline=True)
    os.remove(tmp_path / "Set5" / "bird_GT.bmp")
    with pytest.raises(DatasetError, match="4 images instead of 5"):
        resolve("set5", mirrors=[tmp_path], data_dir=tmp_path / "data", offline=True)


def test_bsds500_leaks_are_left_out(real_mirrors, tmp_path):
    if not any((mirror / "BSDS500/train").is_dir() for mirror in real_mirrors):
        pytest.skip("RGLIB_MIRRORS names no folder with BSDS500/train in it")
    literal = resolve("bsds500_train", mirrors=real_mirrors, data_dir=tmp_path, offline=True)
    clean = without_leaks(literal)
    dropped = {i.name for i in literal.images} - {i.name for i in clean.images}
    assert dropped == {"302003", "12003"} == set(LEAKS)
    assert (len(literal.images), len(clean.images)) == (200, 198)
    # a copy in any other folder is known by its bytes
    folder = literal.images[0].path.parent
    copy = resolve(f"folder:{folder}", mirrors=(), data_dir=tmp_path)
    assert len(without_leaks(copy).images) == 198


@pytest.mark.parametrize("layout", ["DIV2K/valid_X4", "DIV2K_valid_LR_bicubic/X4"])
def test_layouts_of_div2k(tmp_path, offline, layout):
    names = [f"{801 + i:04}x4.png" for i in range(100)]
    write_images(tmp_path / "mirror" / layout, [*names, "._0801x4.png"])
    found = resolve("div2k_valid_x4", **offline | {"mirrors": [tmp_path / "mirror"]})
    assert [f"{image.name}.png" for image in found.images] == names


def test_a_mirror_without_the_folder_is_passed_over(tmp_path, offline):
    write_images(tmp_path / "second" / "photos" / "clic", ["1.png"])
    mirrors = [tmp_path / "nowhere", tmp_path, tmp_path / "second"]
    assert resolve("photos_clic", **offline | {"mirrors": mirrors}).images[0].name == "1"


def test_a_mirror_with_the_wrong_count_is_an_error(tmp_path, offline):
    write_images(tmp_path / "Set5", ["1.png", "2.png"])
    with pytest.raises(DatasetError, match=f"{tmp_path}.*2 images instead of 5"):
        resolve("set5", **offline | {"mirrors": [tmp_path]})


@pytest.mark.parametrize("name", ["a\nb", "\udcff", "x" * 230], ids=range(3))
def test_an_image_of_a_mirror_that_nothing_can_be_named_after_is_refused(tmp_path, offline, name):
    write_images(tmp_path / "photos/clic", [f"{name}.png"])
    with pytest.raises(DatasetError, match=r"its name .*; rename it"):
        resolve("photos_clic", **offline | {"mirrors": [tmp_path]})


def test_an_empty_folder_is_an_error(tmp_path, offline):
    (tmp_path / "Set5").mkdir()
    with pytest.raises(DatasetError, match="has no images"):
        resolve("set5", **offline | {"mirrors": [tmp_path]})


def test_out_of_reach_says_what_was_tried_and_what_to_do(tmp_path, offline):
    with pytest.raises(DatasetUnavailable) as caught:
        resolve("set5", **offline | {"mirrors": [tmp_path / "nowhere"]})
    message = str(caught.value)
    url = CATALOGUE["set5"].archives[0].url
    for part in ("set5", str(tmp_path / "nowhere"), "RGLIB_MIRRORS", "Set5/*.png", url):
        assert part in message


def test_mirror_only_sets_say_that_there_is_no_address(offline):
    with pytest.raises(DatasetUnavailable, match="no public address"):
        resolve("photos_clic", **offline)


# --- folders --------------------------------------------------------------------------------------


def test_any_folder(tmp_path, offline):
    write_images(tmp_path / "mein Ordner ü", ["b é.png", "a.JPG", ".hidden.png"])
    (tmp_path / "mein Ordner ü" / "notes.txt").write_text("no image")
    manifest = resolve(f"folder:{tmp_path / 'mein Ordner ü'}", **offline)
    assert [image.name for image in manifest.images] == ["a", "b é"]
    assert (manifest.title, manifest.origin) == ("mein Ordner ü", "folder")
    manifest.write(tmp_path / "m.json")
    assert Manifest.read(tmp_path / "m.json") == manifest


def test_folder_mistakes(tmp_path, offline):
    with pytest.raises(DatasetError, match="no folder"):
        resolve(f"folder:{tmp_path / 'typo'}", **offline)
    with pytest.raises(DatasetError, match=r"no \.png"):
        resolve(f"folder:{tmp_path}", **offline)
    write_images(tmp_path / "twice", ["a.png", "a.bmp"])
    with pytest.raises(DatasetError, match="share a name"):
        resolve(f"folder:{tmp_path / 'twice'}", **offline)


ODD = {
    "text.png": "cannot read",
    "cut.png": "cannot read",
    "deep.png": "16 bits",
    "glass.png": "transparent",
    "a\nb.png": "cannot be printed",
    "\udcff.png": "cannot be printed",
    f"{'x' * 230}.png": "too long",
    "folder.png": "it is no file",
    "pipe.png": "it is no file",
    "circle.png": "Too many levels",
    "dangling.png": "No such file",
}


def write_odd(folder, name):
    path, plain = folder / name, Image.new("RGB", (40, 40), "red")
    if name == "folder.png":
        path.mkdir()
    elif name == "pipe.png":
        os.mkfifo(path)
    elif name == "circle.png":
        path.symlink_to(path)
    elif name == "dangling.png":
        path.symlink_to(folder / "gone.png")
    elif name == "text.png":
        path.write_text("no image")
    elif name == "deep.png":
        Image.fromarray(np.full((40, 40), 40_000, np.uint16)).save(path)
    elif name == "glass.png":
        Image.new("RGBA", (40, 40), (1, 2, 3, 4)).save(path)
    else:
        plain.save(path)
        if name == "cut.png":
            path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize("name", ODD, ids=range(len(ODD)))
def test_an_odd_file_in_a_folder_costs_that_file_alone(tmp_path, offline, caplog, name):
    write_images(tmp_path / "mine", ["a.png", "b.png"])
    write_odd(tmp_path / "mine", name)
    manifest = resolve(f"folder:{tmp_path / 'mine'}", **offline)
    assert [image.name for image in manifest.images] == ["a", "b"]
    (left,) = manifest.left_out
    assert left.file == shown(name) and ODD[name] in left.why
    assert shown(name) in caplog.text and printable(caplog.text.replace("\n", ""))
    manifest.write(tmp_path / "m.json")
    assert Manifest.read(tmp_path / "m.json") == manifest


def test_a_folder_of_odd_files_alone_is_refused_and_says_why(tmp_path, offline):
    (tmp_path / "mine").mkdir()
    write_odd(tmp_path / "mine", "text.png")
    with pytest.raises(DatasetError, match=r"no \.png.*left out: cannot read the image"):
        resolve(f"folder:{tmp_path / 'mine'}", **offline)


@pytest.mark.parametrize("name", ["é", "a b", "図", "Screenshot 1.00\u202fPM", "-x", "{method}"])
def test_names_of_all_languages_are_no_oddity(tmp_path, offline, name):
    write_images(tmp_path / "mine", [f"{name}.png"])
    manifest = resolve(f"folder:{tmp_path / 'mine'}", **offline)
    assert ([image.name for image in manifest.images], manifest.left_out) == ([name], ())


def test_what_lies_in_the_project_is_listed_from_there(tmp_path, offline, monkeypatch):
    write_images(tmp_path / "project/mine", ["a.png"])
    monkeypatch.chdir(tmp_path / "project")
    for id in ("folder:mine", f"folder:{tmp_path}/project/mine"):
        assert resolve(id, **offline).images[0].path == Path("mine/a.png")
    monkeypatch.chdir(tmp_path)
    outside = resolve(f"folder:{tmp_path}/project/../project/mine", **offline)
    assert outside.images[0].path.is_file()


def test_slugs_are_file_names():
    assert slug("set5") == "set5"
    paths = ("/x/a b", "/y/a b", "/y/a_b/", "../é", f"/{'図' * 80}")
    slugs = {slug(f"folder:{path}") for path in paths}
    assert len(slugs) == 5 and max(len(os.fsencode(slug)) for slug in slugs) < 200
    assert not any(set(s) & set("/: ") for s in slugs)


# --- downloads ------------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder served on 127.0.0.1, its address, and the paths that were asked for."""
    folder, asked = tmp_path / "served", []
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_request(self, *args):
            asked.append(self.path)

        def log_message(self, *args):
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    http = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{http.server_port}", asked
    http.shutdown()
    http.server_close()
    thread.join()


def toy(served, monkeypatch, archives, **fields):
    folder, url, _ = served
    for name, names in archives.items():
        write_images(folder / f"{name}_files", names)
        with tarfile.open(folder / name, "w:gz") as archive:
            archive.add(folder / f"{name}_files", "Toy/images")
    dataset = Dataset(
        id="toy",
        title="Toy",
        layouts=("Toy/*.png",),
        count=2,
        members="images/*.png",
        archives=tuple(Archive(f"{url}/{name}", name) for name in ("gone.tgz", *archives)),
        **fields,
    )
    monkeypatch.setitem(CATALOGUE, "toy", dataset)


def test_addresses_are_tried_in_order_and_the_copy_is_kept(served, monkeypatch, tmp_path):
    toy(served, monkeypatch, {"few.tgz": ["a.png"], "good.tgz": ["a.png", "b.png"]})
    places = {"mirrors": (), "data_dir": tmp_path / "data"}
    manifest = resolve("toy", **places)
    assert served[2] == ["/gone.tgz", "/few.tgz", "/good.tgz"]
    assert [image.name for image in manifest.images] == ["a", "b"]
    assert manifest.origin == "download"
    assert resolve("toy", **places, offline=True) == manifest
    # what was downloaded has the layout of a mirror
    mirrored = resolve("toy", mirrors=[tmp_path / "data"], data_dir=tmp_path / "other")
    assert mirrored == replace(manifest, origin="mirror")
    assert mirrored.digest() == manifest.digest()


def test_an_archive_put_there_by_hand_is_used(served, monkeypatch, tmp_path):
    toy(served, monkeypatch, {"good.tgz": ["a.png", "b.png"]})
    (tmp_path / "data" / "archives").mkdir(parents=True)
    (served[0] / "good.tgz").rename(tmp_path / "data" / "archives" / "good.tgz")
    assert len(resolve("toy", mirrors=(), data_dir=tmp_path / "data", offline=True).images) == 2
    assert served[2] == []


def test_each_thing_to_do_about_a_data_set_out_of_reach_works(served, monkeypatch, tmp_path):
    toy(served, monkeypatch, {"good.tgz": ["a.png", "b.png"]})
    offline = {"data_dir": tmp_path / "data", "offline": True}
    with pytest.raises(DatasetUnavailable) as caught:
        resolve("toy", mirrors=(), **offline)
    by_hand = dict(re.findall(r"- download (\S+) by hand to (\S+)", str(caught.value)))
    (layout,) = re.findall(r"have its images as (\S+) under a folder", str(caught.value))
    folder = tmp_path / "mirror" / Path(layout).parent
    write_images(folder, ["a.png", "b.png"])
    monkeypatch.setenv("RGLIB_MIRRORS", str(tmp_path / "mirror"))
    assert resolve("toy", mirrors=mirror_folders(), **offline).origin == "mirror"
    path = Path(by_hand[f"{served[1]}/good.tgz"])
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(served[0] / "good.tgz", path)
    assert resolve("toy", mirrors=(), **offline).origin == "download"


@pytest.mark.parametrize("what", ["incomplete", "another", "unnamable"])
def test_what_is_wrong_in_a_mirror_is_mended_as_its_message_says(
    served, monkeypatch, tmp_path, what
):
    write_images(tmp_path / "right", ["a.png", "b.png"])
    pins = {name: file_digest(tmp_path / f"right/{name}.png") for name in "ab"}
    pins = {"file_sha256": pins} if what == "another" else {}
    toy(served, monkeypatch, {"good.tgz": ["a.png", "b.png"]}, **pins)
    mirror, places = tmp_path / "mirror/Toy", {"data_dir": tmp_path / "data"}
    write_images(mirror, ["a.png"] if what == "incomplete" else ["a.png", "b\n.png"])
    if what == "another":
        (mirror / "b\n.png").rename(mirror / "b.png")
        (mirror / "b.png").write_bytes((mirror / "a.png").read_bytes() + b"more")
    with pytest.raises(DatasetError) as caught:
        resolve("toy", mirrors=[mirror.parent], **places)
    said = str(caught.value)
    if what == "unnamable":
        assert said.endswith("; rename it")
        (mirror / "b\n.png").rename(mirror / "b.png")
        assert resolve("toy", mirrors=[mirror.parent], **places).origin == "mirror"
        return
    assert "take it away to use another" in said or "take its folder away to use another" in said
    shutil.move(mirror, tmp_path / "away")
    if what == "incomplete":
        assert resolve("toy", mirrors=[mirror.parent], **places).origin == "download"


def test_a_download_with_the_wrong_content_is_not_kept(served, monkeypatch, tmp_path):
    toy(served, monkeypatch, {"bad.tgz": ["a.png", "b.png"]}, file_sha256={"a": "0" * 64})
    with pytest.raises(DatasetUnavailable, match=r"gone\.tgz.*404(.|\n)*is not an image of this"):
        resolve("toy", mirrors=(), data_dir=tmp_path / "data")
    assert not (tmp_path / "data" / "Toy").exists()


# --- the test set's stand-in ----------------------------------------------------------------------


def test_the_stand_in_is_loud_and_named(offline, caplog):
    manifest = resolve_test("set5", stand_in="embedded_test", **offline)
    assert manifest.dataset == "embedded_test"
    assert manifest.stand_in_for == "Set5"
    assert "THE TEST SET Set5 IS OUT OF REACH" in caplog.text
    assert manifest.title in caplog.text
    assert caplog.text.count("\n!!") >= 5


def test_without_a_stand_in_it_stops(offline):
    with pytest.raises(DatasetUnavailable):
        resolve_test("set5", stand_in=None, **offline)


def test_a_damaged_test_set_is_never_replaced(tmp_path, offline):
    write_images(tmp_path / "Set5", ["1.png"])
    with pytest.raises(DatasetError):
        resolve_test("set5", stand_in="embedded_test", **offline | {"mirrors": [tmp_path]})


def test_a_test_set_within_reach_is_no_stand_in(real_mirrors, tmp_path, caplog):
    manifest = resolve_test(
        "set5", stand_in="embedded_test", mirrors=real_mirrors, data_dir=tmp_path
    )
    assert (manifest.dataset, manifest.stand_in_for, caplog.text) == ("set5", None, "")


# --- manifests ------------------------------------------------------------------------------------


def test_digest_is_over_the_content_only(tmp_path):
    image = ImageFile("a", Path("/x/a.png"), "1" * 64)
    manifest = Manifest("set", "Set", "mirror", (image,))
    elsewhere = replace(manifest, origin="download", images=(replace(image, path=Path("/y")),))
    assert manifest.digest() == elsewhere.digest()
    for changed in (
        replace(manifest, dataset="other"),
        replace(manifest, images=(replace(image, name="b"),)),
        replace(manifest, images=(replace(image, sha256="2" * 64),)),
    ):
        assert changed.digest() != manifest.digest()


def test_checksums_are_those_of_the_files(offline):
    for image in resolve("embedded_validation", **offline).images:
        assert hashlib.sha256(image.path.read_bytes()).hexdigest() == image.sha256


def test_a_manifest_whose_files_are_gone(tmp_path, offline):
    manifest = resolve("embedded_test", **offline)
    manifest.write(tmp_path / "m.json")
    manifest.images[1].path.unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of the 3.*coffee\.png: bring them back"):
        Manifest.read(tmp_path / "m.json")


def test_manifests_are_plain_json(tmp_path, offline):
    manifest = resolve("embedded_validation", **offline)
    manifest.write(tmp_path / "deep" / "m.json")
    fields = json.loads((tmp_path / "deep" / "m.json").read_text())
    assert fields["dataset"] == "embedded_validation"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["m.json"]
