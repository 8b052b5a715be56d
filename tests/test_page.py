"""The page, by parts and as a reader's browser shows it."""

import base64
import importlib.util
import io
import json
import math
import os
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from toys import toy_provenance

from rglib.data.images import ImageError
from rglib.report.claims import CLAIM_COLUMNS, papers_claims
from rglib.report.evaluations import (
    CONVERGENCE_COLUMNS,
    MINUS,
    RESULT_COLUMNS,
    paper_tables,
    summarise,
)
from rglib.report.page import pictures
from rglib.report.page.charts import convergence_chart, fixed_points, training_charts
from rglib.report.page.citation import citations
from rglib.report.page.page import Material, render, write_page
from rglib.report.page.pictures import detail, error_scale
from rglib.report.page.tables import MEAN, tables

LABELS = {"gauss": "Gauss", "pnpreg": "pnpReG", "rerg": "RERG", "mine": "Mine"}
DESCENDING = ("pnpreg", "rerg", "mine")
PROBLEMS = ["completion90", "deblur_s1.6", "sr2_bicubic_n0"]
IMAGES = {"bird": (72, 80), "butterfly": (64, 64)}
ITERATIONS = 4
CITATION = """
title: "toy: a software"
version: 1.0
date-released: 2025-03-01
authors: [{name: the toy authors}]
references:
  - title: A Paper
    authors: [{family-names: Doe, given-names: Ann}, {family-names: Roe, given-names: Bo}]
    collection-title: Proceedings
    year: 2024
    doi: 10.1/2
"""


def random_results(generator):
    rows = [
        (
            m,
            0,
            p,
            i,
            *IMAGES[i],
            10.0,
            0.2,
            *generator.uniform((20, 0.5), (40, 1)),
            40,
            3,
            4,
            "finished",
            0.1,
            1e-3,
            1,
        )
        for m in LABELS
        for p in PROBLEMS
        for i in IMAGES
    ]
    return pd.DataFrame(rows, columns=RESULT_COLUMNS)


def random_curves(generator):
    rows = [
        (m, p, i, 10 + i + generator.uniform(0, 1))
        for m in LABELS
        for p in PROBLEMS
        for i in range(ITERATIONS)
    ]
    return pd.DataFrame(rows, columns=CONVERGENCE_COLUMNS)


def history():
    return pd.DataFrame(
        {
            "step": [0, 10, 20],
            "loss": [0.1, 0.05, 0.04],
            "loss_FB": [0.1, 0.05, 0.04],
            "psnr_denoised": [30.0, math.nan, 31.0],
            "f_iterations": [10.0, 12.0, 16.0],
            "f_converged": [1.0, 0.5, 0.0],
            "f_out_of_steps": [0.0, 0.25, 1.0],
            "f_diverged": [0.0, 0.25, 0.0],
            "f_non_finite": [0.0, 0.0, 0.0],
        }
    )


def claims():
    values = dict.fromkeys(CLAIM_COLUMNS, "some") | {
        "unit": "dB",
        "margin": -1.0,
        "paper_margin": 1.0,
    }
    verdicts = ("yes", "no", "not evaluable")
    rows = [
        values | {"statement": claim.statement, "holds": verdicts[n % 3], "paper_holds": "yes"}
        for n, claim in enumerate(papers_claims().claims)
    ]
    return pd.DataFrame(rows)[CLAIM_COLUMNS]


def write_images(folder, generator):
    kinds = {f"{method}_images": "" for method in LABELS}
    for problem in PROBLEMS:
        for image, (height, width) in IMAGES.items():
            names = [(f"observations/{problem}", f"{image}_{kind}") for kind in ("truth", "start")]
            names += [(f"{kind}/{problem}", image) for kind in kinds]
            for place, name in names:
                (folder / place).mkdir(parents=True, exist_ok=True)
                pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / place / f"{name}.png")


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """Three problems, four methods of which one is not in the paper, two images of noise."""
    folder, generator = tmp_path_factory.mktemp("report"), np.random.default_rng(0)
    write_images(folder, generator)
    (folder / "CITATION.cff").write_text(CITATION)
    history().to_csv(folder / "history.csv", index=False)
    return Material(
        results=random_results(generator),
        convergence=random_curves(generator),
        claims=claims(),
        labels=LABELS,
        descending=DESCENDING,
        images=folder,
        histories={"rerg": folder / "history.csv"},
        citation=folder / "CITATION.cff",
        provenance=toy_provenance(),
    )


def data_of(html):
    return json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', html, re.S).group(1))


def pixels_of(uri):
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGB"))


# --- tables ---------------------------------------------------------------------------------------


def test_the_tables_set_ours_beside_the_papers(material):
    summary = summarise(material.results)
    means, first, second = tables(summary, LABELS, comparable=True)
    assert [len(table.rows) for table in (means, first, second)] == [1, 4, 4]
    label, cells = first.rows[2]
    assert label == "RERG" and [cell.problem for cell in cells] == PROBLEMS[:2]
    own = material.results.query("method == 'rerg' and problem_id == 'deblur_s1.6'").psnr_db.mean()
    paper = paper_tables().query("method == 'RERG' and problem_id == 'deblur_s1.6'").psnr_db.item()
    number = cells[1].numbers["psnr_db"]
    assert number.ours == f"{own:.2f}" and number.paper == f"{paper:.2f}"
    assert float(number.difference.replace(MINUS, "-")) == pytest.approx(own - paper, abs=0.011)
    assert math.copysign(1, number.depth) == math.copysign(1, own - paper)
    assert {c.method: c.numbers["psnr_db"].paper for c in means.rows[0][1]}["mine"] == ""
    assert [c.problem for c in means.rows[0][1]] == [MEAN] * 4


def test_on_other_images_the_papers_values_have_no_difference(material):
    for table in tables(summarise(material.results), LABELS, comparable=False):
        numbers = [n for _, cells in table.rows for cell in cells for n in cell.numbers.values()]
        assert any(number.paper for number in numbers)
        assert {(number.difference, number.depth) for number in numbers} == {("", 0.0)}
    assert 'class="chip" style="--depth: 60%' not in render(material)


def test_a_divergence_is_in_the_tables_and_in_the_means(material):
    broken = material.results.copy()
    broken.loc[(broken.method == "rerg") & (broken.image == "bird"), "outcome"] = "diverged"
    means, first, _ = tables(summarise(broken), LABELS, comparable=True)
    assert first.rows[2][1][0].numbers["ssim"].ours == "diverged (1 of 2)"
    assert means.rows[0][1][2].numbers["psnr_db"].ours == "diverged (3 of 6)"
    assert not means.rows[0][1][2].numbers["psnr_db"].best


# --- charts ---------------------------------------------------------------------------------------


def test_curves_have_the_numbers_and_dashes_of_their_own(material):
    curves = material.convergence[material.convergence.problem_id == PROBLEMS[0]]
    traces = convergence_chart(curves, material.curve_labels).data
    assert [trace.name for trace in traces] == ["pnpReG", "RERG", "Mine", "Gauss"]
    assert len({trace.line.dash for trace in traces}) == 4
    np.testing.assert_allclose(traces[1].y, curves[curves.method == "rerg"].psnr_db, atol=1e-4)


def test_a_curve_that_falls_out_does_not_flatten_the_others(material):
    curves = material.convergence[material.convergence.problem_id == PROBLEMS[0]].copy()
    curves.loc[(curves.method == "rerg") & (curves.iteration == 3), "psnr_db"] = -300.0
    low, _ = convergence_chart(curves, LABELS).layout.yaxis.range
    assert 6 < low < 8


def test_training_charts_leave_out_what_was_not_logged():
    charts = dict(training_charts(history()))
    assert "Stability of G" not in charts and "Norms of the gradients" not in charts
    assert [trace.name for trace in charts["Losses"].data] == ["total", "FB"]
    (psnr,) = charts["PSNR on validation crops (dB)"].data
    assert list(psnr.x) == [0, 20]


def test_fixed_points_are_means_over_the_logged_steps():
    (row,) = fixed_points(history())
    assert row["map"] == "f" and row["steps"] == 3
    assert row["converged"] == 0.5 and row["diverged"] == pytest.approx(1 / 12)
    assert fixed_points(pd.DataFrame({"step": [0], "loss": [1.0]})) == []


# --- pictures -------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_the_detail_is_where_the_structure_is(seed, side):
    """Against the sum over every square."""
    truth = np.random.default_rng(seed).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    grey = truth.mean(axis=2)
    energy = np.zeros((9, 11))
    energy[:-1, :-1] = np.diff(grey, axis=0)[:, :-1] ** 2 + np.diff(grey, axis=1)[:-1] ** 2
    left, top = detail(truth, side)
    sums = {
        (x, y): energy[y : y + side, x : x + side].sum()
        for x in range(12 - side)
        for y in range(10 - side)
    }
    assert sums[left, top] == pytest.approx(max(sums.values()))


def test_details_are_exact_and_errors_are_theirs(material):
    collection = data_of(render(material))["pictures"]
    comparison = collection["comparisons"]["completion90"]["bird"]
    box = np.s_[comparison["top"] :, comparison["left"] :]
    truth_view, *_, view = comparison["views"]
    side = comparison["side"]
    stored = material.images / "mine_images/completion90/bird.png"
    truth = material.images / "observations/completion90/bird_truth.png"
    with Image.open(stored) as own, Image.open(truth) as true:
        own, true = (np.asarray(image)[box][:side, :side] for image in (own, true))
    np.testing.assert_array_equal(pixels_of(collection["files"][view["detail"]]), own)
    np.testing.assert_array_equal(pixels_of(collection["files"][truth_view["detail"]]), true)
    errors = np.abs(own.astype(int) - true).mean(axis=2) / 255 / comparison["error_full"]
    colours = [tuple(bytes.fromhex(colour[1:])) for colour in pictures.error_colours()]
    shown = pixels_of(collection["files"][view["error"]])
    steps = np.array([[colours.index(tuple(pixel)) for pixel in row] for row in shown.tolist()])
    expected = np.minimum(errors * len(colours), len(colours) - 1)
    assert np.abs(steps + 0.5 - expected).max() <= 0.5 + 1e-9
    assert collection["files"][truth_view["error"]] == ""


def test_the_scale_of_the_errors_holds_nearly_all():
    assert error_scale([np.full((4, 4), 0.01)]) == 0.05
    assert error_scale([np.full((4, 4), 0.01), np.full((4, 4), 0.3)]) == 0.4
    assert error_scale([np.ones((4, 4))]) == 0.8


def test_of_many_images_the_first_are_shown_and_the_page_says_so(material, monkeypatch):
    monkeypatch.setattr(pictures, "IMAGES_SHOWN", 1)
    html = render(material)
    assert "Shown are the first 1 of 2 images." in html
    assert list(data_of(html)["pictures"]["comparisons"]["completion90"]) == ["bird"]


def test_a_missing_image_is_named(material, tmp_path):
    with pytest.raises(ImageError, match="bird_truth"):
        render(replace(material, images=tmp_path))


# --- the page as text -----------------------------------------------------------------------------


def test_the_page_and_its_record_repeat_byte_for_byte(material, tmp_path):
    pages = [tmp_path / name / "report.html" for name in "ab"]
    for path in pages:
        write_page(material, path)
    first, second = (path.read_bytes() for path in pages)
    assert first == second
    record = json.loads((tmp_path / "a/report.html-metadata.json").read_text())
    assert record["url"] == "report.html" and record["dc:provenance"]["run"] == "r"


def test_the_page_fetches_nothing(material):
    """Of what a browser loads by itself: all addresses are data."""
    loaded = []

    class Loads(HTMLParser):
        def handle_starttag(self, tag, attributes):
            found = dict(attributes)
            loaded.extend(
                found[key] for key in ("src", "srcset", "data", "poster") if found.get(key)
            )
            if tag == "link":
                loaded.append(found["href"])

    html = render(material)
    Loads().feed(re.sub(r"<script>.*?</script>", "", html, flags=re.S))
    assert loaded == ["data:,"]
    assert "default-src 'none'" in html


def test_names_that_look_like_markup_are_shown_as_they_are(material):
    hostile = "</script><b>x"
    html = render(replace(material, labels=LABELS | {"mine": hostile}))
    assert hostile not in html and "&lt;/script&gt;&lt;b&gt;x" in html
    names = [trace["name"] for trace in data_of(html)["convergence"]["completion90"]["data"]]
    assert hostile in names


def test_a_lost_history_is_said_to_be_lost(material, tmp_path):
    html = render(replace(material, histories={"rg1": tmp_path / "history.csv"}))
    assert "The history of rg1 is not among the intermediate files any more" in html
    assert "Fixed points in training" not in html


def test_the_page_names_the_stand_in_and_all_that_departs_from_the_paper(material):
    html = render(material)
    assert "STAND-IN TEST SET: Embedded instead of Set5" in html
    assert "FEWER ITERATIONS" in html and "SMALLER NETWORK" in html


def test_the_answer_comes_first_and_what_departs_is_folded(material):
    on_set5 = toy_provenance("Set5", stand_in_for=None)
    html = render(replace(material, provenance=on_set5))
    answer, rest = html.partition('<section id="answer"')[2].split("</section>", 1)
    assert "the paper&#39;s mean PSNR, from " in answer and 'id="tables"' in rest
    assert "3 of the paper&#39;s 9 claims hold on " in answer
    assert "Unlike the paper: fewer iterations, smaller network." in answer
    unfolded = re.sub(r"<details.*?</details>", "", html, flags=re.S)
    assert "FEWER ITERATIONS" not in unfolded and "FEWER ITERATIONS" in html


def test_the_page_has_plain_labels_and_real_minus_signs(material):
    html = render(material)
    text = re.sub(r"<script.*?</script>|<style.*?</style>|<[^>]+>", " ", html, flags=re.S)
    assert not re.search(r"(?<![\w./-])-\d+\.\d", text)
    logged = ["rayleigh_clean", "rayleigh_noisy", "eigenvalue_min", "eigenvalue_max"]
    ((_, figure),) = training_charts(pd.DataFrame(1.0, index=[0], columns=["step", *logged]))
    assert [trace.name for trace in figure.data] == [
        "Rayleigh quotient on sharp images",
        "Rayleigh quotient on noisy images",
        "smallest eigenvalue",
        "largest eigenvalue",
    ]


def test_works_are_cited_in_words_and_as_bibtex(tmp_path):
    (tmp_path / "CITATION.cff").write_text(CITATION)
    software, paper = citations(tmp_path / "CITATION.cff")
    assert software.words == "the toy authors (2025). toy: a software. Version 1.0."
    assert (
        software.bibtex.startswith("@software{toy2025,")
        and "author = {{the toy authors}}" in software.bibtex
    )
    assert paper.words == "Doe, Ann; Roe, Bo (2024). A Paper. Proceedings."
    assert paper.url == "https://doi.org/10.1/2"
    assert (
        "author = {Doe, Ann and Roe, Bo}," in paper.bibtex
        and "@inproceedings{doe2024," in paper.bibtex
    )


# --- the page in a browser ------------------------------------------------------------------------

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium that is installed on this machine."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("playwright is not installed: pip install -c constraints.txt -e '.[dev]'")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # root has none
        launched = playwright.chromium.launch(executable_path=program, args=sandbox)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def address(material, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_page(material, path)
    return path.as_uri()


@pytest.fixture
def opened(browser, address):
    """A function that opens the page, offline; no error, warning or request may have come of it."""
    faults, contexts = [], []

    def open_page(**options):
        context = browser.new_context(**options)
        contexts.append(context)
        context.set_offline(True)
        page = context.new_page()
        page.on("console", lambda message: faults.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("request", lambda request: faults.append(f"request: {request.url[:200]}"))
        page.goto(address)
        page.wait_for_selector("#curves-chart .trace")
        return page

    yield open_page
    for context in contexts:
        context.close()
    mine = {f"request: {address}"}
    assert [f for f in faults if f not in mine and not f.startswith("request: data:")] == []


def test_the_numbers_shown_are_those_of_the_results(opened, material):
    page = opened()
    for metric, decimals in (("psnr_db", 2), ("ssim", 3)):
        page.check(f"#metric-{metric}")
        means = material.results.groupby(["method", "problem_id"])[metric].mean()
        for (method, problem), value in means.items():
            cell = f"td[data-method='{method}'][data-problem='{problem}'] .ours"
            assert (
                page.locator(cell).locator("visible=true").inner_text() == f"{value:.{decimals}f}"
            )


def test_methods_are_toggled(opened):
    page = opened()
    lines = page.locator("#curves-chart .scatterlayer .trace")
    assert lines.count() == len(DESCENDING)
    page.get_by_role("checkbox", name="Gauss").check()
    assert lines.count() == len(LABELS)
    page.get_by_role("checkbox", name="RERG").focus()
    page.keyboard.press("Space")
    assert lines.count() == len(DESCENDING)
    assert "RERG" not in page.inner_text("#curves-said")


def test_another_problem_shows_its_curves(opened, material):
    page = opened()
    page.select_option("#curves-problem", "sr2_bicubic_n0")
    drawn = page.evaluate(
        "document.getElementById('curves-chart').data.map(t => [t.meta.method, t.y])"
    )
    curves = material.convergence[material.convergence.problem_id == "sr2_bicubic_n0"]
    for method, values in drawn:
        np.testing.assert_allclose(values, curves[curves.method == method].psnr_db, atol=1e-4)
    end = curves[(curves.method == "rerg") & (curves.iteration == ITERATIONS - 1)].psnr_db.item()
    assert f"RERG {end:.2f} dB" in page.inner_text("#curves-said")


def test_the_arrow_keys_read_the_curves(opened, material):
    page = opened()
    page.focus("#curves-chart")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    said = page.inner_text("#curves-said")
    at_1 = material.convergence.query("problem_id == 'completion90' and iteration == 1")
    value = at_1[at_1.method == "pnpreg"].psnr_db.item()
    assert said.startswith("At iteration 1: ") and f"pnpReG {value:.2f} dB" in said
    page.wait_for_selector("#curves-chart .hoverlayer .legend")


def test_a_curve_that_ended_before_the_others_says_where(opened, material):
    page = opened()
    page.evaluate("DATA.convergence.completion90.data[0].y.length = 3")
    page.get_by_role("checkbox", name="RERG").uncheck()
    end = material.convergence.query(
        "problem_id == 'completion90' and method == 'pnpreg' and iteration == 2"
    ).psnr_db.item()
    assert f"pnpReG {end:.2f} dB after 2, Mine" in page.inner_text("#curves-said")


def test_the_slider_moves_by_keyboard_and_by_pointer(opened):
    page = opened()

    def hidden():
        """Per cent of the left image, from its right."""
        clip = page.locator("#picture-left").evaluate("img => getComputedStyle(img).clipPath")
        return float(re.search(r"calc\(100% - ([\d.]+)%\)|([\d.]+)%", clip).group(2))

    assert hidden() == 50
    page.focus("#split")
    page.keyboard.press("ArrowRight")
    assert hidden() == 49
    page.keyboard.press("End")
    assert hidden() == 0
    stage = page.locator("#stage")
    stage.click(position={"x": stage.bounding_box()["width"] / 4, "y": 5})
    assert hidden() == pytest.approx(75, abs=1)


def test_blinking_starts_and_stops(opened):
    from playwright.sync_api import expect

    page = opened()
    page.focus("#blink")
    page.keyboard.press("Enter")
    assert page.get_attribute("#blink", "aria-pressed") == "true"
    expect(page.locator("#split")).to_have_value("100")
    expect(page.locator("#split")).to_have_value("0")
    page.keyboard.press("Enter")
    assert page.get_attribute("#blink", "aria-pressed") == "false"


def test_images_and_problems_are_chosen(opened, material):
    page = opened()
    page.select_option("#images-problem", "deblur_s1.6")
    page.select_option("#images-image", "bird")
    page.select_option("#images-right", "Mine")
    row = material.results.query(
        "method == 'mine' and problem_id == 'deblur_s1.6' and image == 'bird'"
    )
    assert f"Mine, {row.psnr_db.item():.2f} dB" in page.inner_text("#caption-right")
    assert page.get_attribute("#picture-right", "alt").startswith("Mine, bird, deblurring")
    sizes = page.evaluate(
        "[...document.querySelectorAll('#stage img, #details img')]"
        ".map(img => [img.naturalWidth, img.naturalHeight])"
    )
    side = pictures.DETAIL
    views = 2 + len(LABELS)
    assert sizes == [[80, 72]] * 2 + [[side, side]] * (2 * views - 1)


def test_training_curves_are_drawn(opened):
    page = opened()
    assert page.locator("#training-charts .chart").count() == 4
    assert page.locator("#training-charts .trace").count() == 5


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_screen(opened, width):
    page = opened(viewport={"width": width, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.select_option("#images-image", "bird")
    page.check("#metric-ssim")
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_charts_follow_the_window(opened):
    page = opened(viewport={"width": 1280, "height": 700})
    before = page.locator("#curves-chart .main-svg").first.bounding_box()["width"]
    page.set_viewport_size({"width": 400, "height": 700})
    page.wait_for_selector("#curves-chart .main-svg[width='368']")
    assert before > 1000
    assert page.evaluate("document.documentElement.scrollWidth") == 400


def contrast(first, second):
    """The ratio of WCAG 2 between two colours such as rgb(1, 2, 3) or #010203."""

    def luminance(colour):
        channels = (
            bytes.fromhex(colour[1:])
            if colour.startswith("#")
            else [float(c) for c in re.findall(r"[\d.]+", colour)[:3]]
        )
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
            for c in (channel / 255 for channel in channels)
        ]
        return np.dot((0.2126, 0.7152, 0.0722), linear)

    darker, lighter = sorted(map(luminance, (first, second)))
    return (lighter + 0.05) / (darker + 0.05)


def test_the_contrast_is_measured_rightly():
    assert contrast("#000000", "rgb(255, 255, 255)") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize(
    ("scheme", "media"), [("light", "screen"), ("dark", "screen"), ("dark", "print")]
)
def test_text_and_lines_can_be_read_in_every_theme(opened, scheme, media):
    page = opened(color_scheme=scheme)
    page.emulate_media(media=media, color_scheme=scheme)
    style = page.evaluate(
        """() => {
          const style = getComputedStyle(document.documentElement);
          const names = ["paper", "ink", "muted", "accent", "better", "worse"];
          for (let n = 0; n < 4; n++) names.push(`series-${n}`);
          return Object.fromEntries(names.map((n) => [n, style.getPropertyValue(`--${n}`).trim()]));
        }"""
    )
    paper = style.pop("paper")
    paper = {"#fff": "#ffffff"}.get(paper, paper)
    assert (contrast(paper, "#ffffff") < 1.1) == (scheme == "light" or media == "print")
    needed = {"ink": 7, "muted": 4.5, "accent": 4.5, "better": 4, "worse": 4}
    for name, colour in style.items():
        assert contrast(paper, colour) >= needed.get(name, 2.9), (name, colour)


def test_what_is_printed_is_light_and_as_wide_as_the_paper(opened):
    page = opened(color_scheme="dark", viewport={"width": 1280, "height": 800})
    state = """() => [getComputedStyle(document.body).backgroundColor,
      Math.max(...[...document.querySelectorAll('.chart .main-svg')].map(
        svg => svg.getBoundingClientRect().right - document.body.getBoundingClientRect().left)),
      document.body.clientWidth]"""
    dark, wide, _ = page.evaluate(state)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    light, narrow, paper = page.evaluate(state)
    assert contrast(light, "#ffffff") < 1.1 < contrast(dark, "#ffffff")
    assert narrow <= paper < 190 / 25.4 * 96 < wide  # 190 mm at CSS's 96 pixels an inch
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(state)[:2] == [dark, wide]


def test_the_first_tab_leads_past_the_head_and_everything_can_be_reached(opened):
    page = opened()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached = set()
    for _ in range(80):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    assert {
        "metric-psnr_db",
        "curves-problem",
        "curves-chart",
        "images-problem",
        "images-image",
    } <= reached
    assert {"images-left", "images-right", "split", "blink", "training-stage"} <= reached
