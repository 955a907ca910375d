"""Which pairs of a run do not count, and why, in lines: read from its table `dropped`.

Invariants: the words are those of the run itself (core/pair_counts.py); a run of before that table
has nothing to say.
"""

from collections.abc import Sequence
from typing import Any

from raysearch.core.pair_counts import PairCount, describe_counts
from raysearch.report.results_table import read_table
from raysearch.storage.open import FolderLike


def dropped(run: FolderLike) -> list[str]:
    """A line for each variable and split of which pairs do not count, test pairs first. Raises:
    StoreError."""
    rows: list[dict[str, Any]] = read_table(run, "dropped").to_pylist()
    counts = [*_left(rows), *_used(rows)]
    return [*describe_counts(counts, "test"), *describe_counts(counts, "holdout")]


def _left(rows: Sequence[dict[str, Any]]) -> list[PairCount]:
    return [
        PairCount(r["variable"], r["split"], r["set"], r["reason"], r["pairs"], r["detail"] or "")
        for r in rows
    ]


def _used(rows: Sequence[dict[str, Any]]) -> list[PairCount]:
    """What a variable uses of each split and set of which something was left out."""
    used = {(r["variable"], r["split"], r["set"]): r["used"] for r in rows}
    return [
        PairCount(variable, split, kind, None, n) for (variable, split, kind), n in used.items()
    ]
