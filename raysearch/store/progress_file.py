"""Reads and writes progress.json: the counts of a running search, which show its state without a
replay of its journal.

Invariants: the file is replaced as a whole; it follows from the journal, and may lag behind it by
`SECONDS`, or be lost.
"""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from raysearch.core.codec import from_json_values
from raysearch.core.records import Snapshot
from raysearch.errors import StoreError
from raysearch.storage.folder import Folder

FILE = "progress.json"
SECONDS = 10.0
"""Time between two counts of a driver."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A snapshot, and when it was taken, in ISO 8601. `driver`: the name of its journal."""

    at: str
    driver: str
    snapshot: Snapshot


def write_progress(run: Folder, driver: str, snapshot: Snapshot) -> None:
    """Writes what was counted. Raises: StoreError."""
    progress = Progress(datetime.now(UTC).isoformat(timespec="seconds"), driver, snapshot)
    run.write(FILE, json.dumps(asdict(progress)).encode())


def read_progress(run: Folder) -> Progress | None:
    """Returns what was last counted; None for a run of an earlier version.

    Raises: StoreError if the file cannot be read.
    """
    if not run.exists(FILE):
        return None
    try:
        found: Progress = from_json_values(Progress, json.loads(run.read(FILE)), FILE)
    except (ValueError, RecursionError) as e:
        raise StoreError(
            f"{run.shown(FILE)}: cannot be read ({e}); remove it, it is only a count"
        ) from e
    return found
