"""Whether a run that was disturbed has the tables of one that was not: row for row, and what its
journal says of repeats.

Invariants: the journal is read here as plain JSON lines, by no code of the product's.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds

KEYS = {
    "hypotheses": ("hypothesis",),
    "observations": ("intervention", "fit", "split", "block"),
    "verdicts": ("hypothesis",),
    "fits": ("intervention", "seed", "step", "status", "fit"),
}
"""The tables that must be equal, and what names a row of each."""
VOLATILE = ("worker", "attempt", "seconds", "device", "conflicts")
"""Columns that may differ; conflicts are held against the journal instead."""
_Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """Rows of a disturbed run against those of the undisturbed one: missing, there twice, with
    other contents; and what else is wrong."""

    lost: int = 0
    twice: int = 0
    other: int = 0
    wrong: tuple[str, ...] = ()

    @property
    def none(self) -> bool:
        return self == Difference()


def compare(undisturbed: Path, disturbed: Path) -> Difference:
    """The tables of two runs of one job."""
    lost = twice = other = 0
    wrong: list[str] = []
    for name in KEYS:
        wanted, found = _by_key(undisturbed, name), _by_key(disturbed, name)
        lost += len(wanted.keys() - found.keys())
        twice += sum(len(rows) - 1 for rows in found.values())
        unlike = [k for k, rows in found.items() if _bare(rows[0]) != _bare(wanted.get(k, [{}])[0])]
        other += len(unlike)
        wrong += [f"{name}: {_unlike(wanted.get(k), found[k])}" for k in unlike[:3]]
        wrong += [
            f"{name}: there is no row {k}"
            for k in sorted(wanted.keys() - found.keys(), key=repr)[:3]
        ]
    return Difference(lost, twice, other, (*wrong, *check_failures(disturbed)))


def check_failures(run: Path) -> Iterator[str]:
    """What the table of failures, and the column of conflicts, have otherwise than the journal."""
    entries = list(journalled(run))
    conflicts = Counter(_conflicts(entries))
    expected = Counter(
        {"Conflict": conflicts.total(), "Lost": sum(e["type"] == "lost" for e in entries)}
    )
    rows = _rows(run, "failures")
    found = Counter(str(row["error_type"]) for row in rows)
    if +expected != found:
        yield f"failures: {dict(found)}, the journal has {dict(+expected)}"
    for row in _rows(run, "observations"):
        key = (
            row["intervention"] + (f"@{row['fit']}" if row["fit"] else ""),
            row["split"],
            row["block"],
        )
        if row["conflicts"] > conflicts[key]:
            yield f"observations: {key} counts {row['conflicts']} conflicts, the journal has {conflicts[key]}"


def journalled(run: Path) -> Iterator[_Row]:
    """The entries of a journal in their order, half lines left out."""
    for file in sorted((run / "journal").glob("*/*.jsonl")):
        for line in file.read_bytes().splitlines(keepends=True):
            try:
                if line.endswith(b"\n"):
                    yield json.loads(line)["entry"]
            except ValueError:
                continue  # the test of the journal is elsewhere; here a line that is half there does not count


def _conflicts(entries: Iterable[_Row]) -> Iterator[tuple[Any, ...]]:
    """The key of each repeat that says otherwise than the first."""
    first: dict[tuple[Any, ...], Any] = {}
    for entry in entries:
        if entry["type"] == "measured":
            key, said = (entry["intervention"], entry["split"], entry["block"]), entry["outputs"]
        elif entry["type"] == "fitted":
            key, said = (entry["intervention"], entry["seed"], entry["first"]), entry["fit"]
        else:
            continue
        if first.setdefault(key, said) != said:
            yield key


def _rows(run: Path, table: str) -> list[_Row]:
    folder = run / "tables" / table
    if not folder.exists():  # a table that has no row has no part: no failure, as a rule
        return []
    found: list[_Row] = ds.dataset(folder, format="parquet").to_table().to_pylist()
    return found


def _by_key(run: Path, table: str) -> Mapping[tuple[Any, ...], list[_Row]]:
    rows: dict[tuple[Any, ...], list[_Row]] = {}
    for row in _rows(run, table):
        rows.setdefault(tuple(row[name] for name in KEYS[table]), []).append(row)
    return rows


def _bare(row: _Row) -> _Row:
    return {name: value for name, value in row.items() if name not in VOLATILE}


def _unlike(wanted: list[_Row] | None, found: list[_Row]) -> str:
    if wanted is None:
        return f"a row that is not of the undisturbed run: {_bare(found[0])}"
    here, there = _bare(wanted[0]), _bare(found[0])
    return f"{[(k, here[k], there[k]) for k in here if here[k] != there[k]]} in {there}"[:600]
