import itertools
import math
import re
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.text import Text
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab, xyz2lab
from skimage.color.colorconv import xyz_from_rgb
from test_workflow import Project
from toys import LONG_FOOT, check_layout, toy_provenance

from rglib.plan.plan import Plan
from rglib.report.evaluations import CONVERGENCE_COLUMNS, RESULT_COLUMNS, ResultsError
from rglib.report.figures import CURVE_STYLES, FOOT_SIZE, Crop, CurveStyle, fig1, fig2, save

ROOT = Path(__file__).parents[1]
LABELS = {"pnpreg": "pnpReG", "rerg": "RERG"}
PROVENANCE = toy_provenance()
COMPLETION = "completion90"


def curves(values=(10.0, 20.0, 25.0)):
    rows = [(m, COMPLETION, i, v) for m in LABELS for i, v in enumerate(values)]
    return pd.DataFrame(rows, columns=CONVERGENCE_COLUMNS)


def results(images=("bird", "butterfly"), outcome="finished"):
    rows = [
        (m, 0, COMPLETION, i, 40, 48, 10.0, 0.1, 26.123, 0.8, 27.0, 1, 2, outcome, 0.1, 1e-3, 1.0)
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
        found += [axes.get_title(), axes.get_title("left"), axes.get_xlabel(), axes.get_ylabel()]
    return found


def shown(figure):
    return [axes.images[0].get_array() for axes in figure.axes]


def test_fig2_draws_each_method_in_a_style_of_its_own():
    axes = fig2(curves(), labels=LABELS, provenance=PROVENANCE).axes[0]
    assert [line.get_label() for line in axes.lines] == ["pnpReG", "RERG"]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [10, 20, 25])
    for field in fields(CurveStyle):
        assert len({getattr(style, field.name) for style in CURVE_STYLES}) == len(CURVE_STYLES)


@pytest.mark.parametrize("length", [3, 8, 17, 25, 1500])
def test_fig2_has_no_mark_between_two_iterations(length):
    figure = fig2(curves(np.linspace(10, 25, length)), labels=LABELS, provenance=PROVENANCE)
    figure.canvas.draw()
    marks = figure.axes[0].get_xticks()
    assert len(marks) > 2
    np.testing.assert_array_equal(marks, np.round(marks))


# Machado, Oliveira and Fernandes 2009, table 1, severity 1: what a dichromat sees, on linear RGB.
DICHROMATS = {
    "protanope": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranope": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanope": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}


def colours():
    return np.array([tuple(bytes.fromhex(style.colour[1:])) for style in CURVE_STYLES]) / 255


def linear(rgb):
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lightness():
    """CIE L*, on 0..100: what is left of a colour in grey."""
    return rgb2lab(colours()[None])[0, :, 0]


def test_in_grey_every_pair_of_curves_differs():
    steps = np.diff(np.sort(lightness()))
    assert steps.min() > 7
    of_figure_2 = lightness()[:4]  # the paper's four methods: darker from each to the next
    assert (np.diff(of_figure_2) < -9).all() and of_figure_2[0] < 65


@pytest.mark.parametrize("kind", DICHROMATS)
def test_to_the_colour_blind_every_pair_of_curves_differs(kind):
    seen = np.clip(linear(colours()) @ np.array(DICHROMATS[kind]).T, 0, 1)
    lab = xyz2lab(seen @ xyz_from_rgb.T)
    for first, second in itertools.combinations(lab, 2):
        assert deltaE_ciede2000(first, second) > 8


def read_pdf(path):
    """The size of the page in cm, and the types of its fonts."""
    text = path.read_bytes().decode("latin1")
    box = re.search(r"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", text)
    fonts = re.findall(r"/Subtype /(Type\w+|TrueType|CIDFontType\d)", text)
    return [float(side) / 72 * 2.54 for side in box.groups()], fonts, text


def test_figures_have_the_papers_widths_and_embed_their_fonts(tmp_path, images):
    two = fig2(curves(), labels=LABELS, provenance=PROVENANCE)
    one = fig1(results(), images=images, labels=LABELS, provenance=PROVENANCE)
    for figure, width in ((one, 15.8), (two, 7.5)):
        save(figure, tmp_path / "fig.pdf", title="", provenance=PROVENANCE)
        (page, _), fonts, text = read_pdf(tmp_path / "fig.pdf")
        assert page == pytest.approx(width, abs=0.01)
        assert fonts and "Type3" not in fonts
        assert text.count("/FontFile2") == text.count("/Type /FontDescriptor") > 0
        assert ("/Subtype /Image" in text) == (figure is one)  # lines are vectors


@pytest.mark.parametrize(("provenance", "lines"), [(PROVENANCE, 1), (LONG_FOOT, 2)])
def test_letters_are_of_8_and_9_points_and_cover_nothing(images, provenance, lines):
    tall = {"values": (102.5, 107.5, 125.0)}  # ticks of four characters and more
    for figure, foot_lines in (
        (fig1(results(), images=images, labels=LABELS, provenance=provenance), lines),
        (fig2(curves(), labels=LABELS, provenance=provenance), lines + 1),
        (fig2(curves(**tall), labels=LABELS, provenance=provenance), lines + 1),
    ):
        foot = figure.texts[0]
        sizes = {text.get_fontsize() for text in figure.findobj(Text) if text is not foot}
        assert sizes == {8, 9} and foot.get_fontsize() == FOOT_SIZE
        check_layout(figure, foot_lines=foot_lines)


def test_figures_say_that_they_are_ours(images):
    for figure in (
        fig1(results(), images=images, labels=LABELS, provenance=PROVENANCE),
        fig2(curves(), labels=LABELS, provenance=PROVENANCE),
    ):
        assert any("ours" in text.lower() for text in texts(figure))


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
    views = {COMPLETION: Crop("bird", top=3, left=4, size=16)}
    figure = fig1(results(), images=images, labels=LABELS, provenance=PROVENANCE, views=views)
    assert [pixels.shape for pixels in shown(figure)] == [(16, 16, 3)] * 4


def test_views_cut_where_they_say():
    pixels = np.arange(6 * 8 * 3).reshape(6, 8, 3)
    np.testing.assert_array_equal(Crop("x", top=1, left=2, size=3).cut(pixels), pixels[1:4, 2:5])
    np.testing.assert_array_equal(Crop("x", size=4).cut(pixels), pixels[1:5, 2:6])
    with pytest.raises(ResultsError, match=r"crop of 7 pixels .* image x of 6x8"):
        Crop("x", size=7).cut(pixels)


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


def test_what_writes_lost_images_is_planned_as_typed(images, tmp_path_factory, monkeypatch):
    project = Project.copied(tmp_path_factory.mktemp("typed"))
    aside = tmp_path_factory.mktemp("aside")
    folder = Path("work/test/evaluation")
    shutil.copytree(images, project / folder)
    monkeypatch.chdir(project.folder)
    typed = []
    for lost in ("rerg_images", "observations"):
        shutil.move(folder / lost / COMPLETION, aside / lost)
        with pytest.raises(ResultsError) as caught:
            fig1(results(), images=folder, labels=LABELS, provenance=PROVENANCE)
        said = r"`snakemake (\S+) (--force)` writes it, with the same --configfile$"
        typed += re.findall(said, str(caught.value))
        shutil.move(aside / lost, folder / lost / COMPLETION)
    targets, (option, _) = zip(*typed, strict=True)
    assert {"evaluate method=rerg", "observations"} <= project.planned(*targets, option)


def test_fig2_is_drawn_with_such_a_method_as_its_message_names():
    with pytest.raises(ResultsError) as caught:
        fig2(curves(), labels={}, provenance=PROVENANCE)
    (typed,) = re.findall(r"a method with `([^`]+)`", str(caught.value))
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    method = config["methods"]["pnpreg"] | yaml.safe_load(typed)
    plan = Plan.of(config | {"methods": {"rerg": method}})
    fig2(curves(), labels={m: LABELS[m] for m in plan.by_descent}, provenance=PROVENANCE)


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
