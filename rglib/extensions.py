"""Code of your own: named in the configuration as ``module:Name``.

``examples.huber:HuberDescent`` is the class ``HuberDescent`` of the file ``examples/huber.py`` in
the working folder, where the configuration lies. Its parameters are the ``options`` that stand
beside the name. No PyTorch here, but what the module imports is imported.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any


class ExtensionError(ValueError):
    """What the configuration names is not there, or cannot be made with its options."""


def is_own(name: str) -> bool:
    """Whether a name in the configuration is ``module:Name`` instead of one of the project's."""
    return ":" in name


def load(reference: str) -> Callable[..., Any]:
    """The class or function that ``module:Name`` stands for.

    Raises:
        ExtensionError: there is no such file in the working folder, it cannot be imported, or it
            holds no such class or function.
    """
    module_name, _, name = reference.partition(":")
    module = _imported(module_name)
    found: Callable[..., Any] | None = getattr(module, name, None)
    if found is None or not callable(found):
        known = [key for key, value in vars(module).items() if _is_defined_in(module_name, value)]
        raise ExtensionError(
            f"{module.__file__} has no {name}{closest(name, known)} (it has: {', '.join(known)})"
        )
    return found


def make(reference: str, options: Mapping[str, Any], *, given: Mapping[str, Any]) -> Any:
    """What ``module:Name`` makes of its options and of what it is given by the project.

    Args:
        reference: ``module:Name``.
        options: from the configuration, by parameter.
        given: by parameter too; what the class or function has no parameter for is left out.

    Raises:
        ExtensionError: as `load`; or an option is unknown, missing or refused.
    """
    maker = load(reference)
    taken = parameters(maker) & given.keys()
    known = parameters(maker) - given.keys()
    if unknown := [key for key in options if key not in known]:
        has = ", ".join(sorted(known)) or "none"
        raise ExtensionError(
            f"{reference} has no option {unknown[0]}{closest(unknown[0], known)} (it has: {has})"
        )
    try:
        return maker(**options, **{key: given[key] for key in taken})
    except Exception as error:  # whatever the user's own code may raise
        raise ExtensionError(f"{reference} refuses its options: {_told(error)}") from error


def parameters(maker: Callable[..., Any]) -> set[str]:
    """The names of what a class or function is called with."""
    return set(inspect.signature(maker).parameters)


def closest(name: str, known: Iterable[str]) -> str:
    """A question to add to a message where a known name is much like this one, else nothing."""
    found = get_close_matches(name, list(known), n=1)
    return f'; did you mean "{found[0]}"?' if found else ""


def _imported(module_name: str) -> Any:
    file = Path.cwd().joinpath(*module_name.split(".")).with_suffix(".py")
    if not file.is_file():
        raise ExtensionError(f"there is no file {file.relative_to(Path.cwd())}")
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ExtensionError(f"{file} cannot be imported: {_told(error)}") from error
    if Path(module.__file__ or "").resolve() != file.resolve():
        raise ExtensionError(f"{file} has the name of {module.__file__}: give it another one")
    return module


def _is_defined_in(module_name: str, value: Any) -> bool:
    return callable(value) and getattr(value, "__module__", "") == module_name


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
