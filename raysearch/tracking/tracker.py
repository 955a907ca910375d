"""The interface of a tracker, which shows runs to people in a program of its own, and what it gets.

Invariants: a tracker follows from the journal and can be lost; it never raises into a search and
makes it wait in `close` alone, for a bounded time.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from raysearch.core.records import Snapshot
from raysearch.store.ledger import SearchObserver

Artifact = Path | tuple[Path, str]
"""A file to show, with the folder of the run to put it in."""


@dataclass(frozen=True, slots=True)
class ChildRun:
    """A run below the search's, of an accepted hypothesis (`name`: its id). `course`: (metric,
    step, value) over its training."""

    name: str
    title: str
    params: Mapping[str, object]
    metrics: Mapping[str, float]
    course: Sequence[tuple[str, int, float]] = ()
    artifacts: Sequence[Path] = ()


@dataclass(frozen=True, slots=True)
class PairsInput:
    """The pairs of a search, as the data set that a run has used.

    `place`: of pairs.parquet; `columns`: its names, with the Arrow type of each; `counts`: of each
    split.
    """

    name: str
    digest: str
    place: str
    columns: Mapping[str, str]
    counts: Mapping[str, int]


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run when it begins.

    `experiment`: "raysearch/<name>". `params`: flat, written once. `tags`: raysearch.run,
    raysearch.job_hash, ... `run_id`: the tracker's id of the run, where it was tracked before.
    `at`: the time of what is reported, in seconds of the epoch. `again`: a replay of a search that
    was before, of which the tracker may know a part: points that it has are not sent again, and
    what fails is in `why` instead of the log.
    """

    uri: str
    experiment: str
    params: Mapping[str, object]
    tags: Mapping[str, str]
    run_id: str | None = None
    name: str | None = None
    pairs: PairsInput | None = None
    at: Callable[[], float] = time.time
    again: bool = False


class Tracker(SearchObserver, Protocol):
    """Shows one run; begins at once. `run_id` is None until the tracker has made its run."""

    @property
    def why(self) -> str | None:
        """Why the tracker gave up, in one line; None: it did not."""
        ...

    def replayed(self, snapshot: Snapshot) -> None:
        """Shows where the search stood at the time of `TrackedRun.at`."""
        ...

    def close(
        self,
        status: str,
        artifacts: Sequence[Artifact] = (),
        tables: Mapping[str, Mapping[str, Sequence[Any]]] | None = None,
        timeout: float | None = None,
        children: Sequence[ChildRun] = (),
    ) -> bool:
        """Sends the last point, files, tables (column by column), child runs and the status, and
        returns whether all arrived. `timeout`: seconds to wait; None: as long as the tracker does.
        """
        ...


class TrackerKind(Protocol):
    """A program that shows runs: the modules of this room, or an object of an installed package,
    have these.

    `name`: one word, before lines about it; `title`: its name in a sentence; `example`: URIs that
    would do, `credentials`: where to give a password, for errors.
    """

    name: str
    title: str
    example: str
    credentials: str

    def open(self, run: TrackedRun) -> Tracker:
        """Begins to show a run. Never raises."""
        ...

    def check(self, uri: str) -> str:
        """Returns in words whether the tracker answers at `uri`. Raises: TrackingError."""
        ...


def flatten(job: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Nested keys as `a.b.c`; lists and empty mappings as JSON."""
    flat: dict[str, object] = {}
    for key, value in job.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{name}."))
        else:
            flat[name] = value if isinstance(value, str) else json.dumps(value, default=str)
    return flat
