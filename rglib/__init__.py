"""Regularizing gradients for multi-task image restoration (Willingham et al., VISAPP 2024).

``rglib.load("rerg")`` is a prior to restore images with, see `rglib.restoration.prior`.
"""

import importlib
from typing import Any

__version__ = "0.2.0"

__all__ = ["Prior", "__version__", "load"]


def __getattr__(name: str) -> Any:
    # by name, when asked for: PyTorch takes a second to import, and `code_hash` counts what a
    # package's __init__ imports for each of its modules
    if name in ("Prior", "load"):
        return getattr(importlib.import_module("rglib.restoration.prior"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
