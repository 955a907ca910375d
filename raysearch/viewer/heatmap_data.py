"""Arranges the hypotheses of a run in maps, as numbers that a page draws.

Invariants: each hypothesis is in one cell of one map, or in the list of those that are in none; a
cell is the number of its hypothesis, -1 where there is none.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raysearch.report.panels import Panel, panels
from raysearch.report.row_sequence import Rows, TableRow
from raysearch.report.run_data import RunData
from raysearch.visible_text import visible

Map = dict[str, Any]


def maps_of(rows: Rows, variables: Sequence[str], tokens: Mapping[str, str]) -> list[Map]:
    """Returns the maps of all variables, in their order; a cell is a place in `rows`. `tokens`: an
    example text by position."""
    return [
        _map(panel, at, tokens)
        for at, variable in enumerate(variables)
        for panel in panels(variable, _placed(rows, variable), _kept)
        if panel.cells
    ]


def _placed(rows: Rows, variable: str) -> Iterator[TableRow]:
    """Yields the rows of a variable, each with its place."""
    places = rows.places("variable", variable).to_pylist()
    return ({**row, "at": at} for at, row in zip(places, rows.take(places), strict=True))


def _kept(row: TableRow) -> TableRow:
    return {"at": row["at"], "position": row["position"]}


def _map(panel: Panel, variable: int, tokens: Mapping[str, str]) -> Map:
    columns = range(len(panel.labels))
    positions = {x: row["position"] for (_, x), row in panel.cells.items()}
    return {
        "variable": variable,
        "shared": [visible(part) for part in panel.shared],
        "axis": panel.axis,
        "layers": list(reversed(panel.layer_labels)),
        "labels": [label.split("\n") for label in panel.labels],
        "examples": [visible(tokens.get(positions.get(x) or "", "")) for x in columns]
        if panel.axis == "position"
        else [],
        "cells": [
            panel.cells[y, x]["at"] if (y, x) in panel.cells else -1
            for y in reversed(range(len(panel.layers)))
            for x in columns
        ],
    }


def effects_of(data: RunData, tokens: Mapping[str, str]) -> dict[str, Any] | None:
    """Returns the maps of what attribution foresaw, with each effect, its pairs, and whether a
    hypothesis there was asked about; None where it foresaw nothing."""
    if not data.effects:
        return None
    rows = data.effects
    asked = {
        (row["variable"], site)
        for row in data.proposed.only("variable", "units")
        for site in _sites(row)
    }
    chosen = [
        int(any((row["variable"], site) in asked for site in _sites(row)))
        for row in rows.only("variable", "units")
    ]
    variables = data.proposed.values("variable")
    return {
        "maps": maps_of(rows, variables, tokens),
        "effect": rows.column("effect").to_pylist(),
        "pairs": rows.column("pairs").to_pylist(),
        "asked": chosen,
    }


def _sites(row: TableRow) -> list[str]:
    """Returns the sites of a row's units, including source sites, without their subspaces."""
    units = json.loads(row["units"])
    return [json.dumps({**unit, "subspace": None}, sort_keys=True) for unit in units]
