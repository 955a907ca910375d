"""What a cell of a heat map says beside its IIA, whoever draws it: interval, strength of colour,
whether it stopped early.

Invariants: a mean of few pairs never looks like one of many: colour fades as the interval widens.
"""

from raysearch.report.panels import Row
from raysearch.report.run_facts import ChartFacts

_FULL, _FAINT = 0.15, 0.8
"""An interval as narrow as the first has the full colour, one as wide as the second the faintest.
At threshold 0.8, 4 pairs without a match leave an interval of 0.68, 8 of 0.48, 60 of 0.11."""
_FAINTEST = 0.08


def interval_width(row: Row) -> float | None:
    """Of the interval of a row; None where it has none."""
    return None if row["low"] is None or row["high"] is None else float(row["high"] - row["low"])


def strength(width: float | None) -> float:
    """In [0.08, 1]: how much of its colour a cell with an interval of that width (in [0, 1]; None:
    without one) keeps."""
    share = (_FAINT - (1.0 if width is None else width)) / (_FAINT - _FULL)
    return min(max(share, _FAINTEST), 1.0)


def stopped_early(row: Row, facts: ChartFacts, reach: int) -> bool:
    """A verdict before the last of `reach` pairs; what failed did not stop, it broke."""
    return not facts.fixed and row["verdict"] in ("accept", "reject") and row["n"] < reach


def lightness(colour: tuple[float, ...]) -> float:
    """In [0, 1], of an RGB colour, as the eye weighs red, green and blue."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
