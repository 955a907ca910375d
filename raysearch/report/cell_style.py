"""Computes how a heat map's cell shows its uncertainty: interval width, opacity, early stopping.

Invariants: a mean of few pairs never looks like one of many: colour fades as the interval widens.
"""

from raysearch.report.panels import Row
from raysearch.report.run_facts import ChartFacts

_FULL, _FAINT = 0.15, 0.8
"""Interval widths at which a cell has its full colour, and its faintest.

At threshold 0.8, 4 pairs without a match leave an interval of 0.68, 8 of 0.48, 60 of 0.11.
"""
_FAINTEST = 0.08


def interval_width(row: Row) -> float | None:
    """Returns the width of a row's interval, or None when it has none."""
    return None if row["low"] is None or row["high"] is None else float(row["high"] - row["low"])


def opacity(width: float | None) -> float:
    """Returns a cell's opacity in [0.08, 1] for an interval width in [0, 1], or None for no
    interval."""
    share = (_FAINT - (1.0 if width is None else width)) / (_FAINT - _FULL)
    return min(max(share, _FAINTEST), 1.0)


def stopped_early(row: Row, facts: ChartFacts, max_pairs: int) -> bool:
    """Whether a verdict came before the last of `max_pairs` pairs. False for failed rows."""
    return not facts.fixed and row["verdict"] in ("accept", "reject") and row["n"] < max_pairs


def lightness(colour: tuple[float, ...]) -> float:
    """Returns the perceived lightness in [0, 1] of an RGB colour."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
