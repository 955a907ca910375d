"""Says where a search cannot accept anything, whatever its outputs: it has too few pairs for its
number of hypotheses and its error level.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from raysearch.job import Job
from raysearch.report.results_table import read_table
from raysearch.runner.session.frontend import RunOutcome
from raysearch.runner.stored_run.stored_job import job_of
from raysearch.stats.exact_test import ExactTest
from raysearch.stats.match_test import MatchTest
from raysearch.stats.power import fewest_pairs, power
from raysearch.store.run_folder import RunFolder

MAX_PAIRS = "test.max_pairs"


def too_few_pairs(
    test: MatchTest, pairs: int, job: Job, hypotheses: int, weighed: bool = False
) -> str | None:
    """Returns why a test on so many pairs accepts nothing, though all should match, and what would
    do; None where it can accept.

    Args:
        test: of the hypothesis that is accepted by the least evidence.
        hypotheses: those that share the chance of a false accept (K).
        weighed: whether they share it by weights.
    """
    if pairs and power(test, 1.0, pairs, job.test.use == "fixed").accept > 0:
        return None
    needed = fewest_pairs(replace(test, population=None))
    keys, most = job.test, f"and a test has at most {pairs}"
    level, threshold = f"false accept {keys.false_accept:g}", f"threshold {keys.threshold:g}"
    more = f"give more pairs (pairs.test, {'test.pairs' if keys.use == 'fixed' else MAX_PAIRS})"
    begin = "nothing can be accepted:"
    if keys.control == "fdr":
        alone = fewest_pairs(replace(test, population=None, hypotheses=hypotheses))
        return (
            f"{begin} with test.control: fdr at {level} and {threshold}, {needed} pairs that all "
            f"match are needed even where all K = {hypotheses} hypotheses are accepted together "
            f"({alone} where one is alone), {most}; {more}, or raise test.false_accept"
        )
    if weighed:
        even = fewest_pairs(
            replace(test, population=None, false_accept=keys.false_accept / hypotheses)
        )
        spends = test.false_accept / test.hypotheses
        return (
            f"{begin} hypotheses spend unequal shares of {level} (test.weights); at {threshold} "
            f"one that spends {spends:.3g} needs {needed} pairs that all match ({even} at an even "
            f"share among K = {hypotheses}), {most}; {more}, or raise test.false_accept"
        )
    return (
        f"{begin} K = {hypotheses} hypotheses, {level} and {threshold} need {needed} pairs that "
        f"all match, {most}; {more}, ask fewer hypotheses, or raise test.false_accept"
    )


def nothing_accepted(ended: RunOutcome) -> str | None:
    """Returns the same of a run that is done; None where something was, or could be, accepted, and
    where that is not known: about new values, and in runs of earlier versions."""
    rows, job = ended.results.hypotheses, job_of(ended.run)
    more = list(ended.run.info.continued.values())
    if job.test.is_exact and more:  # tested anew, on the last further pairs alone
        last = max((part or 0 for part in rows.values("part")), default=0)
        rows = rows.where("part", last)
    levels = [level for level in rows.values("level") if level is not None]
    if ended.snapshot.accepted or not levels or job.test.generalise == "values":
        return None
    most = min(job.test.most_pairs, job.pairs.test)
    most = more[-1] if job.test.is_exact and more else most + sum(more)
    level = job.test.false_accept if job.test.control == "fdr" else max(levels)
    sizes = [n for n in rows.values("population_size") if n is not None]
    kind = ExactTest if job.test.is_exact else MatchTest
    test = kind(job.test.threshold, level, job.test.miss, 1, job.test.indifference)
    if sizes and job.test.claim == "these_pairs":
        test = replace(test, population=max(sizes))
    used = used_pairs(ended.run)
    pairs = min(most, max((used.get(v, most) for v in rows.values("variable")), default=0))
    asked = ended.run.info.k or len(ended.results.hypotheses)
    return too_few_pairs(test, pairs, job, asked, min(levels) < max(levels) * (1 - 1e-9))


def used_pairs(run: RunFolder) -> dict[str, int]:
    """Returns the test pairs in use that count for each variable; of runs of earlier versions
    none."""
    used: dict[str, dict[str | None, int]] = {}
    row: Mapping[str, Any]
    for row in read_table(run.folder, "dropped").to_pylist():
        if row["split"] == "test":
            used.setdefault(row["variable"], {})[row["set"]] = row["used"]
    return {variable: sum(counts.values()) for variable, counts in used.items()}
