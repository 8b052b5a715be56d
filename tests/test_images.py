import hashlib
import json
import pickle
import struct
import time
import zlib
from collections import Counter
from dataclasses import replace
from functools import partial

import killing
import numpy as np
import pytest
import tifffile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from rglib.core.tensors import to_tensor, to_uint8
from rglib.data.images import (
    CropSampler,
    ImageError,
    PatchStore,
    build_store,
    read_image,
    write_png,
)
from rglib.data.manifest import ImageFile, Manifest
from rglib.files import replacing


def noise(height, width, seed=0, channels=3):
    shape = (height, width, channels) if channels else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


# --- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.png", "b.bmp", "with space ünï.png", "c.tif"])
def test_reads_rgb(tmp_path, name):
    Image.fromarray(noise(7, 5)).save(tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, noise(7, 5))
    image[0] = 0  # the caller's own


def test_grey_becomes_rgb(tmp_path):
    grey = noise(7, 5, channels=0)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    expected = np.stack([grey] * 3, axis=-1)
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), expected)


def test_palette_becomes_rgb(tmp_path):
    image = Image.fromarray(noise(1, 1).repeat(8, axis=0)).convert("P", palette=Image.ADAPTIVE)
    image.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_image(tmp_path / "p.png"), noise(1, 1).repeat(8, axis=0))


def test_opaque_alpha_is_dropped_and_transparency_refused(tmp_path):
    rgba = np.concatenate([noise(7, 5), np.full((7, 5, 1), 255, np.uint8)], axis=-1)
    Image.fromarray(rgba).save(tmp_path / "opaque.png")
    np.testing.assert_array_equal(read_image(tmp_path / "opaque.png"), noise(7, 5))
    rgba[3, 2, 3] = 254
    Image.fromarray(rgba).save(tmp_path / "glass.png")
    with pytest.raises(ImageError, match=r"glass\.png.*transparent"):
        read_image(tmp_path / "glass.png")


def test_a_transparent_palette_entry_is_refused(tmp_path):
    image = Image.new("P", (4, 4))
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.putpixel((0, 0), 1)
    image.save(tmp_path / "p.png", transparency=1)
    with pytest.raises(ImageError, match="transparent"):
        read_image(tmp_path / "p.png")


def test_sixteen_bits_are_refused(tmp_path):
    deep = noise(4, 4, channels=0).astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "grey16.png")
    with pytest.raises(ImageError, match=r"grey16\.png.*16 bits"):
        read_image(tmp_path / "grey16.png")


def test_sixteen_bit_colour_is_not_cut_to_eight_in_silence(tmp_path):
    # Pillow cannot write such a file: a PNG by hand
    def chunk(kind, body):
        return (
            struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))
        )

    row = b"\x00" + struct.pack(">6H", 1000, 2000, 3000, 40000, 50000, 60000)
    (tmp_path / "rgb16.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">LLBBBBB", 2, 1, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(row))
        + chunk(b"IEND", b"")
    )
    with pytest.raises(ImageError, match=r"rgb16\.png.*16 bits"):
        read_image(tmp_path / "rgb16.png")


def test_floats_and_several_pictures_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "float.tif", np.zeros((8, 8, 3), np.float32), photometric="rgb")
    with pytest.raises(ImageError, match=r"float\.tif: it has floats; convert it to 8-bit RGB"):
        read_image(tmp_path / "float.tif")
    tifffile.imwrite(tmp_path / "pages.tif", np.zeros((2, 8, 8, 3), np.uint8), photometric="rgb")
    with pytest.raises(ImageError, match=r"pages\.tif: it holds 2 pictures"):
        read_image(tmp_path / "pages.tif")


def test_planes_of_a_tiff_are_put_together(tmp_path):
    pixels = noise(7, 5)
    planes = pixels.transpose(2, 0, 1)
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), pixels)


def test_cmyk_is_refused(tmp_path):
    Image.new("CMYK", (8, 8)).save(tmp_path / "print.jpg")
    with pytest.raises(ImageError, match=r"print\.jpg.*CMYK"):
        read_image(tmp_path / "print.jpg")


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_exif_orientation_is_honoured(tmp_path, mode, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rows run from top to bottom at the right
    image = Image.new(mode, (16, 8), "white")
    image.paste("black", (0, 0, 8, 8))  # stored: the left half is black
    image.save(tmp_path / f"turned.{suffix}", exif=exif)
    upright = read_image(tmp_path / f"turned.{suffix}")
    assert upright.shape == (16, 8, 3)
    assert upright[:8].mean() < 20 < 235 < upright[8:].mean()  # shown: the upper half is black


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_truncated_files_are_named(tmp_path, suffix):
    path = tmp_path / f"half.{suffix}"
    Image.fromarray(noise(64, 64)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=rf"half\.{suffix}"):
        read_image(path)


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x89PNG\r\n\x1a\n", b"BM"])
def test_other_files_are_named(tmp_path, content):
    (tmp_path / "page.png").write_bytes(content)
    with pytest.raises(ImageError, match=r"page\.png"):
        read_image(tmp_path / "page.png")


def test_an_image_that_would_fill_the_memory_is_refused_unread(tmp_path):
    def chunk(kind, body):
        crc = struct.pack(">L", zlib.crc32(kind + body))
        return struct.pack(">L", len(body)) + kind + body + crc

    header = struct.pack(">LLBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    with pytest.raises(ImageError, match=r"bomb\.png.*exceeds the limit of 178956970 pixels"):
        read_image(tmp_path / "bomb.png")


def test_missing_files_are_named(tmp_path):
    with pytest.raises(ImageError, match=r"gone\.png"):
        read_image(tmp_path / "gone.png")


# --- tensors and writing --------------------------------------------------------------------------


def test_tensor_and_back():
    image = noise(7, 5)
    tensor = to_tensor(image)
    assert tensor.shape == (1, 3, 7, 5)
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    assert tensor[0, 2, 6, 4].item() == pytest.approx(image[6, 4, 2] / 255)
    np.testing.assert_array_equal(to_uint8(tensor), image)


def test_to_uint8_rounds_and_clamps():
    values = torch.tensor([-3.0, 0.4 / 255, 0.6 / 255, 254.6 / 255, 1.0, 7.0])
    image = values.expand(1, 3, 1, 6).double().requires_grad_()
    assert to_uint8(image)[0, :, 1].tolist() == [0, 0, 1, 255, 255, 255]


def test_to_uint8_refuses_what_is_no_image():
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 4\)"):
        to_uint8(torch.zeros(2, 3, 4, 4))
    with pytest.raises(ValueError, match="not finite"):
        to_uint8(torch.full((1, 3, 4, 4), torch.nan))


def test_write_png(tmp_path):
    path = tmp_path / "new folder" / "out.png"
    write_png(path, noise(7, 5))
    np.testing.assert_array_equal(np.asarray(Image.open(path)), noise(7, 5))
    assert [p.name for p in path.parent.iterdir()] == ["out.png"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


# --- the store ------------------------------------------------------------------------------------

SIZES = [(40, 33), (32, 32), (64, 50), (31, 90), (48, 32)]


def manifest_of(folder, sizes=SIZES, dataset="toy"):
    folder.mkdir(parents=True, exist_ok=True)
    images = []
    for i, (height, width) in enumerate(sizes):
        path = folder / f"bild {i} é.png"
        write_png(path, noise(height, width, seed=i))
        images.append(ImageFile(path.stem, path, hashlib.sha256(path.read_bytes()).hexdigest()))
    return Manifest(dataset, "Toy", "folder", tuple(images))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    build_store([manifest_of(folder / "images")], folder / "store", min_size=32)
    return PatchStore.open(folder / "store")


def test_the_store_holds_the_images(store):
    kept = [i for i, size in enumerate(SIZES) if min(size) >= 32]
    assert [entry.name for entry in store.entries] == [f"bild {i} é" for i in kept]
    assert len(store) == len(kept)
    for index, i in enumerate(kept):
        image = store.image(index)
        assert image.shape == (3, *SIZES[i])
        np.testing.assert_array_equal(image.transpose(1, 2, 0), noise(*SIZES[i], seed=i))
        assert not image.flags.writeable


def test_the_store_says_what_it_left_out(store):
    summary = json.loads((store.folder / "store.json").read_text())
    assert summary["images"] == 4
    assert [s["name"] for s in summary["skipped"]] == ["bild 3 é"]
    assert summary["skipped"][0]["why"] == "90x31 is smaller than 32"


def test_turned_images_keep_their_place(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(8, 20)).save(tmp_path / "turned.png", exif=exif)
    write_png(tmp_path / "z.png", noise(9, 9))
    images = [
        ImageFile(p.stem, p, hashlib.sha256(p.read_bytes()).hexdigest())
        for p in (tmp_path / "turned.png", tmp_path / "z.png")
    ]
    build_store([Manifest("t", "T", "folder", tuple(images))], tmp_path / "store", min_size=8)
    store = PatchStore.open(tmp_path / "store")
    np.testing.assert_array_equal(store.image(0).transpose(1, 2, 0), np.rot90(noise(8, 20), -1))
    np.testing.assert_array_equal(store.image(1).transpose(1, 2, 0), noise(9, 9))


def test_progress_counts_the_images(tmp_path, told):
    build_store([manifest_of(tmp_path)], tmp_path / "store", min_size=8)
    n = len(SIZES)
    assert [line.split(",")[0] for line in told()] == [
        f"image store: image {i} of {n}" for i in range(1, n + 1)
    ]


def test_nothing_left_is_an_error(tmp_path):
    with pytest.raises(ImageError, match=r"toy.*at least 65"):
        build_store([manifest_of(tmp_path)], tmp_path / "store", min_size=65)
    with pytest.raises(ImageError, match="at least 8"):
        build_store([], tmp_path / "store", min_size=8)


def test_the_digest_follows_the_content_and_not_the_place(tmp_path):
    for name, sizes in (("a", SIZES), ("b", SIZES), ("c", SIZES[:3])):
        build_store([manifest_of(tmp_path / name, sizes)], tmp_path / f"store_{name}", min_size=8)
    a, b, c = (PatchStore.open(tmp_path / f"store_{name}").digest for name in "abc")
    assert a == b != c


def test_a_changed_file_is_noticed(tmp_path):
    manifest = manifest_of(tmp_path)
    write_png(manifest.images[1].path, noise(32, 32, seed=99))
    with pytest.raises(ImageError, match=r"bild 1 é\.png is no longer the file"):
        build_store([manifest], tmp_path / "store", min_size=8)


def test_an_unfinished_store_is_none(tmp_path):
    manifest = manifest_of(tmp_path)
    build_store([manifest], tmp_path / "store", min_size=8)
    missing = replace(manifest.images[-1], sha256="0" * 64)
    with pytest.raises(ImageError):
        build_store([replace(manifest, images=(missing,))], tmp_path / "store", min_size=8)
    with pytest.raises(ImageError, match=r"store\.json is missing"):
        PatchStore.open(tmp_path / "store")


def test_a_damaged_store_is_noticed(tmp_path):
    build_store([manifest_of(tmp_path)], tmp_path / "store", min_size=8)
    index = tmp_path / "store" / "index.csv"
    index.write_text("\n".join(index.read_text().splitlines()[:-1]))
    with pytest.raises(ImageError, match="damaged"):
        PatchStore.open(tmp_path / "store")


def test_workers_map_the_file_again(store):
    sent = pickle.dumps(store)
    assert len(sent) < 1000
    np.testing.assert_array_equal(pickle.loads(sent).image(2), store.image(2))


def fill_store(folder):
    build_store([Manifest.read(folder.parent / "manifest.json")], folder, min_size=32)


def a_store_is_whole_or_none(folder):
    try:
        store = PatchStore.open(folder)
    except ImageError as error:
        assert "no image store" in str(error)
    else:
        images = Manifest.read(folder.parent / "manifest.json").images
        for i, image in enumerate(images):
            np.testing.assert_array_equal(store.image(i).transpose(1, 2, 0), read_image(image.path))


@pytest.mark.slow
def test_a_store_killed_at_any_moment_is_never_taken_for_a_whole_one(tmp_path):
    manifest_of(tmp_path / "images", [(120, 90)] * 30).write(tmp_path / "manifest.json")
    killing.at_random_moments(
        fill_store, tmp_path, kills=20, share=1.0, check=a_store_is_whole_or_none
    )
    whole, killed = (PatchStore.open(tmp_path / name) for name in ("whole", "killed"))
    assert killed.digest == whole.digest
    left = sorted(path.name for path in killed.folder.iterdir())
    assert left == ["index.csv", "pixels.npy", "store.json"]  # nothing beside


# --- crops ----------------------------------------------------------------------------------------


def test_crops_are_windows_of_the_images_drawn(store):
    sampler = CropSampler(store=store, crop=24, batch=5, seed=1)
    for step in range(6):
        crops = sampler.crops(step)
        assert crops.shape == (5, 3, 24, 24)
        assert crops.dtype == np.uint8
        for crop, i in zip(crops, sampler.images(step), strict=True):
            windows = np.lib.stride_tricks.sliding_window_view(store.image(i), (3, 24, 24))[0]
            assert (windows == crop).all(axis=(2, 3, 4)).sum() == 1


def test_corners_reach_every_place_evenly(store):
    sampler = CropSampler(store=store, crop=32, batch=400, seed=0)
    image = store.image(0)  # 40 x 33: 9 x 2 places
    windows = np.lib.stride_tricks.sliding_window_view(image, (3, 32, 32))[0]
    crops, images = sampler.crops(0), sampler.images(0)
    places = Counter(
        tuple(np.argwhere((windows == crop).all(axis=(2, 3, 4)))[0]) for crop in crops[images == 0]
    )
    assert len(places) == 18
    assert max(places.values()) < 20  # 100 crops on 18 places


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(batch=st.integers(1, 11), seed=st.integers(0, 2**63), epoch=st.integers(0, 1000))
def test_each_image_comes_once_per_epoch(store, batch, seed, epoch):
    sampler = CropSampler(store=store, crop=8, batch=batch, seed=seed)
    n = len(store)
    first, last = epoch * n // batch, ((epoch + 1) * n - 1) // batch
    drawn = np.concatenate([sampler.images(step) for step in range(first, last + 1)])
    start = epoch * n - first * batch
    assert sorted(drawn[start : start + n]) == list(range(n))


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**63), step=st.integers(0, 10**6))
def test_crops_are_a_function_of_seed_and_step(store, seed, step):
    sampler = CropSampler(store=store, crop=16, batch=4, seed=seed)
    first = sampler.crops(step)
    sampler.crops(step + 1)
    again = CropSampler(store=store, crop=16, batch=4, seed=seed)
    np.testing.assert_array_equal(again.crops(step), first)
    assert (again.crops(step + 1) != first).any()
    other = CropSampler(store=store, crop=16, batch=4, seed=seed + 1)
    assert (other.crops(step) != first).any()


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [1, 4])
def test_crops_are_the_same_bits_from_any_number_of_workers(store, workers):
    sampler = CropSampler(store=store, crop=24, batch=5, seed=3)
    loader = DataLoader(range(9), num_workers=workers, collate_fn=partial(_cut, sampler))
    for step, crops in enumerate(loader):
        np.testing.assert_array_equal(crops, sampler.crops(step))


def _cut(sampler, steps):
    return sampler.crops(steps[0])


def test_the_order_of_the_images_changes_from_epoch_to_epoch(store):
    sampler = CropSampler(store=store, crop=16, batch=len(store), seed=0)
    assert len({tuple(sampler.images(step)) for step in range(20)}) > 5


@pytest.mark.parametrize("wrong", [{"crop": 33}, {"crop": 0}, {"batch": 0}, {"seed": -1}])
def test_impossible_samplers_are_refused(store, wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong.values()))}"):
        CropSampler(store=store, **{"crop": 16, "batch": 4, "seed": 0} | wrong)
    with pytest.raises(ValueError, match="-1"):
        CropSampler(store=store, crop=16, batch=4, seed=0).crops(-1)


def test_crops_are_cut_fast(tmp_path):
    build_store([manifest_of(tmp_path, [(481, 321)] * 4)], tmp_path / "store", min_size=128)
    sampler = CropSampler(store=PatchStore.open(tmp_path / "store"), crop=128, batch=16, seed=0)
    sampler.crops(0)
    best = float("inf")
    for step in range(1, 20):  # the best of several: the machine may be busy
        start = time.perf_counter()
        sampler.crops(step)
        best = min(best, time.perf_counter() - start)
    assert 16 / best > 2000  # crops per second
