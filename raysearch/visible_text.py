"""Shows users' text as it is: a name is never markup, never moves a cursor, never looks like
another line.

Invariants: `visible` is idempotent, leaves readable text unchanged, and loses nothing: a character
that cannot be seen becomes its escape.
"""

import logging
import os
from typing import TextIO

_JOINERS = "\u200c\u200d"
"""Characters that shape the letters and emoji beside them, and neither hide nor reverse other
text.
"""


def visible(text: object) -> str:
    """Returns `text` on one line, with invisible characters as escapes: ``\\x1b``.

    Invisible are controls, line ends and changes of direction.
    """
    whole = _str(text)
    return whole if whole.isprintable() else "".join(map(_escaped, whole))


def visible_lines(text: str) -> str:
    """Does the same for a text that keeps its own line ends and tabs."""
    return "\n".join("\t".join(map(visible, line.split("\t"))) for line in text.split("\n"))


def for_stream(text: str, stream: TextIO) -> str:
    """Returns `text` unchanged, unless `stream` is a terminal, which would obey control characters
    in it.
    """
    return visible_lines(text) if stream.isatty() else text


def shows_escapes(stream: TextIO, no_color: bool = False) -> bool:
    """Returns whether `stream` is a terminal that obeys escapes, whose user wants some: neither
    NO_COLOR nor a dumb terminal.
    """
    dumb = os.environ.get("TERM", "").lower() in ("", "dumb", "unknown")
    return stream.isatty() and not (no_color or dumb or os.environ.get("NO_COLOR"))


def shorten(text: object, most: int) -> str:
    """Returns `text`, visible, in at most `most` characters."""
    whole = visible(text)
    return whole if len(whole) <= most else f"{whole[: most - 1]}…"


def one_line(text: object, most: int = 200) -> str:
    """Returns an error's message, or a text, on one line: runs of white space become one space, and
    what is longer than `most` characters is cut."""
    text = " ".join(_str(text).split())
    return text if len(text) <= most else f"{text[: most - 4]} ..."


def _str(text: object) -> str:
    """Returns the text of an object, of one whose own text cannot be made too."""
    try:
        return str(text)
    except Exception as e:  # noqa: BLE001  any error of the user's class
        return f"(its text cannot be made: {type(e).__name__})"


class OneLine(logging.Formatter):
    """Log formatter: each message on one line, whatever names it contains; tracebacks keep their
    lines.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's own name)
        record.message = visible(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:  # noqa: N802
        return visible_lines(super().formatException(ei))  # type: ignore[arg-type]


def _escaped(character: str) -> str:
    if (
        character.isprintable()
        or character in _JOINERS
        or character == "\u3000"
        or character == "\xa0"
    ):
        return character
    if character in "\n\r\t":
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}[character]
    code = ord(character)
    return (
        f"\\x{code:02x}"
        if code < 0x100
        else f"\\u{code:04x}"
        if code < 0x10000
        else f"\\U{code:08x}"
    )
