"""Arranges more hypotheses than a page can show: of each layer and position the best one.

Invariants: an accepted hypothesis comes before any other, then the highest score; a map has as many
columns as fit, those with the best cells, and counts what it leaves out.
"""

from collections import Counter

from raysearch.report.panels import Panel, has_no_layer, site_label
from raysearch.report.rows import Row, Rows
from raysearch.report.unit_text import unit_texts

_At = tuple[int | None, str | None]
_Rank = tuple[bool, float]


def best_panel(variable: str, rows: Rows, max_cells: int) -> Panel:
    """Returns one map of a variable's hypotheses or effects, of at most `max_cells` cells, and at
    least one column.

    A cell's row has `of`: the number of hypotheses of which it is the best.
    """
    best, counts, left_out = _best(rows)
    layers = tuple(sorted({at[0] for at in best}, key=lambda n: -1 if n is None else n))
    columns: dict[str | None, _Rank] = {}
    for at, (rank, _) in best.items():
        columns[at[1]] = max(rank, columns.get(at[1], rank))
    most = max(max_cells // max(len(layers), 1), 1)
    chosen = set(sorted(columns, key=lambda c: columns[c], reverse=True)[:most])
    x = {column: i for i, column in enumerate(c for c in columns if c in chosen)}
    y = {layer: i for i, layer in enumerate(layers)}
    shown = [at for at in best if at[1] in x]
    found = rows.take([best[at][1] for at in shown])
    return Panel(
        variable,
        (),
        "position",
        layers,
        tuple("several" if column is None else site_label(column) for column in x),
        {
            (y[at[0]], x[at[1]]): {**row, "of": counts[at]}
            for at, row in zip(shown, found, strict=True)
        },
        left_out,
        len(columns) - len(x),
    )


def _best(rows: Rows) -> tuple[dict[_At, tuple[_Rank, int]], Counter[_At], int]:
    """Returns rank and index of the best row at each layer and position, how many are there, and
    how many rows lie in several layers."""
    best: dict[_At, tuple[_Rank, int]] = {}
    counts, left_out = Counter[_At](), 0
    columns = ("layer", "position", "units", "verdict", "iia", "effect")
    for i, row in enumerate(rows.only(*(c for c in columns if c in rows.table.column_names))):
        if row["layer"] is None and not has_no_layer(unit_texts(row["units"])):
            left_out += 1
            continue
        at, rank = (row["layer"], row["position"]), _rank(row)
        counts[at] += 1
        if at not in best or rank > best[at][0]:
            best[at] = rank, i
    return best, counts, left_out


def _rank(row: Row) -> _Rank:
    value = row.get("iia", row.get("effect"))
    return row.get("verdict") == "accept", -1.0 if value is None else value
