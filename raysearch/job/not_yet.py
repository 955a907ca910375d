"""What the job format knows and this version does not support: refused by name, never ignored.

Invariants: what is listed here is in no model of keys, or in none with that value.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from raysearch.core.pydantic_words import brief
from raysearch.errors import NotYetError

NOT_YET_KEYS: tuple[str, ...] = ()
"""Keys of the job format that this version refuses."""

NOT_YET_VALUES: Mapping[str, tuple[str, ...]] = {
    "space.units.subspace": ("das", "boundless", "boundless_rank", "mask", "pca", "svd", "mean_difference", "random", "sae"),
}  # fmt: skip
"""Values of the job format that this version refuses; a mapping among them is told by its only key.
"""

SUPPORTED = {
    "space.units.subspace": "full or coordinates",
}
"""What this version takes in their place."""


def refuse_not_yet(raw: Mapping[str, Any], where: str) -> None:
    """Raises: NotYetError, one line, for the first key or value that this version does not support."""
    for path, kind, value in _flat(raw):
        if _is_not_yet(kind, value):
            instead = f"use {SUPPORTED[kind]}" if kind in SUPPORTED else "leave it out"
            raise NotYetError(
                f"{where}: {path}: not yet supported by this version (got {brief(value)}); "
                f"{instead}"
            )


def _flat(raw: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """(key path, key path in the lists above, value) of every key of the first two levels, and of
    the subspaces of units."""
    for room, value in raw.items():
        yield str(room), str(room), value
        if isinstance(value, dict):
            yield from ((f"{room}.{key}", f"{room}.{key}", v) for key, v in value.items())
    space = raw.get("space")
    sets = space.get("units") if isinstance(space, dict) else None
    for i, units in enumerate(sets if isinstance(sets, list) else ()):
        for j, unit in enumerate(units if isinstance(units, list) else ()):
            if isinstance(unit, dict) and "subspace" in unit:
                yield f"space.units.{i}.{j}.subspace", "space.units.subspace", unit["subspace"]


def _is_not_yet(path: str, value: Any) -> bool:
    if path in NOT_YET_KEYS:
        return True
    words = NOT_YET_VALUES.get(path, ())
    values = value if isinstance(value, list) else [value]
    return any(
        (next(iter(v), None) if isinstance(v, dict) else v) in words
        for v in values
        if isinstance(v, (str, dict))
    )
