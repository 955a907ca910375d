"""A run from its job to its results: pool, run folder, ledger, tracker; begun anew or gone on with.

Invariants: no run folder is made before the model is loaded and the job has proved to fit it;
whatever ends a search early, who asked is told that it can be gone on with, where that can help.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from raysearch import driver
from raysearch.core.codec import to_json_values
from raysearch.core.events import ModelFacts
from raysearch.core.records import Snapshot
from raysearch.errors import JobError, StoreError, TakenOverError
from raysearch.job import Job
from raysearch.job.job_files import kept_beside
from raysearch.proposers.base import Proposer
from raysearch.report.heatmap import heatmaps
from raysearch.report.page import write_page
from raysearch.runner.frontend import Frontend, RunOptions, RunOutcome
from raysearch.runner.given_objects import NOTHING, GivenObjects
from raysearch.runner.interrupt import Interrupt
from raysearch.runner.job_code import code_of
from raysearch.runner.messages import tell_end, tell_model, tell_screening
from raysearch.runner.pools import RunPool, pool_of
from raysearch.runner.recorded_proposals import Recording, recording
from raysearch.runner.reopen import kept_question
from raysearch.runner.resolved_job import ResolvedJob, resolve
from raysearch.runner.resume_checks import (
    check_digest,
    check_given,
    check_journal,
    check_objects,
    check_same,
    check_version,
    files_of,
    keep_files,
    kept_job,
    tracking_of,
)
from raysearch.runner.retry import concluded, retry_failed
from raysearch.runner.tracking import finish_tracking, start_tracking
from raysearch.search.search import EVIDENCE_VERSION, Search
from raysearch.store.ledger import RunLedger
from raysearch.store.locations import writable_store
from raysearch.store.pairs_table import pairs_digest, read_pairs, write_pairs
from raysearch.store.run_folder import RunFolder, find_run
from raysearch.tracking.registry import tracker_of
from raysearch.tracking.tracker import Tracker
from raysearch.tracking.uris import tracking_uri


def begin(
    job: Job,
    where: RunOptions,
    front: Frontend,
    sent: Path | None = None,
    given: GivenObjects = NOTHING,
) -> RunOutcome:
    """A new run of a job, driven to its end or to an interrupt. `sent`: the folder that was sent
    along with it (kept.sent_with).

    `given`: what was given as an object in the place of what the job names. Raises: RaysearchError
    in one line.
    """
    for line in code_of(job):
        front.say(line)
    question = resolve(job, given)
    root, uri = writable_store(where.store), tracking_uri(where.tracking_uri)
    if uri is not None:
        tracker_of(uri)  # a broken package is reported before anything is loaded
    kept = question.job if sent is None else kept_beside(question.job, sent)
    with pool_of(question, where, front, sent, given=given) as pool:
        opened = pool.open()
        proposer = recording(
            question.proposer(question.space(opened.facts), opened.facts), question
        )
        search = question.search(opened.facts, opened.encoded, proposer)
        tell_model(opened, question, front)
        digest = pairs_digest(question.pairs)
        run = RunFolder.create(
            root,
            name=question.job.name,
            job_hash=question.hash(digest, opened.facts.digest),
            job_digest=kept.digest(),
            job_text=kept.to_yaml(),
            evidence_version=EVIDENCE_VERSION,
            tracking_uri=uri,
        )
        with run.lock():
            if sent is not None:
                keep_files(sent, run)
            run.update(model_digest=opened.facts.digest, facts=to_json_values(opened.facts))
            write_pairs(run.folder, question.pairs, opened.encoded, left_out=question.left_out)
            tracker = _tracker(run, question, opened.facts, digest, uri)
            return _search(run, search, proposer, pool, where, front, tracker)


def go_on(
    name: str,
    where: RunOptions,
    front: Frontend,
    retry: bool = False,
    given: GivenObjects = NOTHING,
) -> RunOutcome:
    """The run `name` from where its journal ends; `retry`: what failed is tried again; `given`:
    objects that the run began with. A run with nothing left to do is shown as it is.

    Raises: RaysearchError in one line.
    """
    run = find_run(where.store, name)
    done = concluded(run)
    if done is not None and (done.failed.is_empty or not retry):
        return _as_it_is(run, done, retry, front, given)
    with run.lock():
        check_version(run)
        check_journal(run)
        kept = read_pairs(run.folder)
        with files_of(run) as files:
            question = ResolvedJob(kept_job(run, files), kept.pairs, kept.left_out)
            check_given(run, question, kept, given)
            for line in code_of(question.job, with_problem=False):
                front.say(line)
            with pool_of(question, where, front, files, send=True, given=given) as pool:
                opened = pool.open()
                check_same(run, question, kept, opened)
                run.update(
                    facts=to_json_values(opened.facts)
                )  # which runs of earlier versions lack
                proposer = recording(
                    question.proposer(question.space(opened.facts), opened.facts), question
                )
                search = question.search(opened.facts, opened.encoded, proposer)
                uri = tracking_of(run, where.tracking_uri)
                tracker = _tracker(run, question, opened.facts, pairs_digest(kept.pairs), uri)
                before = question.search(opened.facts, opened.encoded) if retry else None
                return _search(run, search, proposer, pool, where, front, tracker, before)


def _as_it_is(
    run: RunFolder, done: Search, retry: bool, front: Frontend, given: GivenObjects
) -> RunOutcome:
    """Shows a run in which nothing is left to do."""
    if given != NOTHING:
        with kept_question(run) as (kept, question):
            check_objects(run, question, kept, given)
            if given.model is not None:
                check_digest(run, question, given.loaded(question.job).digest)
    ended = RunOutcome(run, "done", done.snapshot(), done.these_pairs)
    nothing = " and nothing in it failed: there is nothing to try again" if retry else ""
    front.stop()
    front.say(f"raysearch: run {run.info.id} is done{nothing}")
    if not retry:
        front.ended(ended)
    return ended


def _search(
    run: RunFolder,
    search: Search,
    proposer: Proposer,
    pool: RunPool,
    where: RunOptions,
    front: Frontend,
    tracker: Tracker | None,
    before: Search | None = None,
) -> RunOutcome:
    """Drives the search to its end, or to an interrupt. `before`: one more, where what failed is
    tried again (`retry_failed`)."""
    # Before there is a journal, so that whoever sees it and interrupts is told how to go on.
    with front.interrupt() as interrupt:
        ledger = RunLedger(
            run, tracker, suggested=proposer.said if isinstance(proposer, Recording) else ()
        )
        for line in ledger.messages:
            front.say(line)
        front.say(f"run       {run.place}")
        pool.on_lost(lambda: front.left("failed", run))
        try:
            if before is not None:
                retry_failed(ledger, before, front)
            seconds = _drive(run, search, pool, ledger, front, interrupt)
            ledger.close("done")
        except KeyboardInterrupt:
            front.stop()
            ledger.close("interrupted")
            front.left("interrupted", run)
            _give(tracker, "interrupted", run, where, front)
            return RunOutcome(run, "interrupted", search.snapshot(), search.these_pairs)
        except BaseException as e:
            front.stop()
            _end_badly(e, ledger, run, front)
            if isinstance(e, StoreError) and tracker is not None:
                tracker.close("failed")  # and no files: the store would only refuse once more
            else:
                _give(tracker, "failed", run, where, front)
            raise
        front.stop()
        return _conclude(
            RunOutcome(run, "done", search.snapshot(), search.these_pairs),
            seconds,
            where,
            front,
            tracker,
        )


def _drive(
    run: RunFolder,
    search: Search,
    pool: RunPool,
    ledger: RunLedger,
    front: Frontend,
    interrupt: Interrupt,
) -> float:
    """From what is journalled to the end; the seconds that took."""
    began = time.monotonic()
    screening = True

    def show(snapshot: Snapshot) -> None:
        nonlocal screening
        ledger.snapshot(snapshot)
        pool.show(run.info.id, snapshot)
        if screening and snapshot.stage != "screening":
            screening = False
            tell_screening(search, front)
            if search.preparation.score_scale is not None:
                run.update(scale=search.preparation.score_scale.scale)
        front(snapshot)
        interrupt.check()

    driver.replay(search, ledger.replay(), ledger)
    if ledger.past_events:
        front.say(f"replayed  {ledger.past_events} events: {front.words(search.snapshot())}")
    driver.drive(search, pool, ledger, show)
    ledger.snapshot(search.snapshot())
    return time.monotonic() - began


def _conclude(
    ended: RunOutcome,
    seconds: float,
    where: RunOptions,
    front: Frontend,
    tracker: Tracker | None,
) -> RunOutcome:
    """Pictures and summary of a search that is done."""
    run = ended.run
    try:
        pictures = heatmaps(run.folder, run.heatmaps)
        tell_end(run, ended.snapshot, seconds, front)
        write_page(run.folder)
        front.ended(ended)
        _give(tracker, "done", run, where, front, pictures)
    except BaseException:
        if tracker is not None:
            tracker.close("done")  # the search is, whatever became of its pictures
        front.left("the search is done, its pictures and summary are not", run)
        raise
    return ended


def _end_badly(error: BaseException, ledger: RunLedger, run: RunFolder, front: Frontend) -> None:
    """Closes the books as far as that can be done. An error that a resume would only meet again
    gets no hint to resume."""
    if isinstance(error, StoreError):
        ledger.abandon()
    else:
        ledger.close("failed")
    if not isinstance(error, JobError | TakenOverError):
        front.left("failed", run)


def _tracker(
    run: RunFolder, question: ResolvedJob, facts: ModelFacts, digest: str, uri: str | None
) -> Tracker | None:
    return None if uri is None else start_tracking(run, question, facts, digest, uri)


def _give(
    tracker: Tracker | None,
    status: str,
    run: RunFolder,
    where: RunOptions,
    front: Frontend,
    pictures: Sequence[str] = (),
) -> None:
    """Gives the tracker what the run has left, and waits for it (a bounded time)."""
    if tracker is not None:
        name = tracker_of(run.info.tracking_uri or "").name

        def say() -> None:
            front.say(f"{name:<9} finishing")

        finish_tracking(tracker, status, run, where.tracked_children, pictures, say=say)
