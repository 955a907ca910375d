"""Draws the charts of a page as inline SVG: intervals of accepted hypotheses, pairs, training.

Invariants: every text is escaped; marks differ by shape or words, not by colour alone; a chart that
omits something says so.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup

from raysearch.report.labels import VERDICT_WORDS
from raysearch.report.run_data import RunData
from raysearch.report.unit_text import words
from raysearch.visible_text import shorten, visible

MAX_LINES = 40
"""Maximum of accepted hypotheses in the chart of intervals, and of curves in that of training."""
_WIDTH, _ROW, _LEFT, _RIGHT = 900, 22, 330, 20
_LONGEST = 48
_SYMBOLS = "×+*△□☆⬡▽"
_COLOURS = {"reject": "#8c959f", "undecided": "#bf8700", "accept": "#2f6db5"}


@dataclass(frozen=True, slots=True)
class Chart:
    """A titled chart. `note`: text below it."""

    title: str
    svg: Markup
    note: str = ""


def intervals(data: RunData) -> Chart | None:
    """Draws the accepted hypotheses' IIA with intervals, holdout IIA and controls; None without
    any."""
    shown = data.comparisons[:MAX_LINES]
    if not shown:
        return None
    score, bottom = data.facts.score.name, _ROW * len(shown) + 8
    names = sorted({name for b in shown for name, iia in b.iia.items() if iia is not None})
    symbols = dict(zip(names, _SYMBOLS * 9, strict=False))
    parts = _scale(bottom, data.facts.score.description)
    if data.facts.threshold is not None:
        parts.append(
            _line(_x(data.facts.threshold), 0, _x(data.facts.threshold), bottom, "threshold")
        )
    for i, b in enumerate(shown):
        y, row = _ROW * i + 18, b.row
        name = f"{row['variable']} ~ {words(row['units'])}"
        parts.append(_text(_LEFT - 10, y + 4, name, "end"))
        parts.append(_line(_x(row["low"]), y, _x(row["high"]), y, "interval"))
        values = [("●", score, row["iia"]), ("◇", f"holdout {score}", row["holdout_iia"])]
        values += [(s, f"control: {n.replace('_', ' ')}", b.iia.get(n)) for n, s in symbols.items()]
        for sign, what, value in values:
            if value is not None:
                tip = f"{name}: {what} {value:.3f}"
                parts.append(_text(_x(value), y + (9 if sign == "◇" else 4), sign, "middle", tip))
    legend = [f"● {score}, line: 95 % interval", f"◇ holdout {score}", "dotted: threshold"]
    legend += [f"{sign} {name.replace('_', ' ')}" for name, sign in symbols.items()]
    more = data.count("accept")
    first = f" The first {MAX_LINES} of {more}." if more > MAX_LINES else ""
    title = "Intervals, holdout and controls"
    return Chart(title, _svg(title, bottom + 42, parts), " · ".join(legend) + "." + first)


def pairs_to_verdict(data: RunData) -> Chart:
    """Draws how many hypotheses reached each verdict after how many pairs."""
    counts = Counter(
        (_bin(row["n"]), row["verdict"])
        for row in data.rows.only("n", "verdict").where("verdict", *_COLOURS)
    )
    largest = max((b for b, _ in counts), default=0)
    tallest = max((sum(counts[b, v] for v in _COLOURS) for b in range(largest + 1)), default=0)
    parts: list[Markup] = []
    for b in range(largest + 1):
        y, x = _ROW * b + 4, float(_LEFT)
        bounds = f"{(1 << b) // 2 + 1}–{1 << b}" if b > 1 else str(b + 1)
        parts.append(_text(_LEFT - 10, y + 14, f"{bounds} pairs", "end"))
        said = []
        for verdict, colour in _COLOURS.items():
            if not (n := counts[b, verdict]):
                continue
            width = 340 * n / tallest
            tip = f"{n} {VERDICT_WORDS[verdict]} after {bounds} pairs"
            parts.append(
                Markup(
                    '<rect x="{:.1f}" y="{}" width="{:.1f}" height="16" fill="{}">'
                    "<title>{}</title></rect>"
                ).format(x, y, width, colour, tip)
            )
            said.append(f"{n} {VERDICT_WORDS[verdict]}")
            x += width
        parts.append(_text(x + 8, y + 14, ", ".join(said)))
    title = "Pairs to a verdict"
    note = "Pairs that counted, at the verdict; bars: hypotheses."
    return Chart(title, _svg(title, _ROW * (largest + 1) + 8, parts), note)


def training_curves(data: RunData) -> Chart | None:
    """Draws validation IIA over training steps for accepted hypotheses' seeds; None without
    training."""
    titles = {
        b.row["intervention"]: f"{b.row['variable']} ~ {words(b.row['units'])}"
        for b in data.comparisons
    }
    lines: dict[tuple[str, int], list[tuple[int, float]]] = {}
    for fit in data.fits:
        known = fit["intervention"] in titles and fit["validation_iia"] is not None
        if known and fit["status"] is None:
            course = lines.setdefault((fit["intervention"], fit["seed"]), [])
            course.append((fit["step"], fit["validation_iia"]))
    if not lines:
        return None
    drawn = list(lines.items())[:MAX_LINES]
    last = max(step for _, course in drawn for step, _ in course) or 1
    parts = []
    for i, ((intervention, seed), course) in enumerate(drawn):
        top, course = 2 * _ROW * i + 6, sorted(course)
        name = f"{titles[intervention]}, seed {seed}"
        parts.append(_text(_LEFT - 10, top + 24, name, "end"))
        points = [(_LEFT + 420 * step / last, top + 34 - 30 * iia) for step, iia in course]
        parts.append(_line(_LEFT, top + 34, _LEFT + 420, top + 34, "soft"))
        parts.append(
            Markup('<polyline points="{}" fill="none" stroke="{}" stroke-width="2"/>').format(
                " ".join(f"{x:.1f},{y:.1f}" for x, y in points), _COLOURS["accept"]
            )
        )
        for (x, y), (step, iia) in zip(points, course, strict=True):
            parts.append(_text(x, y + 3, "•", "middle", f"{name}, step {step}: {iia:.3f}"))
        parts.append(_text(_LEFT + 430, top + 24, f"{course[-1][1]:.3f} at step {course[-1][0]}"))
    title = "Training of accepted subspaces"
    note = "Validation IIA, from 0 (the line) to 1, over steps."
    if len(lines) > MAX_LINES:
        note += f" The first {MAX_LINES} of {len(lines)} courses."
    return Chart(title, _svg(title, 2 * _ROW * len(drawn) + 10, parts), note)


def _scale(bottom: int, title: str) -> list[Markup]:
    """Returns the axis from 0 to 1 with its grid."""
    parts = [_text((_x(0) + _x(1)) / 2, bottom + 36, title, "middle", longest=99)]
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(_line(_x(tick), 0, _x(tick), bottom, "soft"))
        parts.append(_text(_x(tick), bottom + 16, f"{tick:g}", "middle"))
    return parts


def _x(share: float) -> float:
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _line(x1: float, y1: float, x2: float, y2: float, look: str) -> Markup:
    return Markup(
        '<line class="{}" x1="{:.1f}" y1="{}" x2="{:.1f}" y2="{}" stroke="currentColor"/>'
    ).format(look, x1, y1, x2, y2)


def _text(
    x: float, y: float, text: str, anchor: str = "start", tip: str = "", longest: int = _LONGEST
) -> Markup:
    """Returns a text on one line. `tip`: what the pointer is shown; "" shows the text in full."""
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}<title>{}</title></text>').format(
        x, y, anchor, shorten(visible(text), longest), visible(tip or text)
    )


def _svg(title: str, height: int, parts: Iterable[Markup]) -> Markup:
    return Markup('<svg role="group" aria-label="{}" viewBox="0 0 {} {}">{}</svg>').format(
        title, _WIDTH, height, Markup("").join(parts)
    )


def _bin(n: int) -> int:
    """Returns the smallest b with n <= 2^b."""
    return max(n - 1, 0).bit_length()
