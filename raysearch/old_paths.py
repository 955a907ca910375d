"""Older import paths, which keep working for a release, with a warning that names the new one.

    from raysearch.causal import Problem      # of a user's file; warns on this line: use rs.Problem (import raysearch as rs)

A module that users were once told to import from calls `announce` as its last statement. Only an import, or an attribute that is read,
outside raysearch warns: raysearch itself goes on to import from its own modules, and pickle finds classes where they are.

Invariants: every name keeps its value; the warning is of the user's line, and it is a DeprecationWarning.
"""

import dis
import sys
import warnings
from collections.abc import Iterable
from types import FrameType, ModuleType
from typing import Any

_READS = frozenset(dis.opmap[name] for name in ("IMPORT_FROM", "LOAD_ATTR", "LOAD_METHOD") if name in dis.opmap)
"""What reads a name as a user writes it; getattr, hasattr and pickle are calls."""

_OLD: dict[str, frozenset[str]] = {}
"""By module, the names that are now names of `raysearch` itself."""


def announce(module: str, names: Iterable[str]) -> None:
    """From now on a user who takes one of `names` from `module` is told that it is `raysearch.NAME`."""
    _OLD[module] = frozenset(names)
    sys.modules[module].__class__ = _Older


class _Older(ModuleType):
    """A module whose names have moved."""

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name.startswith("_"):
            return value
        module = super().__getattribute__("__name__")
        caller = sys._getframe(1)
        if name in _OLD[module] and _is_read_by_a_user(caller):
            warnings.warn(
                f"{module}.{name} is now raysearch.{name}: write `import raysearch as rs` and rs.{name}; the old path goes with "
                "the next release",
                DeprecationWarning,
                stacklevel=2,
            )
        return value


def _is_read_by_a_user(frame: FrameType) -> bool:
    room = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return room not in ("raysearch", "importlib") and frame.f_code.co_code[frame.f_lasti] in _READS
