"""Frames: texts with gaps, which are filled with words; returns the words' spans.

Invariants: a span covers exactly the word that filled its gap, without blanks.
"""

from collections.abc import Mapping
from string import Formatter

from raysearch.causal import Span
from raysearch.errors import PairsError
from raysearch.old_paths import announce


def fill(frame: str, words: Mapping[str, str]) -> tuple[str, dict[str, Span]]:
    """Fills the gaps of `frame`, such as "{country}", and returns the text with the span [start,
    end) of each gap.

    Spans are in the order of the gaps. Words without a gap are ignored.

    Raises:
        PairsError: a gap has no word.
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
