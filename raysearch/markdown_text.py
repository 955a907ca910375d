"""Puts users' text into Markdown as it is: a name is never markup, link, formula or mention.

Invariants: the text reads the same in CommonMark, on the Hugging Face hub and in showdown (GitHub's
flavour).
"""

import re

from raysearch.visible_text import visible

_ENTITIES = {c: f"&#{ord(c)};" for c in "$@~:"} | {"&": "&amp;", "<": "&lt;"}


def literal(text: object) -> str:
    """Returns `text` on one line that Markdown shows unchanged."""
    entities = re.sub(r"[$@~&<]|:(?=\S)", lambda found: _ENTITIES[found[0]], one_cell(text))
    escaped = re.sub(r"([\\`*_\[\]>!]|(?<!&)#)", r"\\\1", entities)
    return re.sub(r"(?i)(?<=www)\.", r"\\.", escaped)


def one_cell(text: object) -> str:
    """Returns `text` on one line, fit for a table's cell and UTF-8, with what is invisible
    escaped."""
    return visible(" ".join(str(text).split())).replace("|", "/")
