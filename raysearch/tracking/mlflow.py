"""Shows a search in MLflow: params, metrics over time, tables and pictures.

Invariants: nothing here raises into the search or makes it wait: one daemon thread talks to MLflow,
from a queue, and only `close` waits, for a bounded time; the first failure ends the tracker, with
one warning of one line; only that thread imports mlflow.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from raysearch.core.hypothesis import Intervention, is_in_layers
from raysearch.core.records import Decided, Record, Snapshot
from raysearch.errors import TrackingError
from raysearch.storage.uris import without_credentials
from raysearch.store.table_rows import iia_of, shared_layer
from raysearch.tracking.best_sites import BestSite, rank_of
from raysearch.tracking.mlflow_check import reach
from raysearch.tracking.mlflow_client import THREAD, connect
from raysearch.tracking.mlflow_log import (
    MAX_CHARS,
    log_children,
    log_metrics,
    log_pairs,
    log_params,
    log_table,
)
from raysearch.tracking.mlflow_names import DESCRIPTION, as_key, as_value, as_word, one_line
from raysearch.tracking.mlflow_pages import address, arrange
from raysearch.tracking.mlflow_retries import patiently
from raysearch.tracking.mlflow_template import make_from_template
from raysearch.tracking.sqlite_file import check_uri, sqlite_file
from raysearch.tracking.tracker import Artifact, ChildRun, TrackedRun, Tracker

METRICS_EVERY = 2.0
"""Least seconds between two points of a metric."""
CLOSE_SECONDS = 60.0
"""Default time limit of `close`: MLflow takes up to 20 s to migrate a new SQLite file, and a server
some seconds for artifacts."""
_DESCRIPTION_CHARS = 4000
_STATUS = {"done": "FINISHED", "interrupted": "KILLED", "running": "RUNNING"}
_log = logging.getLogger("raysearch.mlflow")


@dataclass(frozen=True, slots=True)
class _Point:
    """A point of a metric. `before`: of a replay, so that a run that was there has it; `last`: what
    the metric is to end with, whatever it has at that step."""

    name: str
    value: float
    milliseconds: int
    step: int
    before: bool = False
    last: bool = False


@dataclass(frozen=True, slots=True)
class _End:
    status: str
    artifacts: tuple[tuple[Path, str | None], ...]
    tables: Mapping[str, Mapping[str, Sequence[Any]]]
    children: Sequence[ChildRun]
    description: str


class MlflowTracker:
    """Shows a run in MLflow; reopens the one with `run.run_id` if given.

    With `run.again` it finds the run by the tag raysearch.run. Starts at once; never raises.
    """

    def __init__(self, run: TrackedRun, clock: Callable[[], float] = time.monotonic) -> None:
        self.why: str | None = None
        self._run = run
        self._run_id = run.run_id
        self._known: dict[str, tuple[int, int, float]] = {}
        described = {DESCRIPTION: run.description} if run.description else {}
        source = {"mlflow.source.name": run.source, "mlflow.source.git.commit": run.commit}
        known = {name: value for name, value in source.items() if value}
        self._tags = {**run.tags, **described, **known, "raysearch.status": "running"}
        self._clock = clock
        self._queue: queue.SimpleQueue[list[_Point] | _End] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._last: tuple[float, Snapshot] | None = None
        self._latest: Snapshot | None = None
        self._best: dict[str, BestSite] = {}
        self._new_best: dict[str, bool] = {}
        self._last_best: Mapping[str, float] = {}
        self._sent: dict[str, tuple[int, float]] = {}  # the last step and value of each metric
        self._made = False
        self._at = 0
        self._lock = threading.Lock()
        self._made_run_id: str | None = None
        self._described = ""
        self._experiment = ""
        self._thread = threading.Thread(target=self._mirror, name=THREAD, daemon=True)
        self._thread.start()

    @property
    def run_id(self) -> str | None:
        """The id of MLflow's run; None until MLflow has created it."""
        return self._made_run_id

    @property
    def address(self) -> str | None:
        """The address of the run's page; None before there is one, or without a server."""
        return self._made_run_id and address(self._run.uri, self._experiment, self._made_run_id)

    def describe(self, text: str) -> None:
        """Takes the description, in Markdown, that `close` sends."""
        self._described = text

    def show_best(self, means: Mapping[str, float]) -> None:
        """Takes the mean that `close` sends as iia/VARIABLE, by the variable."""
        self._last_best = {f"iia/{as_word(variable)}": mean for variable, mean in means.items()}

    @property
    def failed(self) -> bool:
        """Says whether the tracker gave up."""
        return self._stopped.is_set()

    def write_records(self, records: Sequence[Record], replayed: bool = False) -> None:
        """Keeps the mean of the best site per variable, and per variable and layer, or component
        outside of all layers.

        `replayed` records are in MLflow already, and are sent to a run that is made anew alone.
        """
        for record in records:
            if not isinstance(record, Decided) or record.hypothesis.intervention.control:
                continue
            where, iia = _where(record.hypothesis.intervention), iia_of(record)
            variable = as_word(record.hypothesis.variable)
            names = [f"iia/{variable}", *([f"best_iia/{variable}/{where}"] if where else [])]
            # The mean of a failed one is from before it failed, and a retry may withdraw it.
            known = bool(record.n) and iia is not None and record.verdict != "failed"
            found = rank_of(record.verdict, record.low, iia or 0.0) if known else None
            for name in names:
                self._best.setdefault(name, BestSite()).take(
                    record.hypothesis.id, record.verdict, found
                )
                self._new_best[name] = replayed and self._new_best.get(name, True)

    def snapshot(self, snapshot: Snapshot) -> None:
        """Records the search's progress and sends it at most every 2 s. Cheap enough for every
        step."""
        self._latest = snapshot
        if self._last is None or self._clock() - self._last[0] >= METRICS_EVERY:
            self._send(snapshot)

    def replayed(self, snapshot: Snapshot) -> None:
        """Sends the progress at the time of `TrackedRun.at`, unless it was sent before; omits the
        rate, which a journal does not have."""
        self._latest = snapshot
        if self._last is None or _counts(self._last[1]) != _counts(snapshot):
            self._send(snapshot, rate=False)

    def close(
        self,
        status: str,
        artifacts: Sequence[Artifact] = (),
        tables: Mapping[str, Mapping[str, Sequence[Any]]] | None = None,
        timeout: float | None = None,
        children: Sequence[ChildRun] = (),
    ) -> bool:
        """Sends the last point, artifacts, children and status; returns whether all arrived.

        Args: artifacts: files, optionally with a folder of the run. tables: small tables that
        MLflow shows (name -> column -> values). timeout: seconds to wait before it gives up with a
        warning.
        """
        if self._latest is not None and (
            self._last_best
            or self._new_best
            or self._last is None
            or _counts(self._last[1]) != _counts(self._latest)
        ):
            self._send(self._latest, last=self._last_best)
        pairs = tuple(a if isinstance(a, tuple) else (a, None) for a in artifacts)
        self._queue.put(_End(status, pairs, tables or {}, children, self._described))
        seconds = CLOSE_SECONDS if timeout is None else timeout
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._give_up(f"did not finish within {seconds:.0f} s")
        return not self._stopped.is_set()

    def _send(
        self,
        snapshot: Snapshot,
        rate: bool = True,
        last: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        now = self._clock()
        values = _counts(snapshot)
        if rate and self._last is not None and now > self._last[0]:
            values["pairs_per_second"] = (snapshot.pairs - self._last[1].pairs) / (
                now - self._last[0]
            )
        new, self._new_best = self._new_best, {}
        best = {name: self._best[name].mean for name in sorted(new)}
        values.update({name: mean for name, mean in best.items() if mean is not None})
        values.update(last)
        self._last = now, snapshot
        if not self._stopped.is_set():
            # Of two points at one step MLflow shows the later one, at one time the higher one.
            self._at = at = max(self._milliseconds(), self._at + 1)
            self._queue.put(
                [
                    _Point(name, value, at, snapshot.pairs, new.get(name, False), name in last)
                    for name, value in values.items()
                    if name in last or self._sent.get(name) != (snapshot.pairs, value)
                ]
            )
            self._sent |= {name: (snapshot.pairs, value) for name, value in values.items()}

    def _mirror(self) -> None:
        """Runs the thread; catches every exception, since MLflow must not stop a search."""
        try:
            client = patiently(self._run.uri, self._connect, self._stopped.wait)
            while not self._stopped.is_set():
                item = self._queue.get()
                if isinstance(item, _End):
                    self._finish(client, item)
                    return
                self._log_points(client, item)
        except Exception as e:  # noqa: BLE001  (the documented boundary: reported once)
            _log.debug("the mirror's exception", exc_info=True)
            self._give_up(one_line(e))

    def _give_up(self, why: str) -> None:
        with self._lock:
            if self._stopped.is_set():
                return
            self._stopped.set()
        self.why = why
        if self._run.again:
            return
        _log.warning(
            "MLflow at %s: %s; the search goes on without it; when that is mended, `raysearch sync "
            "%s` sends it everything",
            *(without_credentials(self._run.uri), why, self._tags["raysearch.run"]),
        )

    def _connect(self) -> Any:
        check_uri(self._run.uri)
        make_from_template(self._run.uri)
        client = connect(self._run.uri)
        self._experiment = self._experiment_id(client)
        there = self._found(client)
        if there is None:
            made = client.create_run(
                self._experiment,
                start_time=self._milliseconds(),
                run_name=self._run.name,
                tags=self._chopped_tags(),
            )
            self._made_run_id = self._run_id = made.info.run_id
            self._made = True
            known: Mapping[str, str] = {}
        else:
            self._run_id, known = there.info.run_id, there.data.params
            if self._run.again:
                self._known = {name: self._last_point(client, name) for name in there.data.metrics}
            client.update_run(self._run_id, status="RUNNING")
            for key, value in self._chopped_tags().items():
                client.set_tag(self._run_id, key, value)
            self._made_run_id = self._run_id
        arrange(client, self._experiment, [f"iia/{as_word(v)}" for v in self._run.variables])
        self._log_params(client, known)
        if self._run.pairs is not None:
            log_pairs(client, self._made_run_id, self._run.pairs)
        return client

    def _experiment_id(self, client: Any) -> str:
        """Returns the experiment's id, creating it if missing, with artifacts by a SQLite file."""
        found = client.get_experiment_by_name(self._run.experiment)
        if found is not None and found.lifecycle_stage == "deleted":
            raise TrackingError(
                f"its experiment {self._run.experiment!r} is deleted; restore it (mlflow "
                f"experiments restore --experiment-id {found.experiment_id})"
            )
        if found is not None:
            return str(found.experiment_id)
        location = None
        if (file := sqlite_file(self._run.uri)) is not None:
            location = (file.parent / "mlartifacts" / self._run.experiment).as_uri()
        return str(client.create_experiment(self._run.experiment, artifact_location=location))

    def _found(self, client: Any) -> Any:
        """Returns the run of this search; None if there is none yet, or it was deleted."""
        if self._run.again:
            wanted = f"tags.`raysearch.run` = '{self._tags['raysearch.run']}'"
            return next(iter(client.search_runs([self._experiment], wanted, max_results=1)), None)
        if self._run_id is None:
            return None
        from mlflow.exceptions import MlflowException

        try:
            there = client.get_run(self._run_id)
        except MlflowException as e:
            if e.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return there if there.info.lifecycle_stage == "active" else None

    def _last_point(self, client: Any, name: str) -> tuple[int, int, float]:
        """Returns step, time and value of the point that MLflow shows."""
        history = client.get_metric_history(self._run_id, name)
        return max(((p.step, p.timestamp, p.value) for p in history), default=(-1, 0, 0.0))

    def _log_params(self, client: Any, known: Mapping[str, str]) -> None:
        wanted = {
            as_key(name): as_value(value, MAX_CHARS) for name, value in self._run.params.items()
        }
        missing = {name: value for name, value in wanted.items() if name not in known}
        log_params(client, self._made_run_id, missing)

    def _log_points(self, client: Any, points: list[_Point]) -> None:
        from mlflow.entities import Metric

        metrics = []
        for p in points:
            step, at, value = self._known.get(p.name, (-1, 0, 0.0))
            other = p.last and p.step == step and p.value != value
            if (p.step > step or other) and (self._made or p.last or not p.before):
                metrics.append(Metric(p.name, p.value, max(p.milliseconds, at + 1), p.step))
        log_metrics(client, self._made_run_id, metrics)

    def _finish(self, client: Any, end: _End) -> None:
        for path, folder in end.artifacts:
            client.log_artifact(self._made_run_id, str(path), folder)
        for name, columns in end.tables.items():
            log_table(client, self._made_run_id, name, columns)
        at = self._milliseconds()
        log_children(client, self._experiment, self._made_run_id, end.children, at)
        if end.description:
            client.set_tag(self._made_run_id, DESCRIPTION, _chopped(DESCRIPTION, end.description))
        client.set_tag(self._made_run_id, "raysearch.status", end.status)
        client.set_terminated(self._made_run_id, _STATUS.get(end.status, "FAILED"), at)

    def _milliseconds(self) -> int:
        return int(self._run.at() * 1000)

    def _chopped_tags(self) -> dict[str, str]:
        return {as_key(name): _chopped(name, value) for name, value in self._tags.items()}


class Mlflow:
    """MLflow as a `TrackerKind`."""

    name = "mlflow"
    title = "MLflow"
    imports: Sequence[str] = ("mlflow", "mlflow.store.tracking.sqlalchemy_store")
    example = (
        "a server (http://mlflow:5000), an absolute path that the head node has "
        "(sqlite:////shared/mlflow.db)"
    )
    credentials = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"

    def open(self, run: TrackedRun) -> Tracker:
        return MlflowTracker(run)

    def check(self, uri: str) -> str:
        return reach(uri)


def _chopped(tag: str, value: str) -> str:
    return as_value(value, _DESCRIPTION_CHARS if tag == DESCRIPTION else MAX_CHARS)


def _where(intervention: Intervention) -> str | None:
    """Returns the layer or the component outside of all layers that all units share, or None."""
    layer = shared_layer(intervention)
    if layer is not None:
        return f"layer_{layer}"
    components = {unit.site.component for unit in intervention.units}
    return (
        None
        if len(components) > 1 or any(map(is_in_layers, components))
        else as_word(components.pop())
    )


def _counts(snapshot: Snapshot) -> dict[str, float]:
    """Returns the metrics of the run itself."""
    names = ("alive", "accepted", "rejected", "undecided", "failed", "pairs")
    return {name: float(getattr(snapshot, name)) for name in names}
