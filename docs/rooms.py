"""Draw docs/rooms.svg, the rooms of rglib and what they import: ``python docs/rooms.py``.

Rows are the layers of the contract in pyproject.toml, from top to bottom; arrows are imports found
in the source, without those that follow from others. A test draws it anew and compares.
"""

from __future__ import annotations

import ast
import tomllib
from html import escape
from pathlib import Path

import grimp
import networkx

ROOT = Path(__file__).parent.parent
TARGET = Path(__file__).with_name("rooms.svg")
COLUMNS = {  # where in its row a room stands, so that arrows pass beside boxes
    "commands": 0.5,
    "integrations": 1,
    "conformance": 2,
    "gpu": 3,
    "report": 0,
    "studies": 2.3,
    "training": 1.1,
    "restoration": 2.5,
    "records": 0,
    "plan": 0.6,
    "data": 1.2,
    "core": 2.7,
    "paper": 0,
    "extensions": 1,
    "progress": 2,
    "files": 3,
}
WIDTH, HEIGHT = 182, 42
STEP = 196, 78  # from a column to the next, and from a row to the next
MARGIN = 12
STYLE = """
svg { background: #ffffff; font: 11px sans-serif; }
rect { fill: #eef3f8; stroke: #4a6a8a; rx: 5px; }
.light { fill: #f5f1e6; stroke: #8a7a4a; }
.name { font: bold 14px sans-serif; }
path { fill: none; stroke: #777777; stroke-width: 1.2px; marker-end: url(#arrow); }
"""


def layers() -> list[list[str]]:
    """The rooms of each row, from the contract."""
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (rows,) = (one["layers"] for one in linter["contracts"] if one["type"] == "layers")
    return [row.split(" | ") for row in rows]


def without_torch() -> set[str]:
    """The rooms that PyTorch may not be imported in, from the contract."""
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (rooms,) = (one["source_modules"] for one in linter["contracts"] if one["type"] == "forbidden")
    return {room.removeprefix("rglib.") for room in rooms}


def arrows() -> list[tuple[str, str]]:
    """From each room to those that it imports, as few as say it all."""
    graph = grimp.build_graph("rglib", cache_dir=None)
    found = networkx.DiGraph()
    for module in graph.modules:
        for other in graph.find_modules_directly_imported_by(module):
            rooms = [name.split(".")[1] for name in (module, other) if "." in name]
            if len(set(rooms)) == 2 and "__main__" not in rooms:
                found.add_edge(*rooms)
    return sorted(networkx.transitive_reduction(found).edges)


def svg() -> str:
    """The picture."""
    rows = layers()
    places = {
        room: (MARGIN + COLUMNS[room] * STEP[0], MARGIN + depth * STEP[1])
        for depth, row in enumerate(rows)
        for room in row
    }
    width = 2 * MARGIN + max(COLUMNS.values()) * STEP[0] + WIDTH
    height = 2 * MARGIN + (len(rows) - 1) * STEP[1] + HEIGHT
    lines = [_arrow(places[a], places[b]) for a, b in arrows()]
    boxes = [_box(room, places[room]) for room in places]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
            f'width="{width:g}" role="img">',
            "<title>The rooms of rglib and what they import</title>",
            f"<style>{STYLE}</style>",
            '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto"><path d="M0,0 L8,4 L0,8 z" '
            'style="fill:#777777;stroke:none;marker-end:none"/></marker></defs>',
            *lines,
            *boxes,
            "</svg>",
            "",
        ]
    )


def _box(room: str, place: tuple[float, float]) -> str:
    x, y = place
    kind = ' class="light"' if room in without_torch() else ""
    return (
        f'<rect{kind} x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}"/>'
        f'<text class="name" x="{x + 9:g}" y="{y + 18:g}">{room}</text>'
        f'<text x="{x + 9:g}" y="{y + 34:g}">{escape(about(room))}</text>'
    )


def _arrow(upper: tuple[float, float], lower: tuple[float, float]) -> str:
    """A curve that leaves one box downwards and reaches the other from above."""
    (x0, y0), (x1, y1) = upper, lower
    x0, y0, x1 = x0 + WIDTH / 2, y0 + HEIGHT, x1 + WIDTH / 2
    bend = (y1 - y0) / 2
    return f'<path d="M{x0:g},{y0:g} C{x0:g},{y0 + bend:g} {x1:g},{y1 - bend:g} {x1:g},{y1:g}"/>'


def about(room: str) -> str:
    """What a room's docstring says before its colon."""
    path = ROOT / "rglib" / room / "__init__.py"
    source = (path if path.exists() else ROOT / f"rglib/{room}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").split(":")[0]


if __name__ == "__main__":
    TARGET.write_text(svg(), encoding="utf-8")
