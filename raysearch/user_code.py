"""Finds user code that a job names: "package.module:name" or "/path/file.py:name".

Invariants:

- a name is defined in the file that is named: a function or class of another module, re-exported or
  wrapped, is refused before it is called, so that the file that the user sees is the code that
  runs;
- importing a module runs it, so its source is read first: a file must define the name; an installed
  module must define it as what the key asks for, if the key requires that (`CodeKind.returns`); no
  module of Python's own, and none of raysearch but those with ready problems, is ever imported for
  a job;
- every error is one line that names the key of the job; the user's own exception stays chained.
"""

import ast
import functools
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from raysearch.errors import JobError
from raysearch.user_folder import local_imports
from raysearch.visible_text import one_line


@dataclass(frozen=True)
class CodeKind:
    """The kind of object that a key of a job may name.

    Args:
        what: a description for errors.
        would_do: an example for errors.
        is_one: whether a value is already what is needed.
        is_class: whether a class makes one.
        returns: last part of the annotation, base class or call that marks it in the source of an
            installed module; None if it is checked after import (`may_call`).
        ours: modules of raysearch itself that define one; the others run whatever file their
            options name.
    """

    what: str
    would_do: str
    is_one: Callable[[Any], bool]
    is_class: Callable[[type], bool]
    returns: str | None = None
    may_call: Callable[[Any], bool] = callable
    ours: tuple[str, ...] = ()


def find(place: str, name: str, key: str, kind: CodeKind) -> Any:
    """Returns the value `name` of "package.module" or "/path/file.py", without calling it.

    The value is one of `kind`, or a function or class defined there that makes one.

    Args:
        key: the key of the job, such as "problem.use".

    Raises:
        JobError: there is no such value, or it is not of that kind.
    """
    check(place, name, key, kind)
    module = _from_file(Path(place), key) if place.endswith(".py") else _from_package(place, key)
    if not hasattr(module, name):
        raise JobError(f"{key}: {place} has no {name!r}; give file.py:name of {kind.what}")
    found = getattr(module, name)
    _check_own(found, module, place, name, key, kind)
    return found


def check(place: str, name: str, key: str, kind: CodeKind) -> None:
    """Checks by its source, without running it, that a module defines `name` as what the key asks
    for.

    Raises:
        JobError: it does not.
    """
    if not name.isidentifier():
        raise JobError(
            f"{key}: {name!r} in {place} is no name; give {kind.would_do}, one name without dots"
        )
    is_file = place.endswith(".py")
    source = _file_source(Path(place), key) if is_file else _module_source(place, key, kind)
    _check_defined(source, place, name, key, kind, marked=not is_file)


def source_file(place: str) -> Path | None:
    """Returns the file of "package.module" or "/path/file.py", without running anything; None if
    there is none.
    """
    if place.endswith(".py"):
        return Path(place) if Path(place).is_file() else None
    path: list[str] | None = None
    parts, spec = place.split("."), None
    for i in range(len(parts)):
        spec = _find_spec(".".join(parts[: i + 1]), path)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or ())
    origin = None if spec is None else spec.origin
    return Path(origin) if origin is not None and origin.endswith(".py") else None


def describe_code(key: str, place: str) -> str:
    """Returns one line that names the code that a key of a job will run."""
    source = source_file(place)
    if source is None:
        return f"runs code of: {place} ({key})"
    shown = source if place.endswith(".py") else f"{place}, {source}"
    return f"runs code of: {shown} (sha256 {source_digest(place)[:16]}; {key})"


def source_digest(place: str) -> str:
    """Returns the SHA-256 (hex) of the file of "package.module" or "/path/file.py"; of no bytes if
    there is none.
    """
    source = source_file(place)
    return hashlib.sha256(b"" if source is None else source.read_bytes()).hexdigest()


def _find_spec(name: str, path: list[str] | None) -> Any:
    for finder in sys.meta_path:
        ask = getattr(finder, "find_spec", None)
        spec = None if ask is None else ask(name, path)
        if spec is not None:
            return spec
    return None


def _file_source(path: Path, key: str) -> bytes:
    if not path.is_file():
        raise JobError(f"{key}: there is no file {path}")
    here = path.resolve()
    python = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")]
    python.append(Path(__file__).resolve().parent)
    if any(here.is_relative_to(place) for place in python) or {
        "site-packages",
        "dist-packages",
    } & set(here.parts):
        raise JobError(
            f"{key}: {path} is of Python or of an installed package; give a file of your own, or "
            f"package.module:name"
        )
    return path.read_bytes()


def _module_source(place: str, key: str, kind: CodeKind) -> bytes | None:
    """Returns the source of an installed module; None if it has none that is needed.

    It refuses modules of Python's own, which have nothing that a job may name. That a module was
    imported already proves nothing.
    """
    if place.partition(".")[0] in sys.stdlib_module_names:
        raise JobError(
            f"{key}: {place} is a module of Python itself, and nothing in it is {kind.what}; give "
            f"{kind.would_do}"
        )
    source = source_file(place)
    if source is None:
        if _find_spec(place.partition(".")[0], None) is None or kind.returns is not None:
            raise JobError(
                f"{key}: there is no module {place!r} with Python source; give {kind.would_do}"
            )
        return None
    if place.partition(".")[0] == "raysearch" and place not in kind.ours:
        raise JobError(
            f"{key}: {place} is a module of raysearch itself, and nothing in it is {kind.what}; "
            f"give {kind.would_do}"
        )
    return source.read_bytes()


def _check_defined(
    source: bytes | None, place: str, name: str, key: str, kind: CodeKind, marked: bool
) -> None:
    """Checks that the source defines the name, and in an installed module as what the key asks for.

    Raises:
        JobError: it does not.
    """
    if source is None or (marked and kind.returns is None):
        return
    try:
        bindings = list(_bindings(ast.parse(source).body, name))
    except (SyntaxError, ValueError, RecursionError) as e:
        raise JobError(f"{key}: {place} cannot be run: {type(e).__name__}: {one_line(e)}") from e
    defined = [b for b in bindings if not isinstance(b, ast.Import | ast.ImportFrom)]
    if bindings and not defined:
        raise JobError(
            f"{key}: {name!r} is imported by {Path(place).name}, not defined there; name the file "
            f"that defines it, or define {kind.what} in this one"
        )
    if not defined:
        raise JobError(f"{key}: {place} has no {name!r}; give file.py:name of {kind.what}")
    if marked and not any(_is_marked(b, kind.returns or "") for b in defined):
        raise JobError(
            f"{key}: {place}:{name} does not say that it is {kind.what}; annotate it (-> "
            f"{kind.returns}), or give {kind.would_do}"
        )


def _bindings(body: list[ast.stmt], name: str) -> Iterator[ast.stmt]:
    """Yields the statements of a module that give `name` its value, also those inside `if` and
    `try`.
    """
    for statement in body:
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                if statement.name == name:
                    yield statement
            case ast.Import() | ast.ImportFrom():
                if any((a.asname or a.name.partition(".")[0]) == name for a in statement.names):
                    yield statement
            case ast.Assign(targets=targets):
                if any(
                    isinstance(n, ast.Name) and n.id == name for t in targets for n in ast.walk(t)
                ):
                    yield statement
            case ast.AnnAssign(target=ast.Name(id=found)) if found == name:
                yield statement
            case _:
                inner = [getattr(statement, field, ()) for field in ("body", "orelse", "finalbody")]
                inner += [handler.body for handler in getattr(statement, "handlers", ())]
                for block in inner:
                    yield from _bindings(list(block), name)


def _is_marked(statement: ast.stmt, returns: str) -> bool:
    """Says whether a definition is annotated as, derives from, or calls something whose name ends
    in `returns`."""
    match statement:
        case ast.FunctionDef(returns=annotation):
            annotation = annotation
        case ast.AnnAssign(annotation=annotation):
            annotation = annotation
        case ast.Assign(value=ast.Call(func=function)):
            annotation = function
        case ast.ClassDef(bases=bases, body=body):
            proposes = any(isinstance(f, ast.FunctionDef) and f.name == "propose" for f in body)
            return any(_names(base, returns) for base in bases) or (
                returns == "Proposer" and proposes
            )
        case _:
            return False
    return annotation is not None and _names(annotation, returns)


def _names(annotation: ast.expr, returns: str) -> bool:
    text = (
        annotation.value
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str)
        else ast.unparse(annotation)
    )
    return text.rpartition(".")[2] == returns


def _from_package(name: str, key: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as e:
        raise JobError(
            f"{key}: {name} cannot be imported: {type(e).__name__}: {one_line(e)}"
        ) from e


def _from_file(path: Path, key: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"raysearch_user_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        # The author of the file should see warnings of old import paths (old_paths.py), although
        # the file is not __main__.
        with warnings.catch_warnings(), local_imports(path.resolve()):
            warnings.filterwarnings(
                "default", category=DeprecationWarning, module=re.escape(spec.name)
            )
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as e:
        raise JobError(f"{key}: {path} cannot be run: {type(e).__name__}: {one_line(e)}") from e
    return module


def _check_own(
    found: Any, module: ModuleType, place: str, name: str, key: str, kind: CodeKind
) -> None:
    """Checks that a value is of the kind, or a function or class of this module that could make
    one.

    Raises:
        JobError: it is not.
    """
    shown = f"{Path(place).name if place.endswith('.py') else place}:{name}"
    if kind.is_one(found):
        return
    if isinstance(found, type) and kind.is_class(found):
        if kind.returns is not None and found.__module__ != module.__name__:
            raise _not_defined_here(shown, found, key, kind)
        return
    if isinstance(found, type) or not callable(found):
        what = f"the class {found.__name__}" if isinstance(found, type) else type(found).__name__
        lacks = ", which has no propose(known)" if kind.returns == "Proposer" else ""
        raise JobError(f"{key}: {shown} is {what}{lacks}; it must be {kind.what}")
    if _defining_module(found) != module.__name__:
        raise _not_defined_here(shown, found, key, kind)
    if not place.endswith(".py") and not kind.may_call(found):
        raise JobError(
            f"{key}: {shown} does not say that it returns {kind.what}; annotate it, or give "
            f"{kind.would_do}"
        )


def _not_defined_here(shown: str, found: Any, key: str, kind: CodeKind) -> JobError:
    home = _defining_module(found)
    return JobError(
        f"{key}: {shown} is of {home or 'another module'}, not defined where it is named, and is "
        f"not called; give {kind.what} that is"
    )


def _defining_module(found: Any) -> str | None:
    """Returns the name of the module that defines a function or class, or the function inside a
    wrapper.
    """
    if isinstance(found, functools.partial):
        return _defining_module(found.func)
    own = (
        found
        if inspect.isroutine(found) or isinstance(found, type) or hasattr(found, "__wrapped__")
        else type(found)
    )
    home = getattr(own, "__module__", None)
    return home if isinstance(home, str) else None
