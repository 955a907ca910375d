"""A run from its job to its results: pool, run folder, ledger, tracker; begun anew or gone on with.

Invariants: no run folder is made before the model is loaded and the job has proved to fit it;
whatever ends a search early, who asked is told that it can be gone on with, where that can help.
"""

import os
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from raysearch import driver
from raysearch.core.codec import to_json_values
from raysearch.core.events import Encoded
from raysearch.core.model_facts import ModelFacts
from raysearch.core.records import Snapshot
from raysearch.errors import JobError, StoreError, TakenOverError
from raysearch.job import Job
from raysearch.job.job_files import kept_beside
from raysearch.proposers.base import Proposer
from raysearch.report.control_comparison import RunResults
from raysearch.runner.continuation import Continuation, check_request, continuation
from raysearch.runner.fresh_pairs import with_fresh_pairs
from raysearch.runner.frontend import Frontend, RunOptions, RunOutcome
from raysearch.runner.given_objects import NO_OBJECTS, GivenObjects
from raysearch.runner.hopeless import nothing_accepted
from raysearch.runner.interrupt import Interrupt
from raysearch.runner.job_code import code_of
from raysearch.runner.messages import report_end, report_model, report_screening
from raysearch.runner.pools import RunPool, pool_of
from raysearch.runner.recorded_proposals import Recording, recording
from raysearch.runner.reopen import as_stored, reopened_job
from raysearch.runner.resolve import resolve
from raysearch.runner.resolved_job import ResolvedJob
from raysearch.runner.resume_checks import (
    check_digest,
    check_given,
    check_journal,
    check_objects,
    check_same,
    check_version,
    files_of,
    keep_files,
    stored_job,
    tracking_of,
)
from raysearch.runner.retry import concluded, retry_failed
from raysearch.runner.tracking import finish_tracking, start_tracking
from raysearch.search.search import EVIDENCE_VERSION, Search
from raysearch.store.ledger import RunLedger
from raysearch.store.locations import writable_store
from raysearch.store.pairs_table import pairs_digest, read_pairs, write_pairs
from raysearch.store.run_folder import RunFolder, find_run
from raysearch.store.used_pairs import EarlierRun, earlier_runs, used_before, used_words
from raysearch.tracking.registry import tracker_of
from raysearch.tracking.tracker import Tracker
from raysearch.tracking.uris import tracking_uri
from raysearch.viewer.live_page import LivePage
from raysearch.viewer.page import write_page

HEATMAPS = "RAYSEARCH_HEATMAPS"
"""The variable that switches off the pictures of a run, whose page has the same as tables."""


def begin(
    job: Job,
    where: RunOptions,
    frontend: Frontend,
    sent: Path | None = None,
    given: GivenObjects = NO_OBJECTS,
) -> RunOutcome:
    """A new run of a job, driven to its end or to an interrupt. `sent`: the folder that was sent
    along with it (`resume_checks.sent_with`).

    `given`: what was given as an object in the place of what the job names. Raises: RaysearchError
    in one line.
    """
    for line in code_of(job):
        frontend.say(line)
    resolved = resolve(job, given)
    root, uri = writable_store(where.store), tracking_uri(where.tracking_uri)
    tested = earlier_runs(root, frontend.say)
    resolved = with_fresh_pairs(resolved, tested)
    if uri is not None:
        tracker_of(uri)  # a broken package is reported before anything is loaded
    stored = resolved.job if sent is None else kept_beside(resolved.job, sent)
    with pool_of(resolved, where, frontend, sent, given=given) as pool:
        opened = pool.open()
        proposer = recording(
            resolved.proposer(resolved.space(opened.facts), opened.facts), resolved
        )
        search = resolved.search(opened.facts, opened.encoded, proposer)
        report_model(opened, resolved, frontend)
        digest = pairs_digest(resolved.pairs)
        before = _used_before(resolved, tested, opened.facts.digest, frontend)
        run = RunFolder.create(
            root,
            name=resolved.job.name,
            job_hash=resolved.hash(digest, opened.facts.digest),
            job_digest=stored.digest(),
            job_text=stored.to_yaml(),
            evidence_version=EVIDENCE_VERSION,
            tracking_uri=uri,
        )
        with run.lock():
            if sent is not None:
                keep_files(sent, run)
            run.update(
                model_digest=opened.facts.digest,
                facts=to_json_values(opened.facts),
                k=proposer.max_hypotheses or 0,
                used_before=before,
            )
            write_pairs(
                run.folder,
                resolved.pairs,
                opened.encoded,
                left_out=resolved.left_out,
                population=resolved.population,
            )
            tracker = _tracker(run, resolved, opened.facts, digest, uri)
            return _search(run, search, proposer, pool, where, frontend, tracker)


def _used_before(
    resolved: ResolvedJob, tested: Collection[EarlierRun], model: str, frontend: Frontend
) -> Mapping[str, Mapping[str, Any]]:
    """Returns the earlier runs of the model on the same test pairs (`used_before`), and reports
    them."""
    contents = [p.contents for p in resolved.pairs if p.split == "test"]
    first = contents[: resolved.job.pairs.test]  # those that are tested on, if they are solved
    before = used_before(tested, model, first)
    if before:
        frontend.say(used_words(before))
    return before


def go_on(
    name: str,
    where: RunOptions,
    frontend: Frontend,
    retry: bool = False,
    given: GivenObjects = NO_OBJECTS,
    more_pairs: int | None = None,
) -> RunOutcome:
    """The run `name` from where its journal ends; `retry`: what failed is tried again; `given`:
    objects that the run began with; `more_pairs`: what is undecided is tested on so many further
    pairs. A run with nothing left to do is shown as it is.

    Raises: RaysearchError in one line.
    """
    check_request(more_pairs, retry)
    run = find_run(where.store, name)
    done = None if more_pairs else concluded(run)
    if done is not None and (done.failed.is_empty or not retry):
        return _as_it_is(run, done, retry and NOTHING_FAILED, frontend, given)
    with run.lock():
        if more_pairs:
            done = concluded(run)
            if done is not None and not done.continuation(more_pairs).hypotheses:
                return _as_it_is(run, done, NOTHING_UNDECIDED, frontend, given)
        check_version(run)
        check_journal(run)
        stored = read_pairs(run.folder)
        with files_of(run) as files:
            resolved = as_stored(stored_job(run, files), stored)
            check_given(run, resolved, stored, given)
            for line in code_of(resolved.job, with_problem=more_pairs is not None):
                frontend.say(line)
            more = None
            if more_pairs:
                more = continuation(run, resolved, stored, done, more_pairs, given)
                resolved = more.resolved
            with pool_of(resolved, where, frontend, files, send=True, given=given) as pool:
                opened = pool.open()
                check_same(run, resolved, stored, opened)
                proposer = recording(
                    resolved.proposer(resolved.space(opened.facts), opened.facts), resolved
                )
                run.update(  # what runs of earlier versions lack
                    facts=to_json_values(opened.facts), k=proposer.max_hypotheses or 0
                )
                search = resolved.search(opened.facts, opened.encoded, proposer)
                if more is not None:  # for what a tracker is told; a ledger puts it right
                    known = dict(list(run.info.continued.items())[: more.number - 1])
                    run.update(continued={**known, str(more.number): more.event.pairs})
                uri = tracking_of(run, where.tracking_uri)
                tracker = _tracker(run, resolved, opened.facts, pairs_digest(stored.pairs), uri)
                before = resolved.search(opened.facts, opened.encoded) if retry else None
                encoded = opened.encoded
                return _search(
                    run, search, proposer, pool, where, frontend, tracker, before, more, encoded
                )


NOTHING_FAILED = " and nothing in it failed: there is nothing to try again"
NOTHING_UNDECIDED = " and nothing in it is undecided: more pairs have nothing to decide"


def _as_it_is(
    run: RunFolder, done: Search, nothing: str | bool, frontend: Frontend, given: GivenObjects
) -> RunOutcome:
    """Shows a run in which nothing is left to do; `nothing`: what was asked for and is not
    there.
    """
    if given != NO_OBJECTS:
        with reopened_job(run) as (stored, resolved):
            check_objects(run, resolved, stored, given)
            if given.model is not None:
                check_digest(run, resolved, given.loaded(resolved.job).digest)
    ended = RunOutcome(run, "done", done.snapshot())
    frontend.stop()
    frontend.say(f"raysearch: run {run.info.id} is done{nothing or ''}")
    if not nothing:
        frontend.ended(ended)
    return ended


def _search(
    run: RunFolder,
    search: Search,
    proposer: Proposer,
    pool: RunPool,
    where: RunOptions,
    frontend: Frontend,
    tracker: Tracker | None,
    before: Search | None = None,
    more: Continuation | None = None,
    encoded: tuple[Encoded, ...] = (),
) -> RunOutcome:
    """Drives the search to its end, or to an interrupt. `before`: one more, where what failed is
    tried again (`retry_failed`); `more`: what it is continued with, on pairs as `encoded`."""
    # Before there is a journal, so that whoever sees it and interrupts is told how to go on.
    with frontend.interrupt() as interrupt:
        ledger = RunLedger(
            run, tracker, suggested=proposer.recorded if isinstance(proposer, Recording) else ()
        )
        for line in ledger.messages:
            frontend.say(line)
        frontend.say(f"run       {run.place}")
        pool.on_lost(lambda: frontend.left("failed", run))
        page = LivePage(run.folder, frontend.say)
        try:
            if before is not None:
                retry_failed(ledger, before, frontend)
            if more is not None:
                ledger.request(more.event, more.pairs(encoded))
                frontend.say(more.words)
            run.update(continued={str(n): p for n, p in enumerate(ledger.continued, start=1)})
            seconds = _drive(run, search, pool, ledger, frontend, interrupt, page)
            ledger.close("done")
        except KeyboardInterrupt:
            frontend.stop()
            ledger.close("interrupted")
            page.end()
            frontend.left("interrupted", run)
            _give(tracker, "interrupted", run, where, frontend)
            return RunOutcome(run, "interrupted", search.snapshot())
        except BaseException as e:
            frontend.stop()
            _end_badly(e, ledger, run, frontend)
            if not isinstance(e, StoreError):  # such a store would only refuse the page, too
                page.end()
            if isinstance(e, StoreError) and tracker is not None:
                tracker.close("failed")  # and no files, for the same reason
            else:
                _give(tracker, "failed", run, where, frontend)
            raise
        frontend.stop()
        return _conclude(
            RunOutcome(run, "done", search.snapshot()),
            seconds,
            where,
            frontend,
            tracker,
        )


def _drive(
    run: RunFolder,
    search: Search,
    pool: RunPool,
    ledger: RunLedger,
    frontend: Frontend,
    interrupt: Interrupt,
    page: LivePage,
) -> float:
    """Runs a search from what is journalled to its end. Returns the seconds that it took."""
    began = time.monotonic()
    screening = True

    def show(snapshot: Snapshot) -> None:
        nonlocal screening
        ledger.snapshot(snapshot)
        pool.show(run.info.id, snapshot)
        if screening and snapshot.stage != "screening":
            screening = False
            report_screening(search, frontend)
            if search.preparation.score_scale is not None:
                run.update(scale=search.preparation.score_scale.scale)
        frontend(snapshot)
        page.tick()
        interrupt.check()

    def show_training(step: int, fits: int, loss: float) -> None:
        now = search.snapshot()
        if now.training is not None:
            now = replace(now, training=now.training.at(step, fits, loss))
            ledger.snapshot(now)
            frontend(now)

    driver.replay(search, ledger.replay(), ledger)
    pool.on_step(show_training)
    if ledger.past_events:
        frontend.say(f"replayed  {ledger.past_events} events: {frontend.words(search.snapshot())}")
    driver.drive(search, pool, ledger, show)
    ledger.snapshot(search.snapshot())
    return time.monotonic() - began


def _conclude(
    ended: RunOutcome,
    seconds: float,
    where: RunOptions,
    frontend: Frontend,
    tracker: Tracker | None,
) -> RunOutcome:
    """Pictures and summary of a search that is done."""
    run = ended.run
    try:
        pictures = _heatmaps(run)
        report_end(run, ended.snapshot, seconds, frontend)
        if line := nothing_accepted(ended):
            frontend.say(line)
        write_page(run.folder, ended.results)
        frontend.ended(ended)
        _give(tracker, "done", run, where, frontend, pictures, ended.results)
    except BaseException:
        if tracker is not None:
            tracker.close("done")  # the search is, whatever became of its pictures
        frontend.left("the search is done, its pictures and summary are not", run)
        raise
    return ended


def _heatmaps(run: RunFolder) -> list[str]:
    """Draws the heat maps, unless they are switched off; returns the files' names."""
    if os.environ.get(HEATMAPS, "").lower() == "off":
        return []
    from raysearch.report.heatmap import heatmaps  # matplotlib, which takes a second to import

    return heatmaps(run.folder, run.heatmaps)


def _end_badly(error: BaseException, ledger: RunLedger, run: RunFolder, frontend: Frontend) -> None:
    """Closes the books as far as that can be done. An error that a resume would only meet again
    gets no hint to resume."""
    if isinstance(error, StoreError):
        ledger.abandon()
    else:
        ledger.close("failed")
    if not isinstance(error, JobError | TakenOverError):
        frontend.left("failed", run)


def _tracker(
    run: RunFolder, resolved: ResolvedJob, facts: ModelFacts, digest: str, uri: str | None
) -> Tracker | None:
    return None if uri is None else start_tracking(run, resolved, facts, digest, uri)


def _give(
    tracker: Tracker | None,
    status: str,
    run: RunFolder,
    where: RunOptions,
    frontend: Frontend,
    pictures: Sequence[str] = (),
    results: RunResults | None = None,
) -> None:
    """Gives the tracker what the run has left, and waits for it (a bounded time)."""
    if tracker is not None:
        uri = run.info.tracking_uri or ""
        name = tracker_of(uri).name

        def say() -> None:
            frontend.say(
                f"{name:<9} finishing, at {uri} (another tracking URI places it elsewhere, none "
                "keeps it out)"
            )

        finish_tracking(tracker, status, run, where.tracked_children, pictures, results, say=say)
        if page := getattr(tracker, "address", None):
            frontend.say(f"{name:<9} {page}")
