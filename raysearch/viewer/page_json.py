"""Writes values as JSON that is also JavaScript and fits into HTML: numbers short, text literal.

Invariants: no "<" in it, so that no text of a user ends a script element; what is not finite is
null; the same values give the same bytes.
"""

import json
import math
from typing import Any

CALL = "raysearch"
"""The function of the viewer that a data file calls with its name and its values."""


def to_json(value: Any) -> str:
    """Returns a value as JSON without "<"."""
    text = json.dumps(_plain(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def data_file(name: str, value: Any, stamp: str = "") -> bytes:
    """Returns the content of a data file: one call, which a page from a disk runs, and of which a
    page from a server parses the JSON alone. `stamp`: of the run's state that the values are of, so
    that a page never reads numbers of one state with the index of another."""
    return call(name, to_json(value), stamp)


def call(name: str, text: str, stamp: str) -> bytes:
    """Returns the content of a data file whose values are JSON already."""
    return f'{CALL}("{name}",{text},"{stamp}");\n'.encode()


def _plain(value: Any) -> Any:
    kind = type(value)
    if kind is float:
        return round(value, 6) if math.isfinite(value) else None
    if kind is dict:
        return {str(key): _plain(item) for key, item in value.items()}
    if kind is list or kind is tuple:
        return value if all(type(v) is int for v in value) else [_plain(item) for item in value]
    assert value is None or kind in (str, int, bool), kind
    return value
