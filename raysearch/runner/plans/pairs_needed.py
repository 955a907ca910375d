"""Says how many further test pairs would decide what is undecided in a run that is done.

Invariants: run.json, the job and the tables alone are read: no code of the job runs, no file is
fetched, no model looked for.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from raysearch.errors import PairsError, ResumeError
from raysearch.job import Job
from raysearch.job.file_keys import MODEL, is_beside
from raysearch.job.job_files import named_files
from raysearch.job.keys import MOST_PAIRS
from raysearch.report.results_table import read_table, results
from raysearch.report.row_sequence import TableRow
from raysearch.runner.resolution.given_objects import NO_OBJECTS
from raysearch.runner.resolution.resolved_job import ResolvedJob
from raysearch.runner.session.continuation import check_draws, check_rules, used_up
from raysearch.runner.session.too_few_pairs import used_pairs
from raysearch.runner.stored_run.reopen import as_stored
from raysearch.runner.stored_run.resume_checks import check_version
from raysearch.runner.stored_run.stored_job import job_of
from raysearch.stats.evidence import Evidence
from raysearch.stats.exact_test import ExactTest
from raysearch.stats.match_test import MatchTest
from raysearch.store.pairs_table import PairsTable, read_pairs
from raysearch.store.run_folder import RunFolder

AT_ONCE = 10
"""Times the pairs of a test: a hypothesis that needs more is not waited for."""


def pairs_for_verdicts(run: RunFolder) -> int:
    """Returns how many further pairs decide what is undecided, if they match as often as those so
    far; at least as many as a test may use at first.

    A hypothesis that would need more than ten times these is left out.

    Raises:
        ResumeError, PairsError, StoreError: the run cannot be continued, or all would need more
            than that, since they are at the threshold; the text says why.
    """
    check_version(run)
    job, stored = job_of(run), read_pairs(run.folder)
    resolved = as_stored(job, stored)
    check_rules(run, resolved)
    _check_files(run, job)
    rows = results(run.folder, where="verdict = 'undecided'").to_pylist()
    blocked, at_hand = _pairs(run, resolved, stored)
    counting = used_pairs(run)  # one that leaves a variable as it is counts for others alone
    needs = sorted(
        -(-n * max(blocked, counts) // counts)
        for row in rows
        if (n := _needed(run, job, row, len(rows)))
        and (counts := counting.get(row["variable"], blocked))
    )
    most = min(job.test.most_pairs, job.pairs.test)
    wanted = max(most, *(n for n in needs if n <= AT_ONCE * most), 1)
    draws = job.problem.use is not None and not resolved.population.fixed
    if draws and wanted > at_hand:
        check_draws(run, resolved, NO_OBJECTS, at_hand)
    if not draws and not at_hand:
        raise PairsError(used_up(run, resolved))
    nearest = needs[0] if needs else 1
    if rows and all(row["n"] for row in rows) and (not needs or nearest > AT_ONCE * most):
        raise PairsError(_at_threshold(run, job, rows, needs))
    if draws:
        return wanted
    if at_hand < nearest:
        raise PairsError(
            f"run {run.info.id}: {at_hand} further test pairs are at hand, and the nearest verdict "
            f"needs {nearest}; begin a new run with more pairs (a longer file, a larger pairs.test)"
        )
    return min(wanted, at_hand)


def _at_threshold(run: RunFolder, job: Job, rows: Sequence[TableRow], needs: Sequence[int]) -> str:
    """Says that no number of pairs that is worth drawing decides what is undecided, and why."""
    shares = sorted({f"{row['iia']:.3f}" for row in rows})
    shown = ", ".join([*shares[:4], *["..."] * (len(shares) > 4)])
    return (
        f"run {run.info.id}: what is undecided lies at the threshold {job.test.threshold:g} "
        f"({shown}), so that "
        + (f"a verdict needs {needs[0]:,} further pairs or more" if needs else "no pairs decide it")
        + ", if they match as often; ask at another test.threshold"
    )


def _pairs(run: RunFolder, resolved: ResolvedJob, stored: PairsTable) -> tuple[int, int]:
    """Returns how many test pairs are in use, and how many further ones are at hand: those beyond
    `test.max_pairs` and, unless the population is finite, those that were not screened."""
    test = {p.index for p in resolved.pairs if p.split == "test"}
    blocked = sum(s.pair in test and s.block is not None for s in stored.screened or ())
    left = {"beyond_max_pairs"} if resolved.population.fixed else {"beyond_max_pairs", "not_asked"}
    at_hand = Counter[str]()  # by variable: all have as many
    row: TableRow
    for row in read_table(run.folder, "dropped").to_pylist():
        if row["split"] == "test" and row["reason"] in left:
            at_hand[row["variable"]] += row["pairs"]
    return blocked, max(at_hand.values(), default=0)


def _check_files(run: RunFolder, job: Job) -> None:
    """Raises: ResumeError where an object or a file is not here that a continuation needs."""
    if job.model.is_given:
        raise ResumeError(
            f"run {run.info.id} began with a model that was given as an object; give it again, in "
            f"Python: rs.resume({run.place!r}, model=model, more_pairs=...)"
        )
    for file in named_files(job):
        path = file.path
        if file.is_remote or not (file.is_code or (file.key == MODEL and Path(path).is_absolute())):
            continue
        if is_beside(path):
            folder, _, name = path.rpartition("/")
            is_here = run.folder.at(folder).exists(name)
        else:
            is_here = Path(path).exists()
        if not is_here:
            raise ResumeError(
                f"run {run.info.id} needs {file.key} to go on, and there is no {path}; put it back"
            )


def _needed(run: RunFolder, job: Job, row: TableRow, undecided: int) -> int | None:
    """Returns the fewest further pairs with which a hypothesis has a verdict, if they match as
    often as those so far; None where none that can be drawn do.

    Of a score as if each were 0 or 1, of which all of one mean spread most.
    """
    n, iia = row["n"] or 0, row["iia"]
    if not n or iia is None:
        return None
    anew = job.test.is_exact
    test = _test(run, job, row, undecided)
    matches, share = round(iia * n), Fraction(round(iia * n), n)
    left = MOST_PAIRS if test.population is None else test.population - (0 if anew else n)

    def decides(more: int) -> bool:
        begun = (0, 0) if anew else (n, matches)
        up, down = test.log_evidence(Evidence(begun[0] + more, begun[1] + int(share * more)))
        return up >= test.accept_at or down >= test.reject_at

    high = 1
    while high <= left and not decides(high):
        high *= 2
    low, high = high // 2, min(high, left)
    if high < 1 or not decides(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return high


def _test(run: RunFolder, job: Job, row: Mapping[str, Any], undecided: int) -> MatchTest:
    """Returns the test that a hypothesis has where the run is continued."""
    keys = job.test
    if keys.is_exact:  # anew, on the further pairs alone, at what is reserved for that
        number = 1 + len(run.info.continued)
        share = keys.reserve / (number * (number + 1))
        level = keys.false_accept * share / undecided
        return ExactTest(keys.threshold, level, keys.miss * share, 1, keys.indifference)
    level = row["level"] or keys.false_accept / (run.info.k or 1)
    test = MatchTest(keys.threshold, level, keys.miss, 1, keys.indifference)
    if row.get("population_size") is not None and keys.claim == "these_pairs":
        return replace(test, population=row["population_size"])
    return test
