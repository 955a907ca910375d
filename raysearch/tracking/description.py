"""Describes in Markdown what a run found, for a tracker: counts, each variable's best site, and the
claim.

Invariants: users' text stands in it literally; at most MAX_VARIABLES variables are named.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from raysearch.markdown_text import literal
from raysearch.report.labels import VERDICT_WORDS
from raysearch.report.row_sequence import TableRow
from raysearch.report.run_results import RunResults
from raysearch.report.unit_text import words
from raysearch.tracking.best_sites import rank_of

MAX_VARIABLES = 20
_COLUMNS = ("variable", "verdict", "units", "iia", "low", "high", "n", "holdout_iia")


def describe(results: RunResults, claim: str, score: str) -> str:
    """Returns the description. `claim`: the words of `claim_words`; `score`: the tested score's
    name."""
    by_variable = _by_variable(results)
    every = Counter(row["verdict"] for rows in by_variable.values() for row in rows)
    counts = [f"{every[v]} {word}" for v, word in VERDICT_WORDS.items() if every[v]]
    lines = [
        f"- **{literal(variable)}**: {_found(rows, score)}"
        for variable, rows in list(by_variable.items())[:MAX_VARIABLES]
    ]
    if (more := len(by_variable) - MAX_VARIABLES) > 0:
        lines.append(f"- and {more} more")
    head = (
        f"**{', '.join(counts)}**, of {every.total()} hypotheses. The best site of each variable "
        "(accepted before undecided ones, then by the lower end of the interval; chosen among "
        "many, so that its mean tends to be too high: go by the holdout):"
    )
    return "\n\n".join([head, "\n".join(lines), literal(claim)])


def best_means(results: RunResults) -> dict[str, float]:
    """Returns the mean of each variable's best site, as the description has it."""
    best = ((variable, _best(rows)["iia"]) for variable, rows in _by_variable(results).items())
    return {variable: float(iia) for variable, iia in best if iia is not None}


def _by_variable(results: RunResults) -> dict[str, list[TableRow]]:
    found: dict[str, list[TableRow]] = {}
    for row in results.hypotheses.only(*_COLUMNS):
        found.setdefault(row["variable"], []).append(row)
    return found


def _best(rows: list[TableRow]) -> TableRow:
    """Returns the best of the rows that were measured and did not fail; else the first."""
    known = [row for row in rows if row["iia"] is not None and row["verdict"] != "failed"]
    return max(
        known, key=lambda row: rank_of(row["verdict"], row["low"], row["iia"]), default=rows[0]
    )


def _found(rows: list[TableRow], score: str) -> str:
    """Describes the best of a variable's rows, and how many were accepted."""
    best: Mapping[str, Any] = _best(rows)
    accepted = sum(row["verdict"] == "accept" for row in rows)
    if best["iia"] is None:
        return f"{accepted} of {len(rows)} accepted"
    interval = "" if best["low"] is None else f" ({best['low']:.2f} to {best['high']:.2f})"
    holdout = "" if best["holdout_iia"] is None else f", holdout {best['holdout_iia']:.2f}"
    said = "" if accepted else f", {VERDICT_WORDS[best['verdict']]}"
    return (
        f"{accepted} of {len(rows)} accepted; {literal(words(best['units']))}: {score} "
        f"{best['iia']:.2f}{interval} of {best['n']} pairs{holdout}{said}"
    )
