import hashlib

import numpy as np
import pytest
import torch
from PIL import Image

from rglib.data.images import CropSampler, PatchStore, build_store
from rglib.data.manifest import ImageFile, Manifest
from rglib.training.resident import ResidentCrops, cut_where_they_fit

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Images of several sizes, upright and lying."""
    folder, images = tmp_path_factory.mktemp("images"), []
    for i, (height, width) in enumerate([(40, 33), (33, 50), (64, 64)]):
        pixels = np.random.default_rng(i).integers(0, 256, (height, width, 3), np.uint8)
        path = folder / f"{i}.png"
        Image.fromarray(pixels).save(path)
        images.append(ImageFile(path.stem, path, hashlib.sha256(path.read_bytes()).hexdigest()))
    build_store([Manifest("toy", "Toy", "folder", tuple(images))], folder / "store", min_size=32)
    return PatchStore.open(folder / "store")


@pytest.mark.parametrize("crop", [1, 24, 33])
def test_crops_cut_on_a_device_are_the_samplers(store, crop):
    sampler = CropSampler(store=store, crop=crop, batch=5, seed=3)
    resident = ResidentCrops.on(CPU, sampler)
    for step in range(8):
        cut = resident.crops(step)
        assert cut.dtype == torch.uint8
        np.testing.assert_array_equal(cut.numpy(), sampler.crops(step))


def test_on_a_cpu_crops_are_cut_from_the_file(store):
    sampler = CropSampler(store=store, crop=8, batch=2, seed=0)
    assert cut_where_they_fit(sampler, CPU) is sampler
