import math

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from toys import toy_provenance

from rglib.figures import CURVE_STYLES, View, fig1, fig2, save
from rglib.results import CONVERGENCE_COLUMNS, RESULT_COLUMNS, ResultsError

LABELS = {"pnpreg": "pnpReG", "rerg": "RERG"}
PROVENANCE = toy_provenance()
COMPLETION = "completion90"


def curves(values=(10.0, 20.0, 25.0)):
    rows = [(m, COMPLETION, i, v) for m in LABELS for i, v in enumerate(values)]
    return pd.DataFrame(rows, columns=CONVERGENCE_COLUMNS)


def results(images=("bird", "butterfly"), outcome="finished"):
    rows = [
        (m, 0, COMPLETION, i, 40, 48, 10.0, 0.1, 26.123, 0.8, 27.0, 1, 2, outcome, 1.0)
        for m in LABELS
        for i in images
    ]
    return pd.DataFrame(rows, columns=RESULT_COLUMNS)


@pytest.fixture
def images(tmp_path):
    """A folder of evaluations whose images hold one grey value each."""
    files = {"observations": ("_truth", "_start"), "pnpreg_images": ("",), "rerg_images": ("",)}
    for folder, endings in files.items():
        (tmp_path / folder / COMPLETION).mkdir(parents=True)
        for ending in endings:
            for image, grey in (("bird", 50), ("butterfly", 200)):
                pixels = np.full((40, 48, 3), grey, np.uint8)
                Image.fromarray(pixels).save(
                    tmp_path / folder / COMPLETION / f"{image}{ending}.png"
                )
    return tmp_path


def texts(figure):
    found = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        found += [axes.get_title(), axes.get_xlabel(), axes.get_ylabel()]
    return found


def shown(figure):
    return [axes.images[0].get_array() for axes in figure.axes]


def test_fig2_draws_each_method_in_a_style_of_its_own():
    axes = fig2(curves(), labels=LABELS, provenance=PROVENANCE).axes[0]
    assert [line.get_label() for line in axes.lines] == ["pnpReG", "RERG"]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [10, 20, 25])
    for part in zip(*CURVE_STYLES, strict=True):
        assert len(set(part)) == len(part)


def test_fig2_keeps_its_scale_when_a_curve_falls_out():
    figure = fig2(curves((10.0, 20.0, -300.0)), labels=LABELS, provenance=PROVENANCE)
    assert figure.axes[0].get_ylim()[0] == 7.0
    fig2(curves((10.0, math.nan, math.nan)), labels=LABELS, provenance=PROVENANCE)


def test_fig2_without_curves_says_so():
    with pytest.raises(ResultsError, match="no curve of new on completion90"):
        fig2(curves(), labels={"new": "New"}, provenance=PROVENANCE)


def test_fig1_shows_truth_start_and_methods(images):
    figure = fig1(results(), images=images, labels=LABELS, provenance=PROVENANCE)
    said = texts(figure)
    for words in ("ground truth", "start", "pnpReG", "RERG", "10.00 dB", "26.12 dB"):
        assert words in said
    assert [pixels.shape for pixels in shown(figure)] == [(40, 40, 3)] * 4
    assert {int(pixels.max()) for pixels in shown(figure)} == {200}  # butterfly, not bird


def test_fig1_takes_the_first_image_where_there_is_no_butterfly(images):
    figure = fig1(results(["bird"]), images=images, labels=LABELS, provenance=PROVENANCE)
    assert {int(pixels.max()) for pixels in shown(figure)} == {50}


def test_fig1_takes_views(images):
    views = {COMPLETION: View("bird", top=3, left=4, size=16)}
    figure = fig1(results(), images=images, labels=LABELS, provenance=PROVENANCE, views=views)
    assert [pixels.shape for pixels in shown(figure)] == [(16, 16, 3)] * 4


def test_views_cut_where_they_say():
    pixels = np.arange(6 * 8 * 3).reshape(6, 8, 3)
    np.testing.assert_array_equal(View("x", top=1, left=2, size=3).cut(pixels), pixels[1:4, 2:5])
    np.testing.assert_array_equal(View("x", size=4).cut(pixels), pixels[1:5, 2:6])
    with pytest.raises(ResultsError, match=r"crop of 7 pixels .* image x of 6x8"):
        View("x", size=7).cut(pixels)


def test_fig1_shows_a_divergence(images):
    broken = results(outcome="diverged")
    said = texts(fig1(broken, images=images, labels=LABELS, provenance=PROVENANCE))
    assert said.count("diverged") == 2


def test_fig1_names_what_is_missing(images):
    (images / "rerg_images" / COMPLETION / "butterfly.png").unlink()
    with pytest.raises(ResultsError, match=r"butterfly\.png: no such image"):
        fig1(results(), images=images, labels=LABELS, provenance=PROVENANCE)
    with pytest.raises(ResultsError, match="no result of new"):
        fig1(results(), images=images, labels={"new": "New"}, provenance=PROVENANCE)
    with pytest.raises(ResultsError, match="figure 1 has nothing to show"):
        fig1(
            results(), images=images, labels=LABELS, provenance=PROVENANCE, problems=["deblur_s2.0"]
        )


@pytest.mark.parametrize("suffix", [".pdf", ".png"])
def test_files_repeat_byte_for_byte_and_name_the_stand_in(tmp_path, images, suffix):
    def draw(name):
        two = fig2(curves(), labels=LABELS, provenance=PROVENANCE)
        one = fig1(results(), images=images, labels=LABELS, provenance=PROVENANCE)
        for number, figure in ((1, one), (2, two)):
            path = tmp_path / f"{name}{number}{suffix}"
            save(figure, path, title=f"Figure {number}", provenance=PROVENANCE)
            assert any("STAND-IN test set Embedded (not Set5)" in text for text in texts(figure))
            assert b"STAND-IN TEST SET" in path.read_bytes()
            yield path.read_bytes()

    assert list(draw("a")) == list(draw("b"))


def test_other_formats_are_refused(tmp_path):
    figure = fig2(curves(), labels=LABELS, provenance=PROVENANCE)
    with pytest.raises(ValueError, match=r"fig\.jpg: figures are written as"):
        save(figure, tmp_path / "fig.jpg", title="", provenance=PROVENANCE)
