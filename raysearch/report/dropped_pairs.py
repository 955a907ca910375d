"""Describes which pairs of a run do not count, and why, from its table `dropped`.

Invariants: the words are those of the run itself (core/pair_counts.py); runs older than that table
give no lines.
"""

from collections.abc import Sequence
from typing import Any

from raysearch.core.pair_counts import PairCount, summarise_counts
from raysearch.report.results_table import read_table
from raysearch.storage.open_folder import FolderLike


def summarise_dropped(run: FolderLike) -> list[str]:
    """Returns a line or two over all variables for each split, test first: how many pairs count,
    and why others do not.

    Raises: StoreError.
    """
    rows: list[dict[str, Any]] = read_table(run, "dropped").to_pylist()
    counts = [*_dropped_counts(rows), *_used_counts(rows)]
    return [*summarise_counts(counts, "test"), *summarise_counts(counts, "holdout")]


def _dropped_counts(rows: Sequence[dict[str, Any]]) -> list[PairCount]:
    return [
        PairCount(r["variable"], r["split"], r["set"], r["reason"], r["pairs"], r["detail"] or "")
        for r in rows
    ]


def _used_counts(rows: Sequence[dict[str, Any]]) -> list[PairCount]:
    """Counts the pairs that a variable uses, for each split and set with dropped ones."""
    used = {(r["variable"], r["split"], r["set"]): r["used"] for r in rows}
    return [
        PairCount(variable, split, kind, None, n) for (variable, split, kind), n in used.items()
    ]
