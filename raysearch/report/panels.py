"""Arranges a variable's hypotheses in the cells of heat maps.

Invariants: a hypothesis is in exactly one cell of one panel, or is counted as left out; a per-head
component has one panel for each position, with a column for each head; all else is in a panel of
sites, one for each featurizer and size.
"""

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from raysearch.core.featurizers import FULL
from raysearch.core.hypothesis import is_in_layers
from raysearch.report.row_sequence import TableRow
from raysearch.report.unit_text import UnitText, unit_texts
from raysearch.visible_text import shorten

Column = tuple[UnitText, ...]
Columns = tuple[Column, ...]
PanelCell = tuple[Column, int | None, TableRow]
"""A column, a layer (None: outside of all), and the row that is there."""
_LONGEST = 84
"""Maximum of characters in a part of a label."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One heat map: rows by (index in `layers`, index in `labels`); layer None: outside of all
    layers.

    `shared`: what all columns have in common, e.g. ("head", "last"), or the subspace ("das 4",);
    "full" for whole vectors beside these, else nothing. `axis`: what the columns are.
    `left_out`: hypotheses of the variable over several layers, counted in its first panel.
    """

    variable: str
    shared: tuple[str, ...]
    axis: str
    layers: tuple[int | None, ...]
    labels: tuple[str, ...]
    cells: Mapping[tuple[int, int], TableRow]
    left_out: int = 0

    @property
    def layer_labels(self) -> tuple[str, ...]:
        """Labels of the rows."""
        return tuple("-" if layer is None else str(layer) for layer in self.layers)

    @property
    def area(self) -> int:
        """The number of cells, empty ones too."""
        return len(self.layers) * len(self.labels)


def panels(
    variable: str, rows: Iterable[TableRow], kept: Callable[[TableRow], TableRow] = lambda row: row
) -> tuple[Panel, ...]:
    """Returns a variable's panels: sites, then featurizers by size, then per-head components.
    `kept`: what a cell holds of a row."""
    own = (row for row in rows if row["variable"] == variable)
    sites, featurized, heads, left_out = _by_kind(own, kept)
    found = [_panel(variable, None, sites)] if sites or not (heads or featurized) else []
    for subspace, cells in featurized.items():
        bare = [
            ((replace(column[0], subspace=""),), layer, values) for column, layer, values in cells
        ]
        found.append(replace(_panel(variable, None, bare), shared=(subspace,)))
    if sites and featurized and not any(unit.subspace for column, _, _ in sites for unit in column):
        found[0] = replace(found[0], shared=(FULL,))
    several = any(place.subspace for place in heads)
    for place, cells in heads.items():
        named = replace(place, subspace=place.subspace or FULL) if several else place
        found.append(_panel(variable, named, cells))
    return (replace(found[0], left_out=left_out), *found[1:])


def _by_kind(
    rows: Iterable[TableRow], kept: Callable[[TableRow], TableRow]
) -> tuple[list[PanelCell], dict[str, list[PanelCell]], dict[UnitText, list[PanelCell]], int]:
    """Returns the cells of the panel of sites, those of a featurizer and size, those of a place of
    heads; and the number of rows that are left out."""
    sites: list[PanelCell] = []
    featurized: dict[str, list[PanelCell]] = {}
    heads: dict[UnitText, list[PanelCell]] = {}
    columns: dict[Column, Column] = {}  # one object of each: there are as many as rows
    left_out = 0
    for row in rows:
        column = unit_texts(row["units"])
        column = columns.setdefault(column, column)
        outside, first = has_no_layer(column), column[0]
        cell = column, None if outside else row["layer"], kept(row)
        if row["layer"] is None and not outside:
            left_out += 1
        elif len(column) == 1 and first.head is not None:
            heads.setdefault(replace(first, head=None), []).append(cell)
        elif len(column) == 1 and first.is_featurized:
            featurized.setdefault(first.subspace, []).append(cell)
        else:
            sites.append(cell)
    return sites, featurized, heads, left_out


def _panel(variable: str, shared: UnitText | None, cells: Sequence[PanelCell]) -> Panel:
    columns: Columns = tuple(dict.fromkeys(column for column, _, _ in cells))
    if shared is not None:
        columns = tuple(sorted(columns, key=lambda c: c[0].head or 0))
    found = {layer for _, layer, _ in cells}
    layers = tuple(sorted(found, key=lambda layer: -1 if layer is None else layer))
    x = {column: i for i, column in enumerate(columns)}
    y = {layer: i for i, layer in enumerate(layers)}
    cells_at = {(y[layer], x[column]): row for column, layer, row in cells}
    if shared is None:
        return Panel(variable, (), "position", layers, _site_labels(columns), cells_at)
    labels = tuple(str(c[0].head) for c in columns)
    return Panel(
        variable,
        (shared.component, shared.position, *shared.extra),
        "head",
        layers,
        labels,
        cells_at,
    )


def has_no_layer(column: tuple[UnitText, ...]) -> bool:
    """Says whether all units are outside of the layers, for which older runs store layer 0."""
    return not any(is_in_layers(unit.component) for unit in column)


def _site_labels(columns: Columns) -> tuple[str, ...]:
    """Labels each column with its position and what else distinguishes it; several units are
    stacked."""
    units = [unit for column in columns for unit in column]
    components = len({p.component for p in units}) > 1
    if any(p.subspace for p in units):
        columns = tuple(
            tuple(replace(p, subspace=p.subspace or FULL) for p in column) for column in columns
        )
    return tuple("\n+ ".join(_site_label(p, components) for p in column) for column in columns)


def _site_label(unit: UnitText, component: bool) -> str:
    head = "" if unit.head is None else f" {unit.head}"
    named = f"{unit.component}{head}" if component or head else ""
    parts = [w for w in (unit.position, named, *unit.extra) if w]
    return "\n".join(map(site_label, parts))


def site_label(text: str) -> str:
    """Returns a part of a label in short lines."""
    return textwrap.fill(shorten(text, _LONGEST), 14)
