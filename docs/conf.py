"""How the documentation is built: sphinx-build -W -b html docs build/docs."""

import importlib.metadata

project = "rglib"
version = release = importlib.metadata.version("rglib")

extensions = [
    "myst_nb",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx-mathjax-offline",
]

# API: a page for each module, from its docstrings.
apidoc_modules = [
    {"path": "../rglib", "destination": "api", "separate_modules": True, "module_first": True}
]
autodoc_preserve_defaults = True
napoleon_use_ivar = True
default_role = "py:obj"  # `name` in a docstring: a link where the name has a page, else code
nitpicky = True  # a link written as such must lead somewhere
nitpick_ignore_regex = [
    ("py:obj", ".*"),
    (
        "py:class",
        r"(?!rglib\.).*|.*\.State",
    ),  # other packages: no inventory is fetched
]

# Prose
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True

html_theme = "furo"
html_title = "rglib"
