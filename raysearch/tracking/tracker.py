"""Defines the interface of a tracker, a program that shows runs, and the data it receives.

Invariants: a tracker's data follows from the journal and can be lost; a tracker never raises into a
search, and makes it wait in `close` alone, for a bounded time.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from raysearch.core.records import Snapshot
from raysearch.store.search_observer import SearchObserver

Artifact = Path | tuple[Path, str]
"""A file to show, with the folder of the run to put it in."""


@dataclass(frozen=True, slots=True)
class ChildRun:
    """The run of an accepted hypothesis below the search's. `name`: the hypothesis's id; `course`:
    (metric, step, value) of its training."""

    name: str
    title: str
    params: Mapping[str, object]
    metrics: Mapping[str, float]
    course: Sequence[tuple[str, int, float]] = ()
    artifacts: Sequence[Path] = ()


@dataclass(frozen=True, slots=True)
class PairsInput:
    """The pairs of a search, shown as its data set.

    `place`: path of pairs.parquet; `columns`: Arrow type by name; `counts`: pairs by split.
    """

    name: str
    digest: str
    place: str
    columns: Mapping[str, str]
    counts: Mapping[str, int]


@dataclass(frozen=True)
class TrackedRun:
    """The data of a run for a tracker.

    `experiment`: "raysearch/<name>". `params`: flat, written once. `tags`: raysearch.run,
    raysearch.job_hash, ... `run_id`: the tracker's id of the run, if it was tracked before. `at`:
    the time of each report, in seconds since 1970. `again`: replays an earlier search, which the
    tracker may know in part: points that it has are not sent again, and `why` gets a failure
    instead of the log. `description`: what the run claims, in Markdown; "": nothing is shown.
    `variables`: those searched for. `source`: what the search ran, such as its problem, at the git
    `commit`, where that is known.
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
    description: str = ""
    variables: Sequence[str] = ()
    source: str = ""
    commit: str = ""


class Tracker(SearchObserver, Protocol):
    """Shows one run, starting at once. `run_id` is None until the tracker has created its run.

    A class that derives from it inherits the members that have a default here; one that does not
    has them all.
    """

    @property
    def why(self) -> str | None:
        """The reason why the tracker gave up, in one line, or None."""
        ...

    @property
    def address(self) -> str | None:
        """The address where people see the run; None, the default, where there is none yet."""
        return None

    def describe(self, text: str) -> None:
        """Takes what was found, in Markdown, before `close`. By default it is not shown."""
        return

    def show_best(self, means: Mapping[str, float]) -> None:
        """Takes the mean of each variable's best site, by the variable, before `close`. By default
        it is not shown."""
        return

    def replayed(self, snapshot: Snapshot) -> None:
        """Shows the search's progress at the time of `TrackedRun.at`."""
        ...

    def close(
        self,
        status: str,
        artifacts: Sequence[Artifact] = (),
        tables: Mapping[str, Mapping[str, Sequence[Any]]] | None = None,
        timeout: float | None = None,
        children: Sequence[ChildRun] = (),
    ) -> bool:
        """Sends the last point, files, tables (column by column), child runs and status; returns
        whether all arrived.

        Args: timeout: seconds to wait; None: the tracker's own limit.
        """
        ...


class TrackerKind(Protocol):
    """A program that shows runs: MLflow, or an object of an installed package with these members.

    `name`: one word, shown before its lines; `title`: its name in a sentence; `example`: valid
    URIs; `credentials`: how to give a password. The last two are for errors. `imports`: modules
    that are imported while a run waits for its replicas. A class that derives from it inherits
    `imports`; one that does not has it too.
    """

    name: str
    title: str
    example: str
    credentials: str
    imports: Sequence[str] = ()

    def open(self, run: TrackedRun) -> Tracker:
        """Starts to show a run. Never raises."""
        ...

    def check(self, uri: str) -> str:
        """Describes the tracker at `uri`. Raises: TrackingError if it does not answer."""
        ...


def flatten(job: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Flattens nested keys to `a.b.c`; lists and empty mappings become JSON."""
    flat: dict[str, object] = {}
    for key, value in job.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{name}."))
        else:
            flat[name] = value if isinstance(value, str) else json.dumps(value, default=str)
    return flat
