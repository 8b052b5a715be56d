"""What code depends on: the definitions that it reaches from its entry points, and a hash of them.

Snakemake sees a changed script and not what the script calls. `code_hash` does: from a script of
the workflow it follows every name to the function, class or constant that binds it, in whatever
module of rglib, and from there on. What is not reached does not count, so that a change makes again
what depends on it and nothing else. Nothing is imported or executed: the source is read.

- A class counts with all its methods. A statement at the top of a module that does something,
  rather than bind a name, counts wherever the module is imported.
- A module counts as a whole where it cannot be told what of it is used: where it is handed on, or
  named in a string, as in ``python -m rglib.training.launch``. So does a module of your own
  (`rglib.extensions`), with all that it imports from its folder.
- A file beside a module counts where a string names it, such as the tables in ``rglib/``; in rglib
  a folder too, and of your own code a file in the working folder.
- Comments, docstrings, formatting, the annotations' own definitions and the order of definitions do
  not count; nor do other packages, whose versions are in the provenance, and
  `MODULES_WITHOUT_NUMBERS`.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rglib.files import file_digest

SOURCE_ROOT = Path(__file__).resolve().parents[2]
DIGITS = 12  # of a shortened sha256: 48 bits, beyond any accident among the versions of one project

MODULES_WITHOUT_NUMBERS = ("rglib.progress",)  # they show the work to people and leave it alone

_CHOICE = re.compile(r"(?P<module>[\w.]+):(?P<table>\w+)\[(?P<keys>[\w,]*)\]")
_ABOUT_ITSELF = {"__name__", "__file__", "__doc__", "__spec__"}

Parts = tuple[str, ...]  # of a dotted name
Table = tuple[str, str]  # a module, and the name of a dict in it


def code_hash(entries: str, *, root: Path | None = None, script: Path | None = None) -> str:
    """Hash what the entry points compute.

    Args:
        entries: separated by blanks. ``workflow/scripts/train.py`` is a script,
            ``rglib.report.evaluations`` all of a module, ``rglib.report.evaluations:summarise`` one
            definition in it. ``rglib.core.fixed_point:SOLVERS[adam]`` is no entry point: of this
            dict, which maps names of the configuration to code, only these keys are ever asked for,
            or those of several such words; a dict of which nothing is said counts as a whole.
        root: the folder that holds scripts and all modules, by default the working folder. There
            rglib, and elsewhere where a folder has none, is the one that runs.
        script: where the script lies if not there, as in a workflow that is deployed.

    Returns:
        12 hexadecimal digits. Like `ast.dump`, they may differ between versions of Python.

    Raises:
        ModuleNotFoundError: there is no such script, module or definition.
        ValueError: what is said to be a dict is none that is written out, or lacks a key.
        SyntaxError: one of the files cannot be parsed.
    """
    reach = _Reach.of(entries, root, script)
    digest = hashlib.sha256()
    for name in sorted(reach.counted):
        module, counted = reach.modules[name], reach.counted[name]
        for part in sorted(counted, key=lambda part: (part.binds, part.place)):
            digest.update(f"{name}\n{part.text}\n".encode())
            for used in sorted(reach.outside(module, part)):
                digest.update(f"{used}\n".encode())
    for path in sorted(reach.data):
        digest.update(f"{path.name} {file_digest(path)}\n".encode())
    return digest.hexdigest()[:DIGITS]


def reached(entries: str, *, root: Path | None = None) -> set[str]:
    """What `code_hash` counts, for tests and for people, each as ``rglib.module:name``."""
    reach = _Reach.of(entries, root)
    return {
        f"{module}:{name}"
        for module, counted in reach.counted.items()
        for part in counted
        for name in part.binds or ("",)
    }


def source_hash(folder: Path) -> str:
    """Hash all statements of all modules in a folder: 12 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        parts = _parsed(path.read_text(encoding="utf-8"), "").parts
        digest.update("\n".join([str(path.relative_to(folder)), *(p.text for p in parts)]).encode())
    return digest.hexdigest()[:DIGITS]


# ------------------------------------------------------------------------------------ one module


@dataclass(frozen=True)
class _Part:
    """A statement at the top of a module.

    ``binds`` are the names that it gives a value, ``text`` what it does, ``names`` the dotted names
    that it takes from its module, ``imports`` those that it imports itself, inside of a function,
    and ``strings`` its literals. ``acts`` if it does more than bind, ``main`` if it is for a module
    that is run as a script.
    """

    place: int
    binds: Parts
    text: str
    names: frozenset[Parts]
    imports: frozenset[Parts]
    strings: frozenset[str]
    acts: bool = False
    main: bool = False


@dataclass(frozen=True)
class _Module:
    """The parts of a module, what its names are imported from, and what importing it imports.

    The latter two as dotted names, of modules or of something in one.
    """

    parts: tuple[_Part, ...]
    imported: Mapping[str, tuple[Parts, ...]]
    loads: tuple[Parts, ...]
    tree: ast.Module

    def binding(self, name: str) -> list[_Part]:
        return [part for part in self.parts if name in part.binds]


@functools.cache  # keyed by the source itself: a workflow hashes the same few modules many times
def _parsed(source: str, package: str) -> _Module:
    tree = _WithoutDocstrings().visit(ast.parse(source))
    parts: list[_Part] = []
    imported: dict[str, tuple[Parts, ...]] = {}
    loads: list[Parts] = []
    for place, statement in enumerate(tree.body):
        if _asks(statement, "TYPE_CHECKING"):
            continue
        for node in _outside_of_functions([statement]):
            if isinstance(node, ast.Import | ast.ImportFrom):
                for name, target in _targets(node, package):
                    loads.append(target)
                    imported[name] = (*imported.get(name, ()), target)
        if not isinstance(statement, ast.Import | ast.ImportFrom):
            parts.append(_part(statement, place, package))
    return _Module(tuple(parts), imported, tuple(loads), tree)


def _part(statement: ast.stmt, place: int, package: str) -> _Part:
    names = _Names(package)
    names.visit(statement)
    binds = [*_bound([statement])]
    is_definition = isinstance(
        statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    ) or (
        isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign)
        and all(isinstance(target, ast.Name | ast.Tuple) for target in _assigned(statement))
    )
    return _Part(
        place=place,
        binds=tuple(binds),
        text=ast.dump(statement),
        names=frozenset(names.names),
        imports=frozenset(names.imports),
        strings=frozenset(names.strings),
        acts=not is_definition,
        main=_asks(statement, "__name__"),
    )


def _assigned(statement: ast.Assign | ast.AnnAssign | ast.AugAssign) -> list[ast.expr]:
    return statement.targets if isinstance(statement, ast.Assign) else [statement.target]


def _asks(statement: ast.stmt, name: str) -> bool:
    """Whether it is ``if TYPE_CHECKING`` or ``if __name__ == ...``."""
    if not isinstance(statement, ast.If):
        return False
    return any(
        isinstance(node, ast.Name | ast.Attribute) and _last(node) == name
        for node in ast.walk(statement.test)
    )


def _last(node: ast.Name | ast.Attribute) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr


class _WithoutDocstrings(ast.NodeTransformer):
    """Drops every statement that is a bare string: those say something and do nothing."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        is_string = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_string else node


_SCOPES = (
    ast.FunctionDef
    | ast.AsyncFunctionDef
    | ast.Lambda
    | ast.ClassDef
    | ast.ListComp
    | ast.SetComp
    | ast.DictComp
    | ast.GeneratorExp
)


def _outside_of_functions(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """The nodes of a scope without those of the scopes inside of it."""
    for node in body:
        yield node
        if not isinstance(node, _SCOPES):
            yield from _outside_of_functions(ast.iter_child_nodes(node))


def _bound(body: Iterable[ast.AST]) -> dict[str, None]:
    """The names that statements give a value in their scope, imports left out."""
    found: dict[str, None] = {}
    elsewhere: set[str] = set()
    for node in _outside_of_functions(body):
        match node:
            case ast.Name(id=name, ctx=ast.Store()):
                found[name] = None
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found[name] = None
            case ast.ClassDef(name=name):
                found[name] = None
            case ast.ExceptHandler(name=str(name)):
                found[name] = None
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                found[name] = None
            case ast.MatchMapping(rest=str(name)):
                found[name] = None
            case ast.Global(names=names) | ast.Nonlocal(names=names):
                elsewhere |= set(names)
    return {name: None for name in found if name not in elsewhere}


def _targets(node: ast.Import | ast.ImportFrom, package: str) -> Iterator[tuple[str, Parts]]:
    """Each name that an import binds, and the dotted name of what it binds it to."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            parts = tuple(alias.name.split("."))
            yield (alias.asname, parts) if alias.asname else (parts[0], parts[:1])
            if not alias.asname and len(parts) > 1:  # bound to nothing, but loaded
                yield f"import {alias.name}", parts
        return
    base = tuple(package.split(".")) if node.level else ()
    base = base[: len(base) - node.level + 1] if node.level else base
    module = (*base, *(node.module.split(".") if node.module else ()))
    for alias in node.names:
        yield alias.asname or alias.name, (*module, alias.name)


class _Names(ast.NodeVisitor):
    """The dotted names that a statement takes from its module, by Python's rules of scope.

    Annotations are not followed: they are not computed with.
    """

    def __init__(self, package: str) -> None:
        self.names: set[Parts] = set()
        self.imports: set[Parts] = set()
        self.strings: set[str] = set()
        self._package = package
        self._scopes: list[tuple[dict[str, Parts | None], bool]] = []  # names, and if of a class

    def visit_Name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Store):
            self._use((node.id,))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        parts: list[str] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            parts.insert(0, inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            self._use((inner.id, *parts))
        else:
            self.visit(inner)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self.strings.add(node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.visit(node.target)
        if node.value is not None:
            self.visit(node.value)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._visit_all(node.decorator_list)
        self._function(node.args, node.body)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._function(node.args, [node.body])

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._visit_all([*node.decorator_list, *node.bases, *node.keywords])
        self._scope(node.body, of_class=True)

    def visit_ListComp(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp) -> None:
        self._scope([*node.generators, node.elt])

    def visit_SetComp(self, node: ast.SetComp) -> None:
        self.visit_ListComp(node)

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> None:
        self.visit_ListComp(node)

    def visit_DictComp(self, node: ast.DictComp) -> None:
        self._scope([*node.generators, node.key, node.value])

    def _function(self, arguments: ast.arguments, body: Sequence[ast.AST]) -> None:
        self._visit_all([*arguments.defaults, *(d for d in arguments.kw_defaults if d)])
        one_each = [a for a in (arguments.vararg, arguments.kwarg) if a]
        listed = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *one_each]
        self._scope(body, also=[argument.arg for argument in listed])

    def _scope(
        self, body: Sequence[ast.AST], *, also: Iterable[str] = (), of_class: bool = False
    ) -> None:
        known: dict[str, Parts | None] = dict.fromkeys([*also, *_bound(body)])
        for node in _outside_of_functions(body):
            if isinstance(node, ast.Import | ast.ImportFrom):
                targets = dict(_targets(node, self._package))
                self.imports |= set(targets.values())
                known |= targets
        self._scopes.append((known, of_class))
        self._visit_all(body)
        self._scopes.pop()

    def _visit_all(self, nodes: Iterable[ast.AST]) -> None:
        for node in nodes:
            self.visit(node)

    def _use(self, parts: Parts) -> None:
        for depth, (known, of_class) in enumerate(reversed(self._scopes)):
            if parts[0] in known and not (of_class and depth):
                if (target := known[parts[0]]) is not None:
                    self.imports.add((*target, *parts[1:]))
                return
        self.names.add(parts)


# ---------------------------------------------------------------------------------- many modules


@dataclass
class _Reach:
    """What is reached from entry points, module by module, in `counted` and `data`."""

    root: Path | None
    chosen: Mapping[Table, Sequence[str]]
    script: Path | None = None
    modules: dict[str, _Module] = field(default_factory=dict)
    counted: dict[str, dict[_Part, None]] = field(default_factory=dict)
    data: set[Path] = field(default_factory=set)
    _loaded: set[str] = field(default_factory=set)
    _whole: set[str] = field(default_factory=set)
    _followed: set[Parts] = field(default_factory=set)
    _paths: dict[str, Path | None] = field(default_factory=dict)

    @classmethod
    def of(cls, entries: str, root: Path | None, script: Path | None = None) -> _Reach:
        words = entries.split()
        chosen: dict[Table, set[str]] = {}
        for choice in filter(None, map(_CHOICE.fullmatch, words)):
            keys = chosen.setdefault((choice["module"], choice["table"]), set())
            keys |= set(filter(None, choice["keys"].split(",")))
        reach = cls(root, {table: sorted(keys) for table, keys in chosen.items()}, script)
        for word in words:
            if not _CHOICE.fullmatch(word):
                reach._enter(word)
        return reach

    def outside(self, module: _Module, part: _Part) -> set[str]:
        """The names of other packages, and of Python, that a part uses."""
        used = {
            (*target, *parts[1:])
            for parts in part.names
            for target in module.imported.get(parts[0], ())
        }
        return {".".join(parts) for parts in used | part.imports if not self._is_module(parts[:1])}

    def _enter(self, entry: str) -> None:
        module, _, name = entry.partition(":")
        if self._module(module) is None:
            where = self.root or Path.cwd()
            raise ModuleNotFoundError(f"no module {module!r} under {where}", name=module)
        if name and self._is_ours(module):
            parts = (*module.split("."), name)
            if not self.modules[module].binding(name):
                raise ModuleNotFoundError(f"no {name} in the module {module!r}", name=module)
            self._follow(parts)
        else:
            self._take_whole(module)

    # -- finding modules

    def _path(self, name: str) -> Path | None:
        if name not in self._paths:
            self._paths[name] = self._find(name)
        return self._paths[name]

    def _find(self, name: str) -> Path | None:
        if name.endswith(".py"):
            script = (self.root or Path.cwd()) / name
            return script if script.is_file() else self.script
        parts = name.split(".")
        root = self.root or Path.cwd()
        installed = parts[0] == "rglib" and (self.root is None or not (root / "rglib").is_dir())
        stem = Path(SOURCE_ROOT if installed else root, *parts)
        candidates = (stem / "__init__.py", stem.with_name(f"{stem.name}.py"))
        return next((path for path in candidates if path.is_file()), None)

    def _module(self, name: str) -> _Module | None:
        """A module of the project or of your own by its dotted name, or a script by its path."""
        path = self._path(name)
        if path is None:
            return None
        if name not in self.modules:
            is_package = path.name == "__init__.py"
            package = name if is_package else name.rpartition(".")[0]
            self.modules[name] = _parsed(path.read_text(encoding="utf-8"), package)
        return self.modules[name]

    def _is_module(self, parts: Parts) -> bool:
        return self._path(".".join(parts)) is not None

    @staticmethod
    def _is_ours(name: str) -> bool:
        """Whether it is rglib's or a script, of which only what is reached counts."""
        return name.split(".")[0] == "rglib"

    def _belongs(self, parts: Parts, importer: str) -> bool:
        """Whether an import counts: of rglib and scripts those of rglib, of your own any."""
        strict = self._is_ours(importer) or importer.endswith(".py")
        return parts[0] == "rglib" or not strict

    # -- following names

    def _load(self, name: str) -> None:
        """A module is imported: what it does thereby counts, and the modules that it imports."""
        if name in self._loaded or name in MODULES_WITHOUT_NUMBERS:
            return
        module = self._module(name)
        if module is None:
            return
        self._loaded.add(name)
        self.counted.setdefault(name, {})
        if "." in name and not name.endswith(".py"):
            self._load(name.rpartition(".")[0])
        for target in module.loads:
            if self._belongs(target, name):
                self._load_of(target)
        for part in module.parts:
            if part.acts and not part.main:
                self._count(name, part)
        if not self._is_ours(name):
            self._take_whole(name)

    def _load_of(self, target: Parts) -> None:
        """Load the modules that a dotted name passes through."""
        for n in range(1, len(target) + 1):
            self._load(".".join(target[:n]))

    def _take_whole(self, name: str) -> None:
        if name in self._whole:
            return
        self._whole.add(name)
        module = self._module(name)
        assert module is not None
        self._load(name)
        self.counted.setdefault(name, {})
        for part in module.parts:
            self._count(name, part)

    def _count(self, name: str, part: _Part) -> None:
        part = self._narrowed(name, part)
        counted = self.counted.setdefault(name, {})
        if part in counted:
            return
        counted[part] = None
        module = self.modules[name]
        for parts in part.names:
            for bound in module.binding(parts[0]):
                self._count(name, bound)
            for target in module.imported.get(parts[0], ()):
                if self._belongs(target, name):
                    self._follow((*target, *parts[1:]))
            if not module.binding(parts[0]) and parts[0] not in module.imported:
                for target in module.imported.get("*", ()):
                    if self._belongs(target, name):
                        self._follow(target)
        for parts in part.imports:
            if self._belongs(parts, name):
                self._follow(parts)
        for text in part.strings:
            self._named_in_a_string(text, name)

    def _follow(self, parts: Parts) -> None:
        """Count what a dotted name stands for: a definition, or a module where it ends in one."""
        if parts in self._followed:
            return
        self._followed.add(parts)
        n = 0
        while n < len(parts) and self._is_module(parts[: n + 1]):
            n += 1
        name, attributes = ".".join(parts[:n]), parts[n:]
        if n == 0 or name in MODULES_WITHOUT_NUMBERS:
            return
        self._load_of(parts[:n])
        module = self._module(name)
        assert module is not None
        if attributes and (bound := module.binding(attributes[0])):
            for one in bound:
                self._count(name, one)
        elif attributes and (targets := module.imported.get(attributes[0])):
            for target in targets:
                if self._belongs(target, name):
                    self._follow((*target, *attributes[1:]))
        elif not attributes or attributes[0] not in _ABOUT_ITSELF:
            self._take_whole(name)

    def _named_in_a_string(self, text: str, importer: str) -> None:
        """``rglib.training.launch`` names a module, ``sources.csv`` a file beside the importer."""
        if re.fullmatch(r"\w+(\.\w+)+", text) and text.startswith("rglib."):
            if self._module(text) is not None and text not in MODULES_WITHOUT_NUMBERS:
                self._take_whole(text)
                return
        if re.fullmatch(r"\w[\w ./-]{0,100}", text):
            path, ours = self._path(importer), self._is_ours(importer)
            assert path is not None
            for place in (path.parent,) if ours else {path.parent, self.root or Path.cwd()}:
                self.data |= _data(place / text, folders=ours)

    def _narrowed(self, name: str, part: _Part) -> _Part:
        """The part, or of a dict with chosen keys only these."""
        for bound in part.binds:
            if (keys := self.chosen.get((name, bound))) is not None:
                package = name.rpartition(".")[0]
                return _entries(self.modules[name], part, keys, package)
        return part


def _entries(module: _Module, part: _Part, keys: Sequence[str], package: str) -> _Part:
    """A part that binds a dict, as if it had only these keys."""
    table = getattr(module.tree.body[part.place], "value", None)
    if not isinstance(table, ast.Dict) or None in table.keys:
        raise ValueError(f"{part.binds[0]} is no dict that is written out")
    pairs = zip(map(ast.literal_eval, filter(None, table.keys)), table.values, strict=True)
    written = dict(pairs)
    if unknown := [key for key in keys if key not in written]:
        raise ValueError(f"{part.binds[0]} has no key {unknown[0]}")
    values: list[ast.stmt] = [ast.Expr(written[key]) for key in keys]
    chosen = ast.Module(values, [])
    names = _Names(package)
    names.visit(chosen)
    return _Part(
        place=part.place,
        binds=part.binds,
        text=f"{','.join(keys)} {ast.dump(chosen)}",
        names=frozenset(names.names),
        imports=frozenset(names.imports),
        strings=frozenset(names.strings),
    )


def _data(path: Path, *, folders: bool) -> set[Path]:
    """The files that a name beside a module stands for, none where it is code or nothing."""
    if path.is_file():
        return set() if path.suffix == ".py" else {path}
    if folders and path.is_dir() and not any(path.glob("*.py")):
        return {inner for inner in path.rglob("*") if inner.is_file()}
    return set()
