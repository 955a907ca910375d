"""Reports the state of a run in a folder or an object store, from what its driver last counted.

Invariants: nothing is written, no journal is replayed, and no code that the run names is run; of a
run of an earlier version, the rows of its tables are counted.
"""

import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from raysearch.core.records import Training
from raysearch.report.claim import continued_words
from raysearch.report.results_table import read_parts
from raysearch.runner.session.progress_display import training_words
from raysearch.storage.digests_json import check_parts
from raysearch.storage.local import LocalFolder
from raysearch.store.journal import drivers
from raysearch.store.progress_file import read_progress
from raysearch.store.run_folder import RunFolder
from raysearch.store.run_history import last_driver, run_state
from raysearch.tracking.registry import tracker_of

_VERDICTS = {
    "accepted": "accept",
    "rejected": "reject",
    "undecided": "undecided",
    "failed": "failed",
}
"""Counts of hypotheses, and their verdict in the tables."""
RESUMABLE = ("interrupted", "failed", "killed")
"""States (`run_state`) in which a run can be resumed."""
_COUNTS = ("stage", "alive", *_VERDICTS, "fitting", "training", "pairs", "at_most")
"""The fields of a search's snapshot that are reported."""


def local_status(run: RunFolder) -> list[str]:
    """Returns lines on the state of `run`. Raises: StoreError where a file of it is damaged."""
    now = local_facts(run)
    hint = next_command(run) if now["state"] in RESUMABLE else ""
    lines = [
        f"run       {now['run']}",
        f"status    {now['says']}{f'; go on with: {hint}' * bool(hint)}",
    ]
    if words := continued_words(run.info.continued):
        lines.append(words)
    lines.append(f"began     {now['began']}")
    if now["drivers"] > 1:
        lines.append(f"resumed   {now['started']}, by driver {now['drivers']} of it")
    if now["last_event"] is not None:
        lines.append(f"last      event at {now['last_event']}")
    if now["alive"] is not None:
        lines += _search_words(now)
    if (uri := run.info.tracking_uri) is not None:
        line = (
            f"{uri} was not told of it: `raysearch sync {run.info.id}`"
            if run.info.tracking_run_id is None
            else f"run {run.info.tracking_run_id} at {uri}"
        )
        lines.append(f"{tracker_of(uri).name:<9} {line}")
    return lines


def local_facts(run: RunFolder) -> dict[str, Any]:
    """Returns the same for a program. Raises: StoreError."""
    check_parts(run.folder)
    last, progress = last_driver(run), read_progress(run.folder)
    counts: dict[str, Any] = {}
    if progress is not None:
        counts = asdict(progress.snapshot)
    elif last is not None:
        counts = _in_tables(run)
    return {
        "run": run.place,
        "state": (state := run_state(run)),
        "says": _says(run, state),
        "continued": dict(run.info.continued),
        "began": run.info.created,
        "drivers": len(drivers(run.journal)),
        "started": None if last is None else last.started.at,
        "last_event": _last_written(run),
        "counted": None if progress is None else progress.at,
        **{name: counts.get(name) for name in _COUNTS},
        "tracking_run_id": run.info.tracking_run_id,
        "tracking_uri": run.info.tracking_uri,
    }


def _says(run: RunFolder, state: str) -> str:
    """Returns the words on a state."""
    if state == "killed":
        return "its driver was killed"
    if state != "running":
        return state
    if isinstance(run.folder, LocalFolder):
        return f"{run.folder.holder() or 'a driver'} works on it"
    return "its driver works, or was killed (an object store cannot say which)"


def next_command(run: RunFolder) -> str:
    """Returns the command that goes on with a run, as it is now. Raises: StoreError."""
    state, place = run_state(run), shlex.quote(run.place)
    if state in RESUMABLE:
        return f"raysearch resume {place}"
    return f"raysearch results {place}" if state == "done" else f"raysearch view {place} --open"


def _in_tables(run: RunFolder) -> dict[str, int]:
    """Counts hypotheses by verdict from the tables, as far as their last parts."""
    verdicts = Counter[str]()
    for part in read_parts(run.folder, "verdicts", ["verdict"]):
        verdicts.update(part["verdict"].to_pylist())
    proposed = sum(p.num_rows for p in read_parts(run.folder, "hypotheses", ["hypothesis"]))
    counts = {name: verdicts[verdict] for name, verdict in _VERDICTS.items()}
    return counts | {"alive": proposed - verdicts.total()}


def _search_words(now: Mapping[str, Any]) -> list[str]:
    counts = ", ".join(f"{now[name]} {name}" for name in ("alive", *_VERDICTS))
    if now["stage"] is None:
        return [f"verdicts  {counts}", "stage     not known: an earlier version drove it"]
    fitting = f", {now['fitting']} fits in training" if now["fitting"] else ""
    training = (
        [f"training  {training_words(Training(**now['training']))}"] if now["training"] else []
    )
    return [
        f"stage     {now['stage']}",
        f"counted   at {now['counted']}",
        f"verdicts  {counts}{fitting}",
        *training,
        f"pairs     {now['pairs']} evaluated, at most {now['at_most']} to come",
    ]


def _last_written(run: RunFolder) -> str | None:
    """Returns the time at which the journal was last written; None where its store has none."""
    if not isinstance(run.folder, LocalFolder):
        return None
    files = (run.folder.path / "journal").glob("*/*.jsonl")
    newest = max((file.stat().st_mtime for file in files), default=None)
    return (
        None
        if newest is None
        else datetime.fromtimestamp(newest, UTC).isoformat(timespec="seconds")
    )
