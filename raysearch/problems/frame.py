"""Frames: texts with gaps, and the spans of the words that fill them.

Invariants: a span cuts out exactly the word that filled its gap, no blank beside it.
"""

from collections.abc import Mapping
from string import Formatter

from raysearch.causal import Span
from raysearch.errors import PairsError
from raysearch.old_paths import announce


def fill(frame: str, words: Mapping[str, str]) -> tuple[str, dict[str, Span]]:
    """The text of `frame`, each gap such as "{country}" filled with its word, and the span [start,
    end) of each gap.

    Spans stand in the order of the gaps. Words that the frame has no gap for are not looked at.

    Raises: PairsError for a gap without a word.
    """
    text, spans = "", {}
    for before, gap, _, _ in Formatter().parse(frame):
        text += before
        if gap is not None:
            if gap not in words:
                raise PairsError(
                    f"the frame {frame!r} has the gap {gap!r}, and no word fills it; it got "
                    f"{', '.join(words) or 'none'}"
                )
            spans[gap] = (len(text), len(text) + len(words[gap]))
            text += words[gap]
    return text, spans


announce(__name__, ("fill",))
