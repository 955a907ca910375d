"""Refuses a config.json that asks for more layers, heads, experts or labels than any model has.

Invariants: it is read before a configuration or model is made of it, which takes time and memory
for each.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from raysearch.errors import ModelError
from raysearch.limits import LABELS, LAYERS

_COUNTS = re.compile(r"(^|_)(layers?|blocks?|heads?|experts?|depth)($|_)")
_LABELS = re.compile(r"(^|_)(labels|classes)$")
_SIZES = ("_dim", "_size", "_width", "_frequency", "_step", "_period", "_freq")


def check_counts(path: str, plain: Any) -> None:
    """Checks every count in a configuration. `plain`: config.json, as JSON has it.

    Raises:
        ModelError: a count is beyond its limit (`LAYERS`, `LABELS`).
    """
    for key, count, most in _counts(plain if isinstance(plain, Mapping) else {}):
        if count > most:
            raise ModelError(
                f"{path}: {key} of its config.json is {count:.4g}, and at most {most:,} are read"
                f"; no model has so many: restore the file"
            )


def _counts(plain: Mapping[str, Any], depth: int = 0) -> Iterator[tuple[str, float, int]]:
    """Yields each count with its key and its limit."""
    for key, value in plain.items():
        if isinstance(value, Mapping) and depth < 4:
            yield from _counts(value, depth + 1)
        elif isinstance(value, int | float) and not key.endswith(_SIZES):
            if _COUNTS.search(key):
                yield key, value, LAYERS
            elif _LABELS.search(key):
                yield key, value, LABELS
