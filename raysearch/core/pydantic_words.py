"""Puts pydantic's errors in our words, without the names of our classes.

Invariants: a value is shown short, however long or deep it is.
"""

import reprlib
from collections.abc import Mapping
from typing import Any

from pydantic_core import ErrorDetails

_MAPPING = "should be a mapping of keys to values"
_WHOLE = "should be a whole number"
_NUMBER = "should be a number"
_LIST = "should be a list"
_TEXT = "should be a text (in quotes where it looks like a number, true or null)"

_WORDS: Mapping[str, str] = {
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "dict_type": _MAPPING,
    "dataclass_type": _MAPPING,
    "mapping_type": _MAPPING,
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": "should be a whole number, and not of thousands of digits",
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": "should be a finite number",
    "bool_type": "should be true or false",
    "bool_parsing": "should be true or false",
    "string_type": _TEXT,
    "string_unicode": "should be a text in UTF-8",
    "string_too_short": "should not be empty",
    "tuple_type": _LIST,
    "list_type": _LIST,
}


def in_words(error: ErrorDetails) -> str:
    """Returns what a value should be."""
    context = error.get("ctx", {})
    match error["type"]:
        case "too_short":
            least, length = context["min_length"], context["actual_length"]
            return f"should have at least {_items(least)}, not {length}"
        case "too_long":
            most, length = context["max_length"], context["actual_length"]
            return f"should have at most {_items(most)}, not {length}"
        case kind if kind in _WORDS:
            return _WORDS[kind]
    message = error["msg"]
    return message[:1].lower() + message[1:]


def _items(n: int) -> str:
    return f"{n} item{'s' * (n != 1)}"


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60
_short.maxlevel, _short.maxlist, _short.maxdict, _short.maxlong = 4, 6, 6, 60


def brief(value: Any) -> str:
    """Shows a value in at most 60 characters."""
    text = _short.repr(value)
    return text if len(text) <= 60 else f"{text[:56]} ..."
