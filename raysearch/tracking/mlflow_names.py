"""Makes names, values and error lines that MLflow accepts. Light: imports no mlflow.

Invariants: no text shown contains credentials.
"""

import re

from raysearch.storage.digests_json import sha256
from raysearch.visible_text import visible

DESCRIPTION = "mlflow.note.content"
"""The tag that MLflow shows as a run's description."""
_KEY_CHARS = 250
_WORD_CHARS = 80


def as_value(value: object, most: int) -> str:
    """Returns at most `most` characters of a value, without NUL or direction-changing ones."""
    return "\n".join(map(visible, str(value)[:most].split("\n")))[:most]


def as_key(name: str) -> str:
    """Returns a name of the characters MLflow allows: letters, digits, _ - . : / and blanks."""
    return re.sub(r"[^\w\-.:/ ]", "_", name, flags=re.ASCII)[:_KEY_CHARS]


def as_word(name: str) -> str:
    """Returns a name, unique for each input, for use between slashes, MLflow's paths."""
    word = re.sub(r"[^\w\-]", "_", name, flags=re.ASCII)[:_WORD_CHARS]
    return word if word == name else f"{word}-{sha256(name.encode(errors='replace'))[:8]}"


def one_line(e: BaseException) -> str:
    """Describes an error in one line without credentials, by the system's own message if there is
    one."""
    root = e
    while (inner := root.__cause__ or root.__context__) is not None:
        root = inner
    if isinstance(root, OSError) and root.strerror and not root.filename:
        return f"cannot be reached ({root.strerror})"
    text = visible(re.sub(r"//[^/\s@]+@", "//", " ".join(str(e).split())))
    return f"{type(e).__name__}: {text[:300]}"
