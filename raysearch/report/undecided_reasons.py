"""Says of each undecided hypothesis why, in the numbers of its row: pairs, interval, threshold, the
evidence that an accept needs, and the pairs that its test may use.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raysearch.report.labels import score_label
from raysearch.report.row_sequence import TableRow

_COLUMNS = ("n", "iia", "low", "high", "keep_n", "keep_iia", "reason", "level", "part")


def with_reasons(
    found: pa.Table, job: Mapping[str, Any], continued: Mapping[str, int] | None = None
) -> pa.Table:
    """Returns the results with a reason for each undecided row of a run with that job. `continued`:
    as in `RunInfo`."""
    undecided = pc.fill_null(pc.equal(found["verdict"], "undecided"), fill_value=False)
    if not pc.any(undecided).as_py() or not job:
        return found
    columns = [name for name in _COLUMNS if name in found.column_names]
    rows = found.filter(undecided).select(columns).to_pylist()
    known = found["level"].to_pylist() if "level" in columns else []
    levels = {level for level in known if level}
    weighed = bool(levels) and min(levels) < max(levels) * (1 - 1e-9)
    words = pa.array([_words(row, job, continued or {}, weighed) for row in rows], pa.string())
    reasons = pc.replace_with_mask(found["reason"].combine_chunks(), _flat(undecided), words)
    return found.set_column(found.column_names.index("reason"), "reason", reasons)


def _words(
    row: TableRow, job: Mapping[str, Any], continued: Mapping[str, int], weighed: bool
) -> str:
    test = job.get("test") or {}
    text = f"{row['n'] or 0} pairs{_limit(row, job, continued)}"
    if row["iia"] is not None and row["low"] is not None:
        text += (
            f" give {score_label(job).name} {row['iia']:.3f}, 95 % interval {row['low']:.3f} to "
            f"{row['high']:.3f}, threshold {test.get('threshold', 0.0):g}"
        )
    text += _keep(row, job) + _evidence(row.get("level"), test, weighed)
    return f"{row['reason'] or 'neither accepted nor rejected at the last pair'}: {text}"


def _keep(row: TableRow, job: Mapping[str, Any]) -> str:
    """Says what keep pairs show, where they decide too."""
    if (job.get("pairs") or {}).get("kinds") != "both" or row.get("keep_n") is None:
        return ""
    test, n, iia = job.get("test") or {}, row["keep_n"], row["keep_iia"]
    given = "" if iia is None else f" give {iia:.3f}"
    tau = test.get("keep_threshold") or test.get("threshold", 0.0)
    return f"; {n} keep pairs, which decide too{given}, threshold {tau:g}"


def _limit(row: TableRow, job: Mapping[str, Any], continued: Mapping[str, int]) -> str:
    """Says how many pairs the test may use, if every pair counts, and by which key; nothing where
    a job of an earlier version does not say it."""
    test, drawn = job.get("test") or {}, (job.get("pairs") or {}).get("test")
    key = "test.max_pairs" if test.get("pairs") is None else "test.pairs"
    most = test.get(key.partition(".")[2])
    if isinstance(drawn, int) and (not isinstance(most, int) or drawn < most):
        key, most = "pairs.test", drawn
    if not isinstance(most, int):
        return ""
    if continued and test.get("reserve"):  # anew, on the further pairs alone
        if not row.get("part"):
            return f" of at most {most} ({key})"
        return f" of at most {list(continued.values())[-1]} (--more-pairs)"
    if continued:
        return f" of at most {most + sum(continued.values())} ({key} and --more-pairs)"
    return f" of at most {most} ({key})"


def _evidence(level: float | None, test: Mapping[str, Any], weighed: bool) -> str:
    """Says in words which evidence an accept needs, beyond that of the interval."""
    whole = test.get("false_accept")
    if level is None or not isinstance(whole, float):
        return ""
    need = f"; an accept needs evidence at level {level:.3g}"
    if test.get("control") == "fdr":
        return f"{need}, or less beside other accepts (test.control: fdr)"
    asked = whole * (1 - (test.get("reserve") or 0.0)) / level
    if weighed and test.get("weights") != "even":
        return f"{need}: its weight's share of test.false_accept {whole:g}"
    if abs(asked - round(asked)) > 1e-6 * asked or test.get("reserve"):
        return f"{need}: its share of test.false_accept {whole:g}"
    return f"{need}: test.false_accept {whole:g} over K = {round(asked):,} hypotheses"


def _flat(mask: pa.ChunkedArray | pa.Array) -> pa.Array:
    return mask.combine_chunks() if isinstance(mask, pa.ChunkedArray) else mask
