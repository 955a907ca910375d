"""Says of each undecided hypothesis why, in the numbers of its row: pairs, interval, threshold, and
the pairs that its test may use.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raysearch.report.labels import score_label
from raysearch.report.rows import Row


def with_reasons(found: pa.Table, job: Mapping[str, Any]) -> pa.Table:
    """Returns the results with a reason for each undecided row of a run with that job."""
    undecided = pc.fill_null(pc.equal(found["verdict"], "undecided"), fill_value=False)
    if not pc.any(undecided).as_py() or not job:
        return found
    rows = found.filter(undecided).select(["n", "iia", "low", "high", "reason"]).to_pylist()
    words = pa.array([_words(row, job) for row in rows], pa.string())
    reasons = pc.replace_with_mask(found["reason"].combine_chunks(), _flat(undecided), words)
    return found.set_column(found.column_names.index("reason"), "reason", reasons)


def most_pairs(job: Mapping[str, Any]) -> int | None:
    """Returns the most test pairs that a hypothesis of a job may use, if every pair counts; None
    where a job of an earlier version does not say it."""
    test, pairs = job.get("test") or {}, job.get("pairs") or {}
    own = test.get("max_pairs") if test.get("pairs") is None else test["pairs"]
    known = [n for n in (own, pairs.get("test")) if isinstance(n, int)]
    return min(known, default=None)


def _words(row: Row, job: Mapping[str, Any]) -> str:
    most = most_pairs(job)
    allowed = "" if most is None else f" of at most {most}"
    figures = f"{row['n'] or 0} pairs{allowed} (test.max_pairs, pairs.test)"
    if row["iia"] is not None and row["low"] is not None:
        figures += (
            f" give {score_label(job).name} {row['iia']:.3f}, 95 % interval {row['low']:.3f} to "
            f"{row['high']:.3f}, threshold {(job.get('test') or {}).get('threshold', 0.0):g}"
        )
    return f"{row['reason'] or 'neither accepted nor rejected at the last pair'}: {figures}"


def _flat(mask: pa.ChunkedArray | pa.Array) -> pa.Array:
    return mask.combine_chunks() if isinstance(mask, pa.ChunkedArray) else mask
