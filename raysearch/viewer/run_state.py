"""Says in a few figures how a run stands, for the list of a store's runs and the head of a page.

Invariants: nothing is written, no journal is replayed; a run that cannot be read is a line that
says why.
"""

from collections.abc import Mapping
from typing import Any

from raysearch.errors import RaysearchError
from raysearch.storage.folder import Folder
from raysearch.store.job_file import read_job
from raysearch.store.progress_file import read_progress
from raysearch.store.run_folder import RunFolder
from raysearch.store.run_history import run_state
from raysearch.visible_text import visible

COUNTS = ("alive", "accepted", "rejected", "undecided", "failed")


def run_line(store: Folder, name: str) -> dict[str, Any]:
    """Returns a line of the list of runs; with `error` where the run cannot be read."""
    try:
        run = RunFolder.open(store.at(name))
        progress = read_progress(run.folder)
        job = read_job(run.folder)
        return {
            "id": name,
            "name": visible(run.info.name),
            "created": run.info.created,
            "model": model_name(job),
            "state": run_state(run),
            "stage": None if progress is None else progress.snapshot.stage,
            "level": (job.get("test") or {}).get("false_accept"),
            "threshold": (job.get("test") or {}).get("threshold"),
            **{c: None if progress is None else getattr(progress.snapshot, c) for c in COUNTS},
        }
    except RaysearchError as e:
        return {"id": name, "name": name, "state": "unreadable", "error": visible(e)}


def model_name(job: Mapping[str, Any]) -> str | None:
    """Returns the last two parts of the path of a job's model."""
    model = job.get("model")
    path = model.get("path") if isinstance(model, dict) else model
    return visible("/".join(str(path).split("/")[-2:])) if path else None
