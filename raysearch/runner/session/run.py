"""Starts a run of a job, or resumes one where its journal ends.

Invariants: no run folder is made before the model is loaded and the job has proved to fit it;
whatever ends a search early, who asked is told that it can be gone on with, where that can help.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from raysearch.core.codec import to_json_values
from raysearch.core.events import Opened
from raysearch.core.evidence_version import EVIDENCE_VERSION
from raysearch.core.model_facts import ModelFacts
from raysearch.job import Job
from raysearch.job.file_keys import PAIRS
from raysearch.job.job_files import kept_beside, named_files
from raysearch.proposers.base import Proposer
from raysearch.runner.resolution.given_objects import NO_OBJECTS, GivenObjects
from raysearch.runner.resolution.job_code import code_of
from raysearch.runner.resolution.resolve import resolve
from raysearch.runner.resolution.resolved_job import ResolvedJob
from raysearch.runner.session.continuation import check_request, continuation
from raysearch.runner.session.fresh_pairs import with_fresh_pairs
from raysearch.runner.session.frontend import Frontend, RunOptions, RunOutcome
from raysearch.runner.session.messages import report_model
from raysearch.runner.session.pools import pool_of
from raysearch.runner.session.retry import concluded_search
from raysearch.runner.session.run_session import RunSession
from raysearch.runner.session.tracked_run import start_tracking
from raysearch.runner.stored_run.recorded_proposals import with_recording
from raysearch.runner.stored_run.reopen import as_stored, reopened_job
from raysearch.runner.stored_run.resume_checks import (
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
from raysearch.search.search import Search
from raysearch.store.locations import writable_store
from raysearch.store.pairs_table import pairs_digest, read_pairs, write_pairs
from raysearch.store.run_folder import RunFolder, find_run
from raysearch.store.source_commit import source_commit
from raysearch.store.used_pairs import EarlierRun, earlier_runs, used_before, used_words
from raysearch.tracking.registry import tracker_of
from raysearch.tracking.tracker import Tracker
from raysearch.tracking.uris import tracking_uri


def start_run(
    job: Job,
    where: RunOptions,
    frontend: Frontend,
    sent: Path | None = None,
    given: GivenObjects = NO_OBJECTS,
    job_file: Path | None = None,
) -> RunOutcome:
    """Runs a new search to its end, or to an interrupt.

    Args:
        sent: the folder that was sent along with the job (`resume_checks.sent_with`).
        given: objects in the place of what the job names.
        job_file: the file of the job, if it is one.

    Raises: RaysearchError in one line.
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
        proposer, search = _search_of(resolved, opened)
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
            commit=_commit(job, job_file),
        )
        with run.lock():
            if sent is not None:
                keep_files(sent, run)
            _write_facts(run, resolved, opened, proposer, before)
            tracker = _tracker(run, resolved, opened.facts, digest, uri)
            return RunSession(run, search, proposer, pool, where, frontend, tracker).drive()


def _commit(job: Job, job_file: Path | None) -> dict[str, str]:
    """Returns the git commit of the folder of the job, else of what it names, else of the working
    directory."""
    named = [f for f in named_files(job) if f.is_code or f.key == PAIRS]
    files = [] if job_file is None else [job_file.resolve()]
    files += [Path(f.path) for f in named if not f.is_remote and Path(f.path).is_file()]
    return source_commit(files[0].parent if files else None, files)


def _search_of(resolved: ResolvedJob, opened: Opened) -> tuple[Proposer, Search]:
    """Returns the proposer, which is recorded, and the search that asks it."""
    proposer = resolved.proposer(resolved.space(opened.facts), opened.facts)
    proposer = with_recording(proposer, resolved)
    return proposer, resolved.search(opened.facts, opened.encoded, proposer)


def _write_facts(
    run: RunFolder,
    resolved: ResolvedJob,
    opened: Opened,
    proposer: Proposer,
    before: Mapping[str, Mapping[str, Any]],
) -> None:
    """Writes what a new run begins with: facts of its model, and its pairs."""
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


def resume_run(
    name: str,
    where: RunOptions,
    frontend: Frontend,
    retry: bool = False,
    given: GivenObjects = NO_OBJECTS,
    more_pairs: int | None = None,
) -> RunOutcome:
    """Resumes the run `name` where its journal ends. A run with nothing left to do is shown as it
    is.

    Args:
        retry: whether what failed is tried again.
        given: objects that the run began with.
        more_pairs: further test pairs for what is undecided.

    Raises: RaysearchError in one line.
    """
    check_request(more_pairs, retry)
    run = find_run(where.store, name)
    done = None if more_pairs else concluded_search(run)
    if done is not None and (done.failed.is_empty or not retry):
        return _as_it_is(run, done, retry and NOTHING_FAILED, frontend, given)
    with run.lock():
        if more_pairs:
            done = concluded_search(run)
            if done is not None and not done.continuation(more_pairs).hypotheses:
                return _as_it_is(run, done, NOTHING_UNDECIDED, frontend, given)
        check_version(run)
        check_journal(run)
        with files_of(run) as files:
            return _resume(run, files, where, frontend, retry, given, done, more_pairs)


def _resume(
    run: RunFolder,
    files: Path | None,
    where: RunOptions,
    frontend: Frontend,
    retry: bool,
    given: GivenObjects,
    done: Search | None,
    more_pairs: int | None,
) -> RunOutcome:
    """Goes on with a run that has something left to do.

    Args:
        files: the folder of the files that it keeps; None if it keeps none.
        done: its search at the end; None if it has none.
    """
    stored = read_pairs(run.folder)
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
        proposer, search = _search_of(resolved, opened)
        run.update(  # what runs of earlier versions lack
            facts=to_json_values(opened.facts), k=proposer.max_hypotheses or 0
        )
        if more is not None:  # for what a tracker is told; a ledger puts it right
            known = dict(list(run.info.continued.items())[: more.number - 1])
            run.update(continued={**known, str(more.number): more.event.pairs})
        uri = tracking_of(run, where.tracking_uri)
        tracker = _tracker(run, resolved, opened.facts, pairs_digest(stored.pairs), uri)
        before = resolved.search(opened.facts, opened.encoded) if retry else None
        session = RunSession(run, search, proposer, pool, where, frontend, tracker)
        return session.drive(before, more, opened.encoded)


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


def _tracker(
    run: RunFolder, resolved: ResolvedJob, facts: ModelFacts, digest: str, uri: str | None
) -> Tracker | None:
    return None if uri is None else start_tracking(run, resolved, facts, digest, uri)
