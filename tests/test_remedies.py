"""What messages tell a user to type exists: options and commands.

That a remedy works when it is typed is tested beside what raises the message.
"""

import ast
import re
from pathlib import Path

import pytest
from snakemake.cli import get_argument_parser

import rglib

PACKAGE = Path(rglib.__file__).parent
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
TO_GIT = {"--error-unmatch"}  # by rglib itself


@pytest.fixture(scope="module")
def trees():
    return [ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")]


def texts(tree):
    """Every text of a module, docstrings aside; a formatted one as it is written."""
    nodes = list(ast.walk(tree))
    left_out = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            left_out |= {id(part) for part in ast.walk(node) if part is not node}
            yield ast.unparse(node)
    for node in nodes:
        if isinstance(node, ast.Constant) and id(node) not in left_out:
            yield str(node.value)


def offered(tree):
    """The options of the command lines in a module."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    adding = [call for call in calls if getattr(call.func, "attr", "") == "add_argument"]
    return {arg.value for call in adding for arg in call.args if isinstance(arg, ast.Constant)}


def test_every_option_that_is_named_is_offered(trees):
    known = {
        option for action in get_argument_parser()._actions for option in action.option_strings
    }
    known = known.union(TO_GIT, *map(offered, trees))
    sentences = [text for tree in trees for text in texts(tree) if " " in text]
    named = {option for text in sentences for option in OPTION.findall(text)}
    assert len(named) > 15
    assert named - known == set()


def test_every_command_that_is_named_is_one(trees):
    named = re.findall(r"`(\w+) [^`]+`", "\n".join(text for tree in trees for text in texts(tree)))
    assert set(named) == {"snakemake", "rglib", "git"}
