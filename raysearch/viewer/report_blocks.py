"""Makes the plain blocks of which a report consists, as `app/report.js` draws them."""

from collections.abc import Mapping, Sequence
from typing import Any

from raysearch.visible_text import visible

PageBlock = dict[str, Any]


def text(line: str, look: str | None = None) -> PageBlock:
    """Returns a paragraph. `look`: "soft" or "warning"."""
    return {"kind": "text", "text": visible(line), "look": look}


def heading(line: str) -> PageBlock:
    """Returns a heading within a section."""
    return {"kind": "heading", "text": visible(line)}


def code(lines: str) -> PageBlock:
    """Returns lines as they are."""
    return {"kind": "code", "text": lines}


def facts(items: Mapping[str, Any]) -> PageBlock:
    """Returns names and values."""
    return {"kind": "facts", "items": [[visible(k), visible(v)] for k, v in items.items()]}


def fold(title: str, blocks: Sequence[PageBlock], is_open: bool = False) -> PageBlock:
    """Returns blocks that are shown when they are asked for."""
    return {"kind": "fold", "title": visible(title), "blocks": list(blocks), "open": is_open}


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[Any]],
    name: str | None = None,
    note: str | None = None,
    marked: Sequence[int] = (),
) -> PageBlock:
    """Returns a table. A value is a text, a number, or {text, small, cell, span}: with small words
    below, a link to the pairs of a hypothesis, the thresholds at which it is accepted and rejected.
    `marked`: rows that stand out."""
    shown: PageBlock = {"kind": "table", "id": name, "head": [visible(h) for h in head]}
    shown["rows"] = [[_value(value) for value in row] for row in rows]
    return shown | {"note": note, "marked": list(marked)}


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _value(item) for key, item in value.items() if item is not None}
    return visible(value) if isinstance(value, str) else value


def share(value: float | None) -> str:
    """Formats a share; "–" where there is none."""
    return "–" if value is None else f"{value:.3f}"


def interval(low: float | None, high: float | None) -> str:
    """Formats the ends of an interval."""
    return f"{share(low)} – {share(high)}"


def dash(value: Any) -> Any:
    """Returns a value, or "–" for None."""
    return "–" if value is None else value
