"""Which pictures a variable has, and which hypothesis stands in which cell of them.

Invariants: a hypothesis stands in exactly one cell of one panel, or is counted as left out; each
head of a per-head component has a column in the panel of its component and position, everything
else one in a panel of sites, of which each featurizer and size has one.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from raysearch.core.hypothesis import is_in_layers
from raysearch.report.unit_text import UnitText, places
from raysearch.visible_text import shorten

Row = Mapping[str, Any]
Columns = tuple[tuple[UnitText, ...], ...]
_LONGEST = 84
"""Characters of a part of a label."""


@dataclass(frozen=True, slots=True)
class Panel:
    """Cells by (layer, column), as places in `layers` (None: what is of no layer) and `labels`.

    `of`: what all columns share, e.g. ("head", "last") or, of sites, the subspace, ("das 4",); none
    for whole vectors. `axis`: what the columns are. `left_out`: hypotheses of the variable that lie
    in no single layer, said in one panel.
    """

    variable: str
    of: tuple[str, ...]
    axis: str
    layers: tuple[int | None, ...]
    labels: tuple[str, ...]
    cells: Mapping[tuple[int, int], Row]
    left_out: int = 0

    @property
    def layer_labels(self) -> tuple[str, ...]:
        """What stands at the rows."""
        return tuple("-" if layer is None else str(layer) for layer in self.layers)

    @property
    def reach(self) -> int:
        """The most pairs that a cell counts."""
        return max((r["n"] or 0 for r in self.cells.values()), default=0)


def panels(variable: str, rows: Sequence[Row]) -> tuple[Panel, ...]:
    """The panels of a variable: that of sites first, where there are any, then the same for each
    featurizer and size, then one for each per-head component, position and subspace."""
    sites: list[tuple[tuple[UnitText, ...], Row]] = []
    featurized: dict[str, list[tuple[tuple[UnitText, ...], Row]]] = {}
    heads: dict[UnitText, list[tuple[tuple[UnitText, ...], Row]]] = {}
    left_out = 0
    for row in rows:
        column = places(row["units"])
        if row["variable"] != variable:
            continue
        if row["layer"] is None and not _of_no_layer(column):
            left_out += 1
        elif len(column) == 1 and column[0].head is not None:
            heads.setdefault(replace(column[0], head=None), []).append((column, row))
        elif len(column) == 1 and column[0].is_featurized:
            featurized.setdefault(column[0].subspace, []).append((column, row))
        else:
            sites.append((column, row))
    made = [_panel(variable, None, sites)] if sites or not (heads or featurized) else []
    for subspace, cells in featurized.items():
        bare = [((replace(column[0], subspace=""),), row) for column, row in cells]
        made.append(replace(_panel(variable, None, bare), of=(subspace,)))
    made += [_panel(variable, shared, cells) for shared, cells in heads.items()]
    return (replace(made[0], left_out=left_out), *made[1:])


def _panel(
    variable: str, shared: UnitText | None, cells: Sequence[tuple[tuple[UnitText, ...], Row]]
) -> Panel:
    columns: Columns = tuple(dict.fromkeys(column for column, _ in cells))
    if shared is not None:
        columns = tuple(sorted(columns, key=lambda c: c[0].head or 0))
    rows = [None if _of_no_layer(column) else row["layer"] for column, row in cells]
    layers = tuple(sorted(set(rows), key=lambda layer: -1 if layer is None else layer))
    x = {column: i for i, column in enumerate(columns)}
    y = {layer: i for i, layer in enumerate(layers)}
    placed = {(y[layer], x[column]): row for layer, (column, row) in zip(rows, cells, strict=True)}
    if shared is None:
        return Panel(variable, (), "position", layers, _site_labels(columns), placed)
    labels = tuple(str(c[0].head) for c in columns)
    return Panel(
        variable, (shared.component, shared.position, *shared.extra), "head", layers, labels, placed
    )


def _of_no_layer(column: tuple[UnitText, ...]) -> bool:
    """Whether none of the units is of a layer; runs of before say layer 0 of such a one."""
    return not any(is_in_layers(place.component) for place in column)


def _site_labels(columns: Columns) -> tuple[str, ...]:
    """The position of each column, and below it whatever else tells the columns apart; units of a
    set one below the other."""
    every = [place for column in columns for place in column]
    components = len({p.component for p in every}) > 1
    return tuple("\n+ ".join(_site_label(p, components) for p in column) for column in columns)


def _site_label(place: UnitText, component: bool) -> str:
    head = "" if place.head is None else f" {place.head}"
    named = f"{place.component}{head}" if component or head else ""
    parts = [w for w in (place.position, named, *place.extra) if w]
    return "\n".join(textwrap.fill(shorten(part, _LONGEST), 14) for part in parts)
