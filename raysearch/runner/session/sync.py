"""Replays the journal of a run into a new search, and sends what that records to a tracker.

Invariants: no model is needed, no code that the run names is run, and nothing of the run's evidence
is written; however often it is said, the tracker has one run, and each point once. The journal
knows no times but those at which drivers started: the points between have the time of theirs.
"""

from dataclasses import dataclass
from datetime import datetime

from raysearch.core.events import JournalledEvent
from raysearch.errors import TrackingError
from raysearch.report.results_table import read_results
from raysearch.runner.session.frontend import RunOptions
from raysearch.runner.session.tracked_run import finish_tracking, start_tracking
from raysearch.runner.stored_run.recorded_proposals import recorded_search
from raysearch.runner.stored_run.reopen import reopened_job, stored_facts
from raysearch.runner.stored_run.resume_checks import check_journal
from raysearch.search.search import Search
from raysearch.storage.digests_json import check_parts
from raysearch.storage.uris import without_credentials
from raysearch.store.journal_codec import Started
from raysearch.store.pairs_table import pairs_digest
from raysearch.store.progress_file import read_progress
from raysearch.store.run_folder import RunFolder
from raysearch.store.run_history import JournalSummary, journal_summary, read_entries
from raysearch.tracking.registry import tracker_of
from raysearch.tracking.tracker import Tracker
from raysearch.tracking.uris import tracking_uri

SECONDS = 600.0
"""Seconds until it is given up: a server takes some for each child run."""
POINTS = 500
"""Points of each metric, about; a search of a million events has no more to show."""


@dataclass(frozen=True)
class Synced:
    """The place where a tracker shows a run; as text, a line that says so.

    `address`: of its page; None where the tracker has none.
    """

    tracking_uri: str
    tracking_run_id: str
    experiment: str
    address: str | None = None

    def __str__(self) -> str:
        name = tracker_of(self.tracking_uri).name
        where = f"experiment {self.experiment} at {self.address or self.tracking_uri}"
        return f"{name:<9} run {self.tracking_run_id} of {where}"


class _Time:
    """The time of the event that is mirrored now, by the start of its driver."""

    def __init__(self, at: str) -> None:
        self.set(at)

    def set(self, at: str) -> None:
        self._seconds = datetime.fromisoformat(at).timestamp()

    def __call__(self) -> float:
        return self._seconds


def sync_run(
    run: RunFolder, uri: str | None = None, children: int = RunOptions.tracked_children
) -> Synced:
    """Reports the run to the tracker at `uri` (None: the run's own, credentials aside); returns
    where it is. Raises: TrackingError, ResumeError, StoreError."""
    at = run.info.tracking_uri if uri is None else tracking_uri(uri)
    if at is None or uri == "none":
        raise TrackingError(
            f"run {run.info.id}: no tracker was told of it; give --tracking-uri where it is to go"
        )
    tracker_of(at).check(at)
    with run.lock():
        return _sync(run, at, children)


def _sync(run: RunFolder, uri: str, children: int) -> Synced:
    check_parts(run.folder)
    check_journal(run)
    with reopened_job(run) as (stored, resolved):
        facts, summary = stored_facts(run), journal_summary(run)
        if stored.encoded is None or not summary.events:
            raise TrackingError(
                f"run {run.info.id}: nothing was seen in it yet; `raysearch resume` it first"
            )
        search, time = recorded_search(run, stored, resolved), _Time(summary.starts[0].at)
        tracker = start_tracking(
            run, resolved, facts, pairs_digest(stored.pairs), uri, at=time, again=True
        )
        _report(run, summary, search, tracker, time)
        if (progress := read_progress(run.folder)) is not None:
            time.set(progress.at)
    shown, kind = without_credentials(uri), tracker_of(uri)
    own = run.info.tracking_uri in (None, shown)
    done = summary.ended == "done"
    if not finish_tracking(
        tracker,
        summary.ended or "interrupted",
        run,
        children,
        run.heatmaps.names() if done else [],
        read_results(run.folder) if done else None,
        SECONDS,
        remember=own,
    ):
        raise TrackingError(
            f"{kind.title} at {shown}: {tracker.why}; say it again when that is mended: nothing "
            "comes twice"
        )
    if own:
        run.update(tracking_uri=shown)
    page = tracker.address
    return Synced(shown, tracker.run_id or "", f"raysearch/{resolved.job.name}", page)


def _report(
    run: RunFolder, summary: JournalSummary, search: Search, tracker: Tracker, time: _Time
) -> None:
    seen, due = 0, 0.0
    for batch in read_entries(run):
        for entry in batch:
            if isinstance(entry, Started):
                time.set(entry.at)
        events = [e for e in batch if isinstance(e, JournalledEvent)]
        tracker.write_records(search.tell(events))
        seen += len(events)
        if events and seen >= due:
            tracker.replayed(search.snapshot())
            due = seen + summary.events / POINTS
    tracker.replayed(search.snapshot())
