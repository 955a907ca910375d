"""Shows a search in MLflow: params, metrics over time, tables and pictures.

Invariants: nothing here raises into the search or makes it wait: one daemon thread talks to MLflow,
from a queue, and only `close` waits, for a bounded time; the first failure ends the tracker, with
one warning of one line; only that thread imports mlflow.
"""

import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysearch.core.hypothesis import Intervention, is_in_layers
from raysearch.core.records import Decided, Record, Snapshot
from raysearch.errors import TrackingError
from raysearch.storage.uris import without_credentials
from raysearch.store.table_rows import iia_of, shared_layer
from raysearch.tracking.mlflow_client import THREAD, connect
from raysearch.tracking.mlflow_names import DESCRIPTION, as_key, as_value, as_word, one_line
from raysearch.tracking.mlflow_patience import patiently
from raysearch.tracking.mlflow_reach import reach
from raysearch.tracking.mlflow_template import make_from_template
from raysearch.tracking.tracker import Artifact, ChildRun, PairsInput, TrackedRun, Tracker

METRICS_EVERY = 2.0
"""Least seconds between two points of a metric."""
CLOSE_SECONDS = 60.0
"""Default time limit of `close`: MLflow takes up to 20 s to migrate a new SQLite file, and a server
some seconds for artifacts."""
_PARAM_CHARS = 500
_DATASET_CHARS = 500
_PARAMS_A_BATCH = 100
_METRICS_A_BATCH = 1000
_TYPES = {"int32": "integer", "int64": "long", "bool": "boolean", "double": "double"}
"""MLflow's types by Arrow type, for columns that are neither text nor lists."""
_STATUS = {"done": "FINISHED", "interrupted": "KILLED", "running": "RUNNING"}
_HYPOTHESIS = "raysearch.hypothesis"
_log = logging.getLogger("raysearch.mlflow")


@dataclass(frozen=True, slots=True)
class _Point:
    name: str
    value: float
    milliseconds: int
    step: int


@dataclass(frozen=True, slots=True)
class _End:
    status: str
    artifacts: tuple[tuple[Path, str | None], ...]
    tables: Mapping[str, Mapping[str, Sequence[Any]]]
    children: Sequence[ChildRun]


class MlflowTracker:
    """Shows a run in MLflow; reopens the one with `run.run_id` if given.

    With `run.again` it finds the run by the tag raysearch.run. Starts at once; never raises.
    """

    def __init__(self, run: TrackedRun, clock: Callable[[], float] = time.monotonic) -> None:
        self.why: str | None = None
        self._run = run
        self._run_id = run.run_id
        self._steps: dict[str, int] = {}
        described = {DESCRIPTION: run.description} if run.description else {}
        self._tags = {**run.tags, **described, "raysearch.status": "running"}
        self._clock = clock
        self._queue: queue.SimpleQueue[list[_Point] | _End] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._last: tuple[float, Snapshot] | None = None
        self._latest: Snapshot | None = None
        self._best: dict[str, float] = {}
        self._new_best: set[str] = set()
        self._lock = threading.Lock()
        self._made_run_id: str | None = None
        self._thread = threading.Thread(target=self._mirror, name=THREAD, daemon=True)
        self._thread.start()

    @property
    def run_id(self) -> str | None:
        """The id of MLflow's run; None until MLflow has created it."""
        return self._made_run_id

    @property
    def failed(self) -> bool:
        """Whether the tracker gave up."""
        return self._stopped.is_set()

    def write_records(self, records: Sequence[Record], replayed: bool = False) -> None:
        """Keeps the best IIA per variable and layer, or component outside of all layers.

        `replayed` records are in MLflow already and are not sent again.
        """
        for record in records:
            if (
                not isinstance(record, Decided)
                or not record.n
                or record.hypothesis.intervention.control
            ):
                continue
            if (
                record.verdict == "failed"
            ):  # its IIA is from before it failed, and a retry may withdraw it
                continue
            where = _where(record.hypothesis.intervention)
            if where is None:
                continue
            name = f"best_iia/{as_word(record.hypothesis.variable)}/{where}"
            iia = iia_of(record)
            if iia is not None and iia > self._best.get(name, -1.0):
                self._best[name] = iia
                if not replayed:
                    self._new_best.add(name)

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
        if self._last is None or self._last[1] != snapshot:
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
            self._new_best or self._last is None or self._last[1] != self._latest
        ):
            self._send(self._latest)
        pairs = tuple(a if isinstance(a, tuple) else (a, None) for a in artifacts)
        self._queue.put(_End(status, pairs, tables or {}, children))
        seconds = CLOSE_SECONDS if timeout is None else timeout
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._give_up(f"did not finish within {seconds:.0f} s")
        return not self._stopped.is_set()

    def _send(self, snapshot: Snapshot, rate: bool = True) -> None:
        now = self._clock()
        values = {
            name: float(getattr(snapshot, name))
            for name in ("alive", "accepted", "rejected", "undecided", "failed")
        }
        if rate and self._last is not None and now > self._last[0]:
            values["pairs_per_second"] = (snapshot.pairs - self._last[1].pairs) / (
                now - self._last[0]
            )
        values.update((name, self._best[name]) for name in sorted(self._new_best))
        self._new_best.clear()
        self._last = now, snapshot
        if not self._stopped.is_set():
            at = int(self._run.at() * 1000)
            self._queue.put(
                [_Point(name, value, at, snapshot.pairs) for name, value in values.items()]
            )

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
        make_from_template(self._run.uri)
        client = connect(self._run.uri)
        if self._run.again:
            self._run_id = self._found(client)
        if self._run_id is None:
            made = client.create_run(
                self._experiment_id(client), run_name=self._run.name, tags=self._chopped_tags()
            )
            self._made_run_id = self._run_id = made.info.run_id
            known: Mapping[str, str] = {}
        else:
            there = client.get_run(self._run_id).data
            known = there.params
            if self._run.again:
                self._steps = {name: self._last_step(client, name) for name in there.metrics}
            client.update_run(self._run_id, status="RUNNING")
            for key, value in self._chopped_tags().items():
                client.set_tag(self._run_id, key, value)
            self._made_run_id = self._run_id
        self._log_params(client, known)
        if self._run.pairs is not None:
            _log_pairs(client, self._made_run_id, self._run.pairs)
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
        if self._run.uri.startswith("sqlite:////"):
            folder = Path(self._run.uri.removeprefix("sqlite:///").partition("?")[0]).parent
            location = (folder / "mlartifacts" / self._run.experiment).as_uri()
        return str(client.create_experiment(self._run.experiment, artifact_location=location))

    def _found(self, client: Any) -> str | None:
        """Returns the id of an earlier run of this search; None if there is none, or it was
        deleted."""
        wanted = f"tags.`raysearch.run` = '{self._tags['raysearch.run']}'"
        found = client.search_runs([self._experiment_id(client)], wanted, max_results=1)
        return str(found[0].info.run_id) if found else None

    def _last_step(self, client: Any, name: str) -> int:
        return max(
            (point.step for point in client.get_metric_history(self._run_id, name)), default=-1
        )

    def _log_params(self, client: Any, known: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        wanted = {
            as_key(name): as_value(value, _PARAM_CHARS) for name, value in self._run.params.items()
        }
        missing = [Param(name, value) for name, value in wanted.items() if name not in known]
        _log_batches(client, self._made_run_id, _PARAMS_A_BATCH, params=missing)

    def _log_points(self, client: Any, points: list[_Point]) -> None:
        from mlflow.entities import Metric

        new = [p for p in points if p.step > self._steps.get(p.name, -1)]
        metrics = [Metric(p.name, p.value, p.milliseconds, p.step) for p in new]
        _log_batches(client, self._made_run_id, _METRICS_A_BATCH, metrics=metrics)

    def _finish(self, client: Any, end: _End) -> None:
        for path, folder in end.artifacts:
            client.log_artifact(self._made_run_id, str(path), folder)
        for name, columns in end.tables.items():
            _log_table(client, self._made_run_id, name, columns)
        self._log_children(client, end.children)
        client.set_tag(self._made_run_id, "raysearch.status", end.status)
        client.set_terminated(self._made_run_id, _STATUS.get(end.status, "FAILED"))

    def _log_children(self, client: Any, children: Sequence[ChildRun]) -> None:
        """Creates a run for each child, or updates the metrics of an existing one, found by its
        tag."""
        if not children:
            return
        from mlflow.entities import Metric, Param

        parent, experiment = self._made_run_id, self._experiment_id(client)
        known = client.search_runs(
            [experiment], f"tags.mlflow.parentRunId = '{parent}'", max_results=1000
        )
        there = {run.data.tags.get(_HYPOTHESIS): run for run in known}
        for child in children:
            at = int(self._run.at() * 1000)
            metrics = [Metric(as_key(name), value, at, 0) for name, value in child.metrics.items()]
            if child.name in there:
                old = there[child.name]
                changed = [m for m in metrics if old.data.metrics.get(m.key) != m.value]
                if changed:
                    client.log_batch(old.info.run_id, metrics=changed)
                continue
            tags = {"mlflow.parentRunId": parent, _HYPOTHESIS: child.name}
            made = client.create_run(
                experiment, run_name=as_value(child.title, _PARAM_CHARS), tags=tags
            ).info.run_id
            metrics += [Metric(as_key(name), value, at, step) for name, step, value in child.course]
            params = [
                Param(as_key(name), as_value(value, _PARAM_CHARS))
                for name, value in child.params.items()
            ]
            client.log_batch(made, params=params[:_PARAMS_A_BATCH])
            _log_batches(client, made, _METRICS_A_BATCH, metrics=metrics)
            for path in child.artifacts:
                client.log_artifact(made, str(path))
            client.set_terminated(made, "FINISHED")

    def _chopped_tags(self) -> dict[str, str]:
        return {as_key(name): as_value(value, _PARAM_CHARS) for name, value in self._tags.items()}


class Mlflow:
    """MLflow as a `TrackerKind`."""

    name = "mlflow"
    title = "MLflow"
    imports = ("mlflow", "mlflow.store.tracking.sqlalchemy_store")
    example = (
        "a server (http://mlflow:5000), an absolute path that the head node has "
        "(sqlite:////shared/mlflow.db)"
    )
    credentials = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"

    def open(self, run: TrackedRun) -> Tracker:
        return MlflowTracker(run)

    def check(self, uri: str) -> str:
        return reach(uri)


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


def _log_batches(client: Any, run_id: str | None, size: int, **kind: Sequence[Any]) -> None:
    """Logs metrics or params, at most `size` in one request."""
    ((name, values),) = kind.items()
    for start in range(0, len(values), size):
        client.log_batch(run_id, **{name: values[start : start + size]})


def _log_pairs(client: Any, run_id: str | None, pairs: PairsInput) -> None:
    """Logs the pairs as a dataset, which MLflow identifies by name and digest and keeps once."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    scheme = pairs.place.partition("://")[0] if "://" in pairs.place else "local"
    columns = [
        {"name": name, "type": _TYPES.get(kind, "string"), "required": True}
        for name, kind in pairs.columns.items()
    ]
    dataset = Dataset(
        name=as_value(pairs.name, _DATASET_CHARS),
        digest=pairs.digest,
        source_type=scheme,
        source=json.dumps({"uri": pairs.place}),
        schema=json.dumps({"mlflow_colspec": columns}),
        profile=json.dumps({"num_rows": sum(pairs.counts.values()), **pairs.counts}),
    )
    client.log_inputs(
        run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "interchange")])]
    )


def _log_table(
    client: Any, run_id: str | None, name: str, columns: Mapping[str, Sequence[Any]]
) -> None:
    """Logs a table like client.log_table, but without pandas, and replacing rows of before."""
    file = f"{name}.json"
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    client.log_dict(run_id, {"columns": list(columns), "data": rows}, file)
    tags = client.get_run(run_id).data.tags
    listed = json.loads(tags.get("mlflow.loggedArtifacts", "[]"))
    entry = {"path": file, "type": "table"}
    if entry not in listed:
        client.set_tag(run_id, "mlflow.loggedArtifacts", json.dumps([*listed, entry]))
