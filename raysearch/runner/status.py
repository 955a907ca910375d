"""Reports the state of a run in a folder or an object store: its journal is replayed into a new
search, without the model.

Invariants: nothing is written, and no code that the run names is run; a run that is being driven is
read as far as its journal goes.
"""

import shlex
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime

from raysearch.core.events import JournalledEvent
from raysearch.core.records import Snapshot
from raysearch.report.results_table import read_table
from raysearch.runner.recorded_proposals import UnrecordedError, recorded_search
from raysearch.runner.reopen import reopened_job
from raysearch.storage.digests import check_parts
from raysearch.storage.local import LocalFolder
from raysearch.store.run_folder import RunFolder
from raysearch.store.run_history import JournalSummary, journal_summary, read_entries
from raysearch.tracking.registry import tracker_of

_VERDICTS = ("alive", "accepted", "rejected", "undecided", "failed")
_COUNTS = (*_VERDICTS, "fitting", "pairs", "at_most")
"""What is told of a search, as its snapshot has it."""


def local_status(run: RunFolder) -> list[str]:
    """Lines on how `run` stands. Raises: StoreError, ResumeError where its journal cannot be told
    to a search of this version."""
    now = local_facts(run)
    lines = [f"run       {now['run']}", f"status    {now['status']}"]
    if now["started"] is not None:
        lines.append(f"started   {now['started']}")
    if now["last_event"] is not None:
        lines.append(f"last      event at {now['last_event']}")
    if now["stage"] is not None:
        lines += _search_words(now)
    elif now["not_shown"] is not None:
        lines += [_verdicts(now), f"stage     not known: {now['not_shown']}"]
    if (uri := run.info.tracking_uri) is not None:
        line = (
            f"{uri} was not told of it: `raysearch sync {run.info.id}`"
            if run.info.tracking_run_id is None
            else f"run {run.info.tracking_run_id} at {uri}"
        )
        lines.append(f"{tracker_of(uri).name:<9} {line}")
    return lines


def local_facts(run: RunFolder) -> dict[str, str | int | None]:
    """The same for a program. Raises: StoreError, ResumeError."""
    check_parts(run.folder)
    summary = journal_summary(run)
    now, counts, why = None, dict[str, int | None](), None
    if summary.events:
        try:
            now = _snapshot(run)
            counts = {name: getattr(now, name) for name in _COUNTS}
        except UnrecordedError as e:
            counts, why = _in_tables(run), str(e)
    return {
        "run": run.place,
        "status": _status(run, summary),
        "started": next((start.at for start in summary.starts[-1:]), None),
        "last_event": _last_written(run),
        "stage": None if now is None else now.stage,
        **{name: counts.get(name) for name in _COUNTS},
        "not_shown": why,
        "tracking_run_id": run.info.tracking_run_id,
        "tracking_uri": run.info.tracking_uri,
    }


def _status(run: RunFolder, summary: JournalSummary) -> str:
    if isinstance(run.folder, LocalFolder):
        holder = run.folder.holder()
        if holder is not None:
            return f"{holder} works on it"
    elif summary.ended is None and summary.starts:
        return "its driver works, or was killed (an object store cannot say which)"
    if summary.ended == "done":
        return "done"
    ended = summary.ended or "its driver was killed"
    return f"{ended}; go on with: raysearch resume {shlex.quote(run.place)}"


def _snapshot(run: RunFolder) -> Snapshot:
    with reopened_job(run) as (stored, resolved):
        search = recorded_search(run, stored, resolved)
        for batch in read_entries(run):
            search.tell([e for e in batch if isinstance(e, JournalledEvent)])
    return search.snapshot()


def _in_tables(run: RunFolder) -> dict[str, int | None]:
    """Counts hypotheses by verdict from the tables, as far as their last parts."""
    found = Counter(read_table(run.folder, "verdicts")["verdict"].to_pylist())
    proposed = read_table(run.folder, "hypotheses").num_rows
    names = {
        "accepted": "accept",
        "rejected": "reject",
        "undecided": "undecided",
        "failed": "failed",
    }
    counts: dict[str, int | None] = {name: found[verdict] for name, verdict in names.items()}
    return counts | {"alive": proposed - found.total()}


def _verdicts(now: Mapping[str, str | int | None]) -> str:
    return f"verdicts  {', '.join(f'{now[name]} {name}' for name in _VERDICTS)}"


def _search_words(now: Mapping[str, str | int | None]) -> list[str]:
    fitting = f", {now['fitting']} fits in training" if now["fitting"] else ""
    return [
        f"stage     {now['stage']}",
        f"{_verdicts(now)}{fitting}",
        f"pairs     {now['pairs']} evaluated, at most {now['at_most']} to come",
    ]


def _last_written(run: RunFolder) -> str | None:
    """When the journal was last written, where its disk says so."""
    if not isinstance(run.folder, LocalFolder):
        return None
    files = (run.folder.path / "journal").glob("*/*.jsonl")
    newest = max((file.stat().st_mtime for file in files), default=None)
    return (
        None
        if newest is None
        else datetime.fromtimestamp(newest, UTC).isoformat(timespec="seconds")
    )
