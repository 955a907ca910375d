"""The type checker of the engine's tests: beartype, on those annotations that have shapes.

All others are mypy's, which checks them without a run: at run time they would cost three times the
tests' own time (protocols are slow to check, and each call of each function is wrapped). jaxtyping
has an import hook too, but it wraps every function, those within functions anew at each call: that
was more than half of the engine's tests' time.
"""

import ast
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import wraps
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, get_args

from beartype import beartype
from jaxtyping import AbstractArray, jaxtyped

ROOT = Path(__file__).parents[2]

SMALL = ("hook_point", "hooks", "network", "components")
"""Modules whose functions are called for each hook or row and hardly touch a tensor: the wrapper
around each call would cost more than the call."""
CLOSURES = 100
"""A function within a function is wrapped this many times; to wrap it costs a millisecond, at each
call of the outer function."""
FIRST = 5
EACH = 50
"""In each test the first `FIRST` calls of a function are checked, and after them each
`EACH`-th."""
_wrapped: Counter[CodeType] = Counter()
_test = [0]
"""How many tests have begun in this process."""


def modules(package: str) -> list[str]:
    """Returns the modules of `package` with shapes: those that import jaxtyping, but for `SMALL`."""
    files = sorted((ROOT / package.replace(".", "/")).rglob("*.py"))
    return [
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for file in files
        if file.stem not in SMALL and "from jaxtyping import" in file.read_text()
    ]


def check_on_import(names: Sequence[str]) -> None:
    """Checks shapes in the modules `names`, which are not imported yet."""
    sys.meta_path.insert(0, _Finder(frozenset(names)))


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Checks each annotation of `function` that has a shape whenever it is called."""
    shapes = {name: hint for name, hint in function.__annotations__.items() if has_shape(hint)}
    if not shapes:
        return function
    function.__annotations__ = shapes
    checking = jaxtyped(beartype(function), typechecker=None)
    calls = test = 0

    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls, test
        if test != _test[0]:
            calls, test = 0, _test[0]
        calls += 1
        if calls <= FIRST or calls % EACH == 0:
            return checking(*args, **kwargs)
        return function(*args, **kwargs)

    return called


def begin_test() -> None:
    """Counts the calls of each function anew."""
    _test[0] += 1


def checked_closure(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `checked`, for the first `CLOSURES` that are made of one piece of code."""
    code = function.__code__
    _wrapped[code] += 1
    return checked(function) if _wrapped[code] <= CLOSURES else function


def checked_class(kind: type) -> type:
    """Checks the fields of a dataclass that have shapes whenever it is made."""
    if any(map(has_shape, vars(kind).get("__annotations__", {}).values())):
        return jaxtyped(kind, typechecker=_only_shapes)
    return kind


def has_shape(hint: Any) -> bool:
    """Returns whether a type hint is, or contains, an array of jaxtyping."""
    if isinstance(hint, list | tuple):
        return any(map(has_shape, hint))
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return any(map(has_shape, get_args(hint)))


def _only_shapes(function: Callable[..., Any]) -> Callable[..., Any]:
    hints = function.__annotations__
    function.__annotations__ = {name: hint for name, hint in hints.items() if has_shape(hint)}
    return beartype(function)


class _Finder(MetaPathFinder):
    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path) if fullname in self._names else None
        if spec is not None:
            assert isinstance(spec.loader, SourceFileLoader)
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)  # not from __pycache__, which has it unchecked
        tree = _Decorate().visit(ast.parse(self.get_data(path)))
        start = 1 if ast.get_docstring(tree) is not None else 0
        tree.body.insert(start, ast.parse(f"from {__name__} import {', '.join(_NAMES)}").body[0])
        return compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True)


_NAMES = [f"{kind.__name__} as _{kind.__name__}" for kind in (checked, checked_closure)]
_NAMES += [f"{checked_class.__name__} as _{checked_class.__name__}"]


class _Decorate(ast.NodeTransformer):
    """Puts the decorators above on every function and class."""

    _within = 0

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        node.decorator_list.insert(0, ast.Name("_checked_class", ast.Load()))
        self.generic_visit(node)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        name = "_checked_closure" if self._within else "_checked"
        node.decorator_list.append(ast.Name(name, ast.Load()))
        self._within += 1
        self.generic_visit(node)
        self._within -= 1
        return node
