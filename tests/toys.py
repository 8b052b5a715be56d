"""What made results that nothing made: a provenance for tests of what is written."""

import itertools
from dataclasses import replace

from rglib.records.provenance import make_provenance


def toy_provenance(title="Embedded", *, stand_in_for="Set5"):
    """Of a small run on a stand-in of this title, or, with None, on a test set of its own."""
    config = {
        "run": "r",
        "seeds": [0],
        "precision": {"train": "auto", "evaluate": "float32"},
        "network": {"widths": [8], "blocks": 1},
        "evaluation": {
            "solver": "adam",
            "iterations": 2,
            "tolerance": None,
            "average": False,
            "x0": "released",
        },
    }
    test_set = {"title": title, "stand_in_for": stand_in_for, "images": []}
    return make_provenance(config, test_set=test_set, cards=[])


LONG_FOOT = replace(
    toy_provenance("photographs of a folder (left out: one.png, two.png)"),
    run="a_run_with_a_long_name",
    solver="semi_implicit",
)


def check_layout(figure, *, foot_lines):
    """Nothing that is drawn is cut off, and foot, legends and panels do not cover one another."""
    figure.canvas.draw()
    whole, foot = figure.bbox, figure.texts[0]
    assert foot.get_text().count("\n") + 1 >= foot_lines, foot.get_text()
    panels = [axes.get_tightbbox() for axes in figure.axes if axes.axison]
    legends = [legend.get_window_extent() for legend in figure.legends]
    for box in (*panels, *legends, foot.get_window_extent()):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= whole.x1 and box.y1 <= whole.y1, box
    floor = foot.get_window_extent().y1
    assert all(legend.y0 >= floor for legend in legends)
    floor = max([floor, *(legend.y1 for legend in legends)])
    assert all(panel.y0 >= floor for panel in panels)
    for one, other in itertools.combinations(panels, 2):
        assert min(one.x1, other.x1) - max(one.x0, other.x0) < 1 or (
            min(one.y1, other.y1) - max(one.y0, other.y0) < 1
        )
