"""Continues a run that is done: what is undecided gets further test pairs.

Invariants: what is continued, and on which pairs, follows from the journal and the job alone; the
pairs are written before the continuation is journalled, and from then on any `resume` finishes it.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from raysearch.core.events import Continued, Encoded
from raysearch.errors import JobError, PairsError, ResumeError
from raysearch.job.keys import MOST_PAIRS
from raysearch.runner.resolution.given_objects import GivenObjects
from raysearch.runner.resolution.resolve import SPARE, with_more_pairs
from raysearch.runner.resolution.resolved_job import ResolvedJob, is_open
from raysearch.search.search import Search
from raysearch.storage.open_folder import open_folder
from raysearch.store.pairs_table import PairsTable, pairs_content
from raysearch.store.run_folder import RunFolder
from raysearch.store.used_pairs import earlier_runs, used_before, used_words


@dataclass(frozen=True)
class Continuation:
    """A run that is to be continued.

    Args:
        number: of the continuation, from 1.
        resolved: its job with the further pairs.
        words: what is continued, in a line.
    """

    event: Continued
    number: int
    resolved: ResolvedJob
    stored: PairsTable
    words: str

    def pairs(self, encoded: tuple[Encoded, ...]) -> bytes:
        """Returns pairs.parquet with the further pairs, as the model sees them."""
        of = self.stored
        return pairs_content(
            self.resolved.pairs, encoded, of.screened, of.left_out, of.population, self.number
        )


def check_request(pairs: int | None, retry: bool) -> None:
    """Raises: JobError where what is asked makes no sense for any run."""
    if pairs is None:
        return
    if isinstance(pairs, bool) or not isinstance(pairs, int) or not 1 <= pairs <= MOST_PAIRS:
        raise JobError(f"more pairs: {pairs!r} is no number from 1 to {MOST_PAIRS}")
    if retry:
        raise JobError(
            "more pairs and a retry of what failed are two requests; retry what failed first, and "
            "continue the run when that is done"
        )


def continuation(
    run: RunFolder,
    resolved: ResolvedJob,
    stored: PairsTable,
    done: Search | None,
    pairs: int,
    given: GivenObjects,
) -> Continuation:
    """Returns what a run is continued with.

    Args:
        resolved: its job with the pairs that it keeps, `stored`.
        done: its search, at the end; None if it is not done.

    Raises:
        ResumeError, PairsError: it cannot be continued; the text says what would do.
    """
    name = run.info.id
    if done is None:
        raise ResumeError(
            f"run {name} is not done, so it cannot be continued yet; `raysearch resume {name}` "
            "first, without more pairs"
        )
    event = done.continuation(pairs)
    check_rules(run, resolved)
    number = 1 + done.continuations
    # Without the pairs of a continuation that was cut off before it was journalled.
    kept = [p for p in resolved.pairs if p.added < number]
    resolved = replace(resolved, pairs=tuple(kept), continued=True)
    left, lacking = done.pairs_for(event)
    unasked = done.screening.unasked
    if resolved.population.fixed:
        lacking = unasked = 0
    wanted = (SPARE if resolved.job.pairs.solved_only else 1) * lacking
    # Where none can be drawn in place of those that the model may not solve, those at hand do.
    enough = lacking <= unasked and leaves_out_tested(resolved)
    if resolved.job.problem.use is not None and wanted > unasked and not enough:
        check_draws(run, resolved, given, left + unasked)
        resolved = with_more_pairs(resolved, wanted - unasked, number, given)
    more = len(resolved.pairs) - len(kept) + min(unasked, wanted)
    if not left + more:
        raise PairsError(used_up(run, resolved))
    begin = (
        f"continuing {len(event.hypotheses)} undecided hypotheses, on at most {pairs} further test "
        f"pairs each: {_which_pairs(left, min(lacking, more), more)}"
    )
    words = "\n".join([begin, *_used_before(run, resolved, stored)])
    return Continuation(event, number, resolved, stored, words)


def _which_pairs(left: int, lacking: int, more: int) -> str:
    """Says where further pairs come from: `left` are at hand, and `lacking` are found among `more`
    by screening.
    """
    found = f"{lacking:,} further ones"
    if more > lacking:
        found = f"the first {lacking:,} that the model solves of up to {more:,} further ones"
    return " and ".join([f"{left:,} at hand"] * bool(left) + [found] * bool(more))


def _used_before(run: RunFolder, resolved: ResolvedJob, stored: PairsTable) -> list[str]:
    """Returns lines on other runs that tested on pairs that it may go on with, and adds them to
    those that run.json names.

    Raises:
        ResumeError: there are some, and the job asks for fresh pairs.
    """
    lines: list[str] = []
    place, _, query = run.place.partition("?")
    store = open_folder((place.rpartition("/")[0] or "/") + f"?{query}" * bool(query))
    others = [r for r in earlier_runs(store, lines.append) if r.name != run.folder.name]
    contents = {p.index: p.contents for p in resolved.pairs if p.split == "test"}
    screened = [s for s in stored.screened or () if s.pair in contents]
    over = {s.pair for s in screened if s.block is not None or s.solved is False}
    further = {of for p, of in contents.items() if p not in over}
    further -= {contents[s.pair] for s in screened if s.block is not None}
    met = sorted(r.name for r in others if r.pairs & further)
    if resolved.job.pairs.fresh and met:
        n = len(further & frozenset[tuple[str, ...]]().union(*(r.pairs for r in others)))
        raise ResumeError(
            f"run {run.info.id} tests only on pairs that no run of its store has tested on "
            f"(pairs.fresh), and {n} of the {len(further)} that it would go on with are of other "
            f"runs ({', '.join(met[:3])}); without them they would be of another population, so "
            "begin a new run"
        )
    if before := used_before(others, run.info.model_digest or "", further):
        run.update(used_before={**run.info.used_before, **before})
        lines.append(used_words(before))
    return lines


def check_rules(run: RunFolder, resolved: ResolvedJob) -> None:
    """Raises: ResumeError where the bound on errors would not hold."""
    test, name = resolved.job.test, run.info.id
    if test.control == "fdr":
        raise ResumeError(
            f"run {name} bounds the false discovery rate (test.control: fdr), by e-values at the "
            "pair where each test ended by its own outcomes; whom to go on with would be chosen by "
            "those of others. Begin a new run with a larger test.max_pairs, or with control: fwer"
        )
    if test.generalise == "values":
        raise ResumeError(
            f"run {name} is about new values (test.generalise: values), of which all that are held "
            "out were matched when it began; begin a new run of a problem with more values"
        )
    if not test.is_exact:
        return
    if not test.reserve:
        raise ResumeError(
            f"run {name} has a fixed horizon (test.use: fixed) and keeps nothing for further pairs "
            f"(test.reserve: 0), so a second look would raise false accepts above "
            f"{test.false_accept:g}; begin a new run with more test.pairs, or with test.horizon: "
            "open or a test.reserve, and pairs.fresh: true"
        )
    fixed = resolved.population.fixed
    if fixed or is_open(resolved.job):
        why = "is about a finite set of pairs" if fixed else f"asks {resolved.job.propose.use}"
        raise ResumeError(
            f"run {name} has a fixed horizon (test.use: fixed) and {why}, so that there are no new "
            "pairs for a test anew; begin a new run with more test.pairs, or test.horizon: open"
        )


def leaves_out_tested(resolved: ResolvedJob) -> bool:
    """Says whether pairs that earlier runs had tested on were left out (pairs.fresh), so that the
    problem draws no more of the same population."""
    return any(left.reason == "used_before" for left in resolved.left_out)


def check_draws(run: RunFolder, resolved: ResolvedJob, given: GivenObjects, at_hand: int) -> None:
    """Raises: ResumeError where its problem cannot draw further pairs of the same population."""
    problem, name = resolved.job.problem, run.info.id
    if leaves_out_tested(resolved):
        raise ResumeError(
            f"run {name} left out pairs that earlier runs had tested on (pairs.fresh), {at_hand} "
            "are at hand, and what is drawn now would be of another population; give more pairs "
            f"than {at_hand} only in a new run"
        )
    if problem.is_given and given.problem is None:
        raise ResumeError(
            f"run {name} began with a problem that was given as an object ({problem.use}), and "
            f"only it draws further pairs; give it again, in Python: rs.resume({run.place!r}, "
            "problem=problem, more_pairs=...)"
        )


def used_up(run: RunFolder, resolved: ResolvedJob) -> str:
    """Says that no pair is left, and what would do."""
    test = sum(p.split == "test" for p in resolved.pairs)
    of = Path(str(resolved.job.problem.pairs or resolved.job.problem.use)).name
    beyond = sum(left.pairs for left in resolved.left_out if left.reason == "beyond")
    more = f" ({beyond} lines of it were left out, as more than pairs.test wants)" if beyond else ""
    about = resolved.population.fixed
    why = f", and its verdicts are about the {resolved.job.pairs.test} of them at most" * about
    return (
        f"run {run.info.id}: all pairs that it may test on are used: {of} gave {test} test pairs"
        f"{more}{why}; begin a new run with more pairs (a longer file, a larger pairs.test)"
    )
