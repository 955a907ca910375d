"""Refuses a config.json that asks for more layers, heads or experts than any model has.

Invariants: it is read before a configuration or model is made of it, which takes time and memory
for each.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from raysearch.errors import ModelError
from raysearch.limits import LAYERS

_COUNTS = re.compile(r"(^|_)(layers?|blocks?|heads?|experts?|depth)($|_)")
_SIZES = ("_dim", "_size", "_width", "_frequency", "_step", "_period", "_freq")


def check_counts(path: str, plain: Any) -> None:
    """Raises: ModelError for a count beyond `LAYERS`. `plain`: config.json, as JSON has it."""
    for key, count in _counts(plain if isinstance(plain, Mapping) else {}):
        if count > LAYERS:
            raise ModelError(
                f"{path}: {key} of its config.json is {count:.4g}, and at most {LAYERS:,} are read"
                f"; no model has so many: restore the file"
            )


def _counts(plain: Mapping[str, Any], depth: int = 0) -> Iterator[tuple[str, float]]:
    for key, value in plain.items():
        if isinstance(value, Mapping) and depth < 4:
            yield from _counts(value, depth + 1)
        elif isinstance(value, int | float) and _COUNTS.search(key) and not key.endswith(_SIZES):
            yield key, value
