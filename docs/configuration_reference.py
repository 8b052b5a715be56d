"""The directive ``configuration-reference``: every key of the configuration, from its schema.

Beside what the schema says of a key stand the values of config.yaml and, where it has another, of
config/paper.yaml.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from tabulate import tabulate

from rglib.plan.ablations import overlaid
from rglib.plan.schema import BOUNDS, TYPES

ROOT = Path(__file__).parent.parent
FILES = ("workflow/schemas/config.schema.yaml", "config.yaml", "config/paper.yaml")
NAMES = {  # what stands for the names that a section is free to choose
    "stages": "<stage>",
    "methods": "<method>",
    "weights": "<stage>",
    "ablations": "<ablation>",
    "problems": "<problem>",
    "variants": "<variant>",
}

Schema = Mapping[str, Any]
Path_ = tuple[str, ...]


class ConfigurationReference(SphinxDirective):
    """A section for each part of the configuration, with a table of its keys."""

    def run(self) -> list[nodes.Node]:
        """Read the files and parse the Markdown made of them."""
        schema, default, paper = (yaml.safe_load((ROOT / name).read_text()) for name in FILES)
        for name in FILES:
            self.env.note_dependency(str(ROOT / name))
        return self.parse_text_to_nodes(
            markdown(schema, default, overlaid(default, paper)), allow_section_headings=True
        )


def markdown(schema: Schema, default: Schema, paper: Schema) -> str:
    """The reference as Markdown, in the order of the default configuration."""
    parts = []
    for name in [*default, *(key for key in schema["properties"] if key not in default)]:
        node = resolved(schema["properties"][name], schema)
        rows = [
            row(path, key, default, paper)
            for path, key in keys(node, (name,), schema)
            if path != (name,) or not is_mapping(node)
        ]
        headers = ("key", "config.yaml", "paper.yaml", "what it is", "allowed")
        table = tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True)
        about = [cell(node["description"])] if is_mapping(node) else []
        parts += [f"## {name}", *about, table]
    return "\n\n".join(parts)


def keys(node: Schema, path: Path_, schema: Schema) -> Iterator[tuple[Path_, Schema]]:
    """The entries below a node that hold a value, with the way to each."""
    if not is_mapping(node):
        yield path, node
        return
    for name, inner in node.get("properties", {}).items():
        inner = resolved(inner, schema)
        own = resolved(node.get("additionalProperties") or {}, schema)
        if path == ("problems",) and own:  # the paper's twelve are alike
            continue
        yield from keys(inner, (*path, name), schema)
    free = node.get("additionalProperties")
    if isinstance(free, Mapping):
        yield from keys(resolved(free, schema), (*path, NAMES[path[-1]]), schema)
    for case in node.get("allOf", ()):
        options = case["then"]["properties"]["options"]
        objective = case["if"]["properties"]["objective"]["const"]
        for name, inner in resolved(options, schema)["properties"].items():
            yield (*path, "options", f"{name} ({objective})"), resolved(inner, schema)


def is_mapping(node: Schema) -> bool:
    """Whether it is a mapping whose keys the schema knows."""
    return "properties" in node or isinstance(node.get("additionalProperties"), Mapping)


def resolved(node: Schema, schema: Schema) -> Schema:
    """The node with what it refers to; its own words come first."""
    if "$ref" not in node:
        return node
    target: Any = schema
    for part in node["$ref"].removeprefix("#/").split("/"):
        target = target[part]
    return {**resolved(target, schema), **node}


def row(path: Path_, node: Schema, default: Schema, paper: Schema) -> tuple[str, ...]:
    """A line of the table."""
    ours, theirs = value_at(path, default), value_at(path, paper)
    return (
        f"`{'.'.join(path[1:]) or path[0]}`",
        ours,
        theirs if theirs != ours else "",
        cell(node["description"]),
        cell(allowed(node)),
    )


def value_at(path: Path_, config: Any) -> str:
    """The value as YAML, nothing where the configuration has none there."""
    for part in path:
        if not isinstance(config, Mapping) or part not in config:
            return ""
        config = config[part]
    text = yaml.safe_dump(config, default_flow_style=True, width=1000).removesuffix("...\n")
    return f"`{text.strip()}`"


def allowed(node: Schema) -> str:
    """What a value may be, in words."""
    if "title" in node:
        return str(node["title"])
    if "enum" in node:
        return ", ".join(map(str, node["enum"]))
    types = node.get("type", "object")
    words = " or ".join(TYPES[name] for name in ([types] if isinstance(types, str) else types))
    return ", ".join([words, *(f"{BOUNDS[key]} {node[key]}" for key in BOUNDS if key in node)])


def cell(text: str) -> str:
    """The text within a table of Markdown, where bars and angle brackets have a meaning."""
    return text.replace("|", r"\|").replace("<", r"\<").replace("*", r"\*").replace("_", r"\_")


def setup(app: Sphinx) -> dict[str, bool]:
    """Tell Sphinx of the directive."""
    app.add_directive("configuration-reference", ConfigurationReference)
    return {"parallel_read_safe": True}
