"""What MLflow allows to be written: names, one line of an error. This file is
light: no mlflow.

Invariants: no credentials in what is shown.
"""

import hashlib
import re

from raysearch.visible_text import visible

_KEY_CHARS = 250
_WORD_CHARS = 80


def as_value(value: object, most: int) -> str:
    """A value of at most `most` characters: a database that MLflow keeps it in may take no NUL, and
    a page of it no turn of direction."""
    return "\n".join(map(visible, str(value)[:most].split("\n")))[:most]


def as_key(name: str) -> str:
    """A name that MLflow allows: letters, digits, _ - . : / and blanks."""
    return re.sub(r"[^\w\-.:/ ]", "_", name, flags=re.ASCII)[:_KEY_CHARS]


def as_word(name: str) -> str:
    """A name that may stand between slashes, which MLflow reads as a path; of two names never the
    same."""
    word = re.sub(r"[^\w\-]", "_", name, flags=re.ASCII)[:_WORD_CHARS]
    return (
        word
        if word == name
        else f"{word}-{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:8]}"
    )


def one_line(e: BaseException) -> str:
    """What went wrong, without credentials: the system's own word where there is one under the
    libraries' wrappings."""
    root = e
    while (inner := root.__cause__ or root.__context__) is not None:
        root = inner
    if isinstance(root, OSError) and root.strerror and not root.filename:
        return f"cannot be reached ({root.strerror})"
    text = visible(re.sub(r"//[^/\s@]+@", "//", " ".join(str(e).split())))
    return f"{type(e).__name__}: {text[:300]}"
