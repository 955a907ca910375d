"""Computes how a heat map's cell looks: white to one hue, paler for wide intervals, readable ink.

Invariants: a mean of few pairs never looks like one of many: colour fades as the interval widens;
pages and pictures share the hue; ink is black or white, whichever contrasts more.
"""

from collections.abc import Sequence

from raysearch.report.rows import Row
from raysearch.report.run_facts import ChartFacts

LEVELS = 20
"""Steps from the background to the full hue on a page."""
HUE = (0.03, 0.32, 0.61)
_THEMES = {
    "light": ((1.0, 1.0, 1.0), HUE),
    "dark": ((0.09, 0.10, 0.12), (0.47, 0.72, 1.0)),
}
"""Background and full hue, as RGB in [0, 1]."""
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


def blend(
    share: float, full: Sequence[float] = HUE, ground: Sequence[float] = (1.0, 1.0, 1.0)
) -> tuple[float, ...]:
    """Returns the RGB colour that lies `share`, in [0, 1], of the way from `ground` to `full`."""
    return tuple(g + share * (c - g) for c, g in zip(full, ground, strict=True))


def ink(colour: Sequence[float]) -> str:
    """Returns black or white, whichever has more contrast (WCAG 2.2) with an RGB colour."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000" if luminance > 0.179 else "#fff"


def level_rules(theme: str) -> str:
    """Returns the CSS rules of the levels in a theme, light or dark."""
    ground, full = _THEMES[theme]
    rules = []
    for level in range(LEVELS + 1):
        colour = blend(level / LEVELS, full, ground)
        rgb = ",".join(str(round(255 * c)) for c in colour)
        rules.append(f".h{level}{{background:rgb({rgb});color:{ink(colour)}}}")
    return "".join(rules)
