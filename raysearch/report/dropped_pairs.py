"""Describes which pairs of a run do not count, and why, from its table `dropped`.

Invariants: the words are those of the run itself (core/pair_counts.py); runs older than that table
give no lines.
"""

from collections.abc import Callable, Sequence
from typing import Any

from raysearch.causal import Split
from raysearch.core.pair_counts import PairCount, describe_counts, summarise_counts
from raysearch.report.results_table import read_table
from raysearch.storage.open_folder import FolderLike


def describe_dropped(run: FolderLike) -> list[str]:
    """Returns a line for each variable and split with pairs that do not count, test first.

    Raises: StoreError.
    """
    return _described(run, describe_counts)


def summarise_dropped(run: FolderLike) -> list[str]:
    """Returns the same in a line or two over all variables. Raises: StoreError."""
    return _described(run, summarise_counts)


def _described(
    run: FolderLike, describe: Callable[[Sequence[PairCount], Split], list[str]]
) -> list[str]:
    rows: list[dict[str, Any]] = read_table(run, "dropped").to_pylist()
    counts = [*_dropped_counts(rows), *_used_counts(rows)]
    return [*describe(counts, "test"), *describe(counts, "holdout")]


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
