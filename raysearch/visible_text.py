"""Text of users, shown as it is: a name is never markup, never moves a cursor, and never looks like
another line.

Invariants: `visible` is idempotent, keeps whatever a reader sees as it is, and loses nothing: what
cannot be seen stands as its escape.
"""

import logging
from typing import TextIO

_JOINERS = "\u200c\u200d"
"""They shape the letters (and emoji) beside them, and neither hide nor turn what stands around."""


def visible(text: object) -> str:
    """`text` on one line, characters that cannot be seen (controls, line ends, turns of direction)
    as escapes: ``\\x1b``."""
    whole = str(text)
    return whole if whole.isprintable() else "".join(map(_shown, whole))


def visible_lines(text: str) -> str:
    """The same, of a text whose line ends and tabs are its own."""
    return "\n".join("\t".join(map(visible, line.split("\t"))) for line in text.split("\n"))


def for_stream(text: str, stream: TextIO) -> str:
    """`text` as data, unless `stream` is a terminal, which would obey what is in it."""
    return visible_lines(text) if stream.isatty() else text


def shortened(text: object, most: int) -> str:
    """`text`, visible, in at most `most` characters."""
    whole = visible(text)
    return whole if len(whole) <= most else f"{whole[: most - 1]}…"


class OneLine(logging.Formatter):
    """Each message on a line of its own, whatever names are put into it; a traceback behind it
    keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's own name)
        record.message = visible(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:  # noqa: N802
        return visible_lines(super().formatException(ei))  # type: ignore[arg-type]


def _shown(character: str) -> str:
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
