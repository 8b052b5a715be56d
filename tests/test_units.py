import re
from pathlib import Path

import pytest

from rglib.core.units import from_255, on_unit_scale

ROOT = Path(__file__).parents[1]
# where what is divided is no key of the configuration but an image's uint8, a level or a default
READS = re.compile(r"_255\"?\]?\)? */ *255")


@pytest.mark.parametrize("value", [0, 2.55, 12.75, 50, 255])
def test_a_level_is_what_division_by_255_gives_to_the_bit(value):
    assert from_255(value) == value / 255


def test_a_section_keeps_what_is_not_on_0_to_255():
    section = {"sigma_max_255": 50, "noise": "uniform", "factors": [1, 2], "within": {"s_255": 1}}
    assert on_unit_scale(section) == {
        "sigma_max": 50 / 255,
        "noise": "uniform",
        "factors": [1, 2],
        "within": {"s_255": 1},
    }
    assert "sigma_max_255" in section


def test_nothing_else_converts_what_the_configuration_says():
    files = [*ROOT.glob("rglib/**/*.py"), *ROOT.glob("workflow/**/*.py")]
    found = [path.name for path in files if READS.search(path.read_text(encoding="utf-8"))]
    assert len(files) > 100 and found == []
    assert READS.search('section["sigma_max_255"] / 255') and READS.search("s_255 / 255")
