"""Import paths of before, which keep working for a release, with a warning that names the new one.

    from raysearch.causal import Problem            # warns: write rs.Problem
    from raysearch.search.evidence import Evidence  # warns: import it from raysearch.stats.evidence

Two kinds of paths are old: a name that is now a name of `raysearch` itself (its module calls
`announce`), and a module that has moved (`old_paths.json` says where to, and which of its names
are called otherwise there, or stand in another module).

Invariants: every name keeps its value; the warning is of the user's line, once for each name, and
it is a DeprecationWarning; raysearch itself imports by new paths alone.
"""

import dis
import json
import sys
import warnings
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

_READS = frozenset(
    dis.opmap[name] for name in ("IMPORT_FROM", "LOAD_ATTR", "LOAD_METHOD") if name in dis.opmap
)
"""The operations that read a name as a user writes it; getattr, hasattr and pickle are calls."""

_OLD: dict[str, frozenset[str]] = {}
"""The names, by module, that are now names of `raysearch` itself."""

_TOLD: set[tuple[str, str, int, str]] = set()
"""Lines that have been warned of: module, file, line and old path."""


def announce(module: str, names: Iterable[str]) -> None:
    """Warns, from now on, a user who takes one of `names` from `module` that it is
    `raysearch.NAME`."""
    _OLD[module] = frozenset(names)
    sys.modules[module].__class__ = _Older


def find_moved_modules() -> None:
    """Lets imports of modules that have moved find them, after all that is really there."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


class OldName:
    """An attribute by its name of before: reads the new one, and warns."""

    def __init__(self, new: str) -> None:
        self._new = new

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"{owner.__name__}.{name}"

    def __get__(self, instance: object, owner: type) -> Any:
        if instance is None:
            return self
        warnings.warn(
            f"{self._name} is now {self._new}; the old name goes with the next release",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(instance, self._new)


class _Older(ModuleType):
    """A module of which some names are now names of `raysearch` itself."""

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name.startswith("_"):
            return value
        module = super().__getattribute__("__name__")
        if name in _OLD[module] and _is_read_by_a_user(sys._getframe(1)):
            _warn(f"{module}.{name}", name, "raysearch")
        return value


class _Moved(ModuleType):
    """A module at its old path: each of its names is looked up in the module at the new one."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        old = self.__name__
        home = f"raysearch.{_table()['modules'][_below(old)]}"
        new = _table()["names"].get(_below(home), {}).get(name, name)
        if ":" in new:  # it stands in another module by now
            home, _, new = f"raysearch.{new}".partition(":")
        try:
            value = getattr(import_module(home), new)
        except AttributeError:
            raise AttributeError(f"{old} is now {home}, which has no {name!r}") from None
        if _is_read_by_a_user(sys._getframe(1)):
            public = new in sys.modules["raysearch"].__all__
            _warn(f"{old}.{name}", new, "raysearch" if public else home)
        return value


class _Finder(MetaPathFinder, Loader):
    """Finds the modules of `old_paths.json`, and the packages that only those were in."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith("raysearch."):
            return None
        below, moved = _below(fullname), _table()["modules"]
        is_package = any(old.startswith(f"{below}.") for old in moved)
        if below not in moved and not is_package:
            return None
        return ModuleSpec(fullname, self, is_package=is_package)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return _Moved(spec.name) if _below(spec.name) in _table()["modules"] else None

    def exec_module(self, module: ModuleType) -> None:
        """Runs nothing: names are looked up when they are read."""


@cache
def _table() -> dict[str, dict[str, Any]]:
    text = Path(__file__).with_suffix(".json").read_text(encoding="utf-8")
    table: dict[str, dict[str, Any]] = json.loads(text)
    return table


def _below(path: str) -> str:
    return path.removeprefix("raysearch.")


def _warn(old: str, name: str, home: str) -> None:
    """Warns of the line that reads `old`, once in a process: a user's file may be run for several
    keys of a job, and Python's own memory of what was said goes with each run of it."""
    user = sys._getframe(2)
    line = (str(user.f_globals.get("__name__")), user.f_code.co_filename, user.f_lineno, old)
    if line in _TOLD:
        return
    _TOLD.add(line)
    way = (
        f"write `import raysearch as rs` and rs.{name}"
        if home == "raysearch"
        else f"import it from {home}"
    )
    warnings.warn(
        f"{old} is now {home}.{name}: {way}; the old path goes with the next release",
        DeprecationWarning,
        stacklevel=3,
    )


def _is_read_by_a_user(frame: FrameType) -> bool:
    room = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return room not in ("raysearch", "importlib") and frame.f_code.co_code[frame.f_lasti] in _READS
