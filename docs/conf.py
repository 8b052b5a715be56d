"""How the documentation is built: sphinx-build -W -b html docs build/docs."""

import importlib.metadata
import os
import sys
from pathlib import Path

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # for the notebooks: on a busy machine more are slower
sys.path.insert(0, str(Path(__file__).parent))  # for configuration_reference

project = "rglib"
version = release = importlib.metadata.version("rglib")

extensions = [
    "myst_nb",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx-mathjax-offline",
    "configuration_reference",
]

# API: a page for each module, from its docstrings.
apidoc_modules = [
    {"path": "../rglib", "destination": "api", "separate_modules": True, "module_first": True}
]
autodoc_mock_imports = ["deepinv", "rocrate"]  # extras
autodoc_preserve_defaults = True
napoleon_use_ivar = True
default_role = "py:obj"  # `name` in a docstring: a link where the name has a page, else code
nitpicky = True  # a link written as such must lead somewhere
nitpick_ignore_regex = [
    ("py:obj", ".*"),
    (
        "py:class",
        r"(?!rglib\.).*|.*\.(State|Batch)",
    ),  # other packages: no inventory is fetched
]

# Prose
myst_enable_extensions = ["amsmath", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600  # seconds a cell

html_theme = "furo"
html_title = "rglib"
html_show_copyright = False
