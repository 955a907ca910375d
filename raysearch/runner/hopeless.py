"""Says where a search cannot accept anything, whatever its outputs: it has too few pairs for its
number of hypotheses and its error level.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from raysearch.job import Job
from raysearch.report.results_table import read_table
from raysearch.runner.frontend import RunOutcome
from raysearch.runner.stored_job import job_of
from raysearch.stats.exact_test import ExactTest
from raysearch.stats.match_test import MatchTest
from raysearch.stats.power import fewest_pairs, power
from raysearch.store.run_folder import RunFolder


def hopeless_words(test: MatchTest, pairs: int, job: Job, asked: str) -> str | None:
    """Returns why a test on so many pairs accepts nothing, though all should match, and what would
    do; None where it can accept.

    Args:
        asked: the hypotheses that share the chance of a false accept, in words.
    """
    if pairs and power(test, 1.0, pairs, job.test.use == "fixed").accept > 0:
        return None
    needed = fewest_pairs(replace(test, population=None))
    return (
        f"nothing can be accepted: {asked}, false accept {job.test.false_accept:g} and threshold "
        f"{job.test.threshold:g} need {needed} pairs that all match, and a test has at most "
        f"{pairs}; give more pairs (pairs.test, test.max_pairs), ask fewer hypotheses, or raise "
        "test.false_accept"
    )


def nothing_accepted(ended: RunOutcome) -> str | None:
    """Returns the same of a run that is done; None where something was, or could be, accepted, and
    where that is not known: about new values, in runs that were continued or are of earlier
    versions."""
    rows, job = ended.results.hypotheses, job_of(ended.run)
    levels = [level for level in rows.values("level") if level is not None]
    if ended.run.info.continued or job.test.generalise == "values":
        return None
    if ended.snapshot.accepted or not levels:
        return None
    level = job.test.false_accept if job.test.control == "fdr" else max(levels)
    sizes = [n for n in rows.values("population_size") if n is not None]
    kind = ExactTest if job.test.is_exact else MatchTest
    test = kind(job.test.threshold, level, job.test.miss, 1, job.test.indifference)
    if sizes and job.test.claim == "these_pairs":
        test = replace(test, population=max(sizes))
    asked = f"K = {ended.run.info.k or len(rows)} hypotheses"
    return hopeless_words(test, _usable(ended.run, rows.values("variable"), job), job, asked)


def _usable(run: RunFolder, variables: list[str], job: Job) -> int:
    """Returns the test pairs that count for the variable that has the most, as far as a test may
    use them."""
    used: dict[str, dict[str | None, int]] = {}
    row: Mapping[str, Any]
    for row in read_table(run.folder, "dropped").to_pylist():
        if row["split"] == "test":
            used.setdefault(row["variable"], {})[row["set"]] = row["used"]
    most = min(job.test.most_pairs, job.pairs.test)
    counts = [sum(used[v].values()) if v in used else most for v in variables]
    return min(most, max(counts, default=0))
