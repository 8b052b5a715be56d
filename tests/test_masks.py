import numpy as np
import pytest

from rglib.data.masks import MaskError, known_pixels

KNOWN = np.ones((12, 16), bool)
KNOWN[3:8, 5:11] = False
LEVELS = KNOWN[..., None]


def coloured(known, missing, dtype=np.uint8):
    return np.where(LEVELS, np.array(known, dtype), np.array(missing, dtype))


def alpha(known=255, missing=0):
    return np.where(KNOWN, known, missing).astype(np.uint8)


PHOTOGRAPH = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
WHITE = np.full((12, 16, 3), 255, np.uint8)
FORMS = {
    "bool": (LEVELS, None),
    "0 and 1": (LEVELS.astype(np.uint8), None),
    "0 and 255": (LEVELS.astype(np.uint8) * 255, None),
    "0 and 65535": (LEVELS.astype(np.uint16) * 65535, None),
    "0 and 1 of 16 bits": (LEVELS.astype(np.uint16), None),
    "integers": (LEVELS.astype(np.int64), None),
    "integers to 255": (LEVELS.astype(np.int64) * 255, None),
    "floats": (LEVELS.astype(np.float32), None),
    "floats to 255": (LEVELS.astype(np.float64) * 255, None),
    "grey on black": (coloured(128, 0), None),
    "near white on near black": (coloured(250, 4), None),
    "white on nearly black of floats": (coloured(1.0, 0.1, np.float32), None),
    "three channels": (coloured([255] * 3, [0] * 3), None),
    "a colour on black": (coloured([128, 0, 0], [0] * 3), None),
    "alpha, white": (WHITE, alpha()),
    "alpha, grey": (WHITE[..., :1], alpha()),
    "alpha of 0 and 1": (WHITE, alpha(known=1)),
    "alpha and the same colours": (coloured([255] * 3, [0] * 3), alpha()),
    "a photograph with a hole": (PHOTOGRAPH, alpha()),
    "an opaque alpha": (LEVELS.astype(np.uint8) * 255, alpha(missing=255)),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_forms_that_people_store_masks_in(form):
    colours, opacity = FORMS[form]
    found = known_pixels(colours, opacity)
    assert found.dtype == bool and np.array_equal(found, KNOWN)


@pytest.mark.parametrize("white", [True, np.uint8(1), np.uint8(255), np.uint16(65535), 1.0])
def test_all_may_be_known(white):
    assert known_pixels(np.full((3, 4, 1), white)).all()


GREYS = np.linspace(0, 255, 12 * 16).reshape(12, 16, 1).astype(np.uint8)
AMBIGUOUS = {
    "nothing": (np.zeros((3, 3, 1)), None, "no pixel is known: white is known, black not"),
    "nothing opaque": (WHITE, np.zeros((12, 16), np.uint8), "no pixel is known"),
    "one grey": (np.full((3, 3, 1), 128, np.uint8), None, "1 values from 128 to 128"),
    "greys": (GREYS, None, "96 of its pixels neither near black nor near white"),
    "two greys": (coloured(160, 100), None, "2 values from 100 to 160"),
    "white on light grey of integers": (coloured(255, 200, np.int64), None, "2 values"),
    "labels": (np.arange(9, dtype=np.uint8).reshape(3, 3, 1), None, "9 values from 0 to 8"),
    "labels and a border": (np.array([[[0], [1], [255]]], np.uint8), None, "3 values"),
    "minus one and one": (coloured(1, -1, np.int64), None, "2 values from -1 to 1"),
    "float greys": (GREYS / 255, None, "neither near black nor near white"),
    "two colours": (coloured([255, 0, 0], [0, 0, 255]), None, "its colours do not say what"),
    "a colour on white": (coloured([255, 0, 0], [255] * 3), None, "its colours do not say what"),
    "a photograph": (PHOTOGRAPH, None, "its colours do not say what is known"),
    "black strokes on nothing": (0 * WHITE, alpha(), "its colours and its alpha channel say"),
    "red strokes on nothing": (WHITE * np.uint8([1, 0, 0]), alpha(), "colours and its alpha"),
    "two masks": (coloured([0] * 3, [255] * 3)[::-1], alpha(), "colours and its alpha channel"),
    "soft holes": (WHITE, GREYS[..., 0], "neither near black nor near white"),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_what_can_be_meant_in_two_ways_is_refused(case):
    colours, opacity, reason = AMBIGUOUS[case]
    with pytest.raises(MaskError, match=reason):
        known_pixels(colours, opacity)


def test_compression_may_move_black_and_white_a_little_and_no_further():
    rng = np.random.default_rng(0)
    moved = coloured(235, 20) + rng.integers(-20, 21, (12, 16, 1))
    found = known_pixels(moved.astype(np.uint8), lossy=True)
    assert np.array_equal(found, KNOWN)
    with pytest.raises(MaskError, match="62 values"):
        known_pixels(moved.astype(np.uint8)[:, :, [0]])
    with pytest.raises(MaskError, match="neither near black nor near white"):
        known_pixels(GREYS, lossy=True)
