"""What is counted is what a node's metrics port says; dashboard, rules and docs know no other
names."""

import json
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from raysearch import driver
from raysearch.cluster.local_pool import LocalPool
from raysearch.cluster.metric_definitions import METRICS, PREFIX, RUN, table
from raysearch.cluster.metrics import MeteredPool, Metrics
from raysearch.cluster.ray_pool import PoolShape, RayPool
from raysearch.cluster.ray_session import Session
from raysearch.cluster.replica_spec import build_failed, lost
from raysearch.core.events import Block, Event, Failed, Task
from raysearch.core.records import Record, Snapshot
from raysearch.engine.execution.usage import Memory, Usage
from tests.cluster.contract import at
from tests.cluster.worlds import planted_search, planted_work

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "deploy/grafana/raysearch.json"
PROMETHEUS = ROOT / "deploy/prometheus"
SERIES = {series for figure in METRICS for series in figure.series}

PATIENCE = 300.0
"""Seconds."""

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def at_the_port(address: str, run: str) -> Samples:
    """Of a run, what a metrics port says: by name and our own tags. Nobody asks for a token there."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    names = {RUN, "le"} | {tag for figure in METRICS for tag in figure.tags}
    found: Samples = {}
    for name, tags, value in re.findall(r"^(\w+){(.*)} (\S+)$", text, re.MULTILINE):
        pairs = dict(re.findall(r'(\w+)="([^"]*)"', tags))
        if name.startswith(f"{PREFIX}raysearch_") and pairs.get(RUN) == run:
            found[name, frozenset((k, v) for k, v in pairs.items() if k in names - {RUN})] = float(
                value
            )
    return found


def _port() -> str:
    (node,) = ray.nodes()
    return f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}"


def _until(run: str, holds: Callable[[Samples], None]) -> None:
    """Asks the port until what `holds` asserts of a run is so: Ray hands figures on every few
    seconds, in the middle of a search, too."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            holds(at_the_port(_port(), run))
        except (
            AssertionError,
            KeyError,
            OSError,
        ):  # OSError: who answers there is starting, or has too much to do
            if time.monotonic() > until:
                raise
            time.sleep(1)
        else:
            return


def _of(samples: Samples, name: str, **tags: str) -> float:
    return samples[f"{PREFIX}{name}", frozenset(tags.items())]


class _Books:
    """Keeps the events, as a ledger does."""

    def __init__(self) -> None:
        self.kept: list[Event] = []

    def write_events(self, events: Sequence[Event]) -> None:
        self.kept += events

    def write_records(self, notes: Sequence[Record]) -> None:
        assert notes is not None

    def tensors_for(self, task: Task) -> dict[str, bytes]:
        return {}


@pytest.mark.slow  # a real Ray
def test_a_search_on_ray_is_at_the_metrics_port_as_it_was(session: Session) -> None:
    work, metrics, books = planted_work(test=24, holdout=8), Metrics(), _Books()
    told: list[tuple[str, Task | None, Usage]] = []

    def on_usage(worker: str, task: Task | None, usage: Usage) -> None:
        told.append((worker, task, usage))
        metrics.usage(worker, task, usage)

    pool = MeteredPool(RayPool(work, "watched", PoolShape(replicas=1), on_usage), metrics)
    try:
        search = planted_search(work, pool.open())
        driver.drive(search, pool, books, lambda snapshot: pool.show("run-1", snapshot))
        end = search.snapshot()
        metrics._emitted_at = -1e9  # the last turn came within a second of the one before
        pool.show("run-1", end)
        _until("run-1", lambda samples: _is_there(samples, end, told))
    finally:
        pool.close()


def _is_there(
    samples: Samples, end: Snapshot, told: Sequence[tuple[str, Task | None, Usage]]
) -> None:
    """All that a search of one replica came to."""
    assert _of(samples, "raysearch_pairs_total") == end.pairs > 0
    assert {
        s: _of(samples, "raysearch_hypotheses", state=s)
        for s in ("alive", "accepted", "rejected", "undecided")
    } == {
        "alive": end.alive,
        "accepted": end.accepted,
        "rejected": end.rejected,
        "undecided": end.undecided,
    }
    tasks = [task for _, task, _ in told if task is not None]
    for kind in ("screen", "measure"):
        counted = _of(samples, "raysearch_task_seconds_count", kind=kind)
        assert counted == sum(task.kind == kind for task in tasks) > 0
    for phase in ("load", "check", "capture", "replay"):
        seconds = sum(usage.phases.get(phase, 0.0) for _, _, usage in told)  # type: ignore[call-overload]
        assert _of(samples, "raysearch_phase_seconds_total", phase=phase) == pytest.approx(seconds)
    assert _of(samples, "raysearch_tokens_total") == sum(usage.tokens for _, _, usage in told)
    assert _of(samples, "raysearch_replicas") == 1
    assert (
        _of(samples, "raysearch_replica_memory_bytes", of="process")
        == told[-1][2].memory.process
        > 10**8
    )
    assert 0 < _of(samples, "raysearch_memory_share", of="host") < 1
    assert {name for name, _ in samples} <= SERIES


def test_losses_and_failures_are_counted_by_kind_for_each_run_and_each_figure_is_registered_once(
    session: Session, recwarn: pytest.WarningsRecorder
) -> None:
    task = Task(3, "measure", (at(0),), (Block("test", 0, (0,)),))
    whole = build_failed(task, ValueError("no"), "replica-0")
    one = Failed(
        3, at(0).id, 0, "ValueError", "no", "", "", "replica-0", 0, (at(0).id,), "test", (0,)
    )
    snapshot = Snapshot("searching", 1, 2, 3, 4, 5, 6, 7, queued=8, out=9)
    for run, times in (
        ("run-2", 1),
        ("run-3", 2),
    ):  # as if two searches, one after the other, in one process
        metrics = Metrics()
        metrics.usage("replica-0", task, Usage({"fit": 2.0}, 5, Memory(7, 8, 0.5, 0.25)))
        metrics.usage("replica-1", None, Usage({}, 0, Memory(9, 3, 0.4, 0.5)))
        metrics.events([lost(task, "node", "replica-0", "gone"), whole, one, one] * times)
        metrics.show(run, snapshot, ("replica-0", "replica-1"))

    def are_there(samples: Samples, times: int) -> None:
        assert _of(samples, "raysearch_losses_total", cause="node") == times
        assert _of(samples, "raysearch_failures_total", of="task") == times
        assert _of(samples, "raysearch_failures_total", of="intervention") == 2 * times
        assert _of(samples, "raysearch_task_seconds_bucket", kind="measure", le="3.0") == 1
        assert _of(samples, "raysearch_task_seconds_bucket", kind="measure", le="1.0") == 0
        assert [_of(samples, "raysearch_queue", state=s) for s in ("ready", "out")] == [8, 9]
        assert [
            _of(samples, "raysearch_replica_memory_bytes", of=o) for o in ("process", "gpu")
        ] == [9, 8]
        assert [_of(samples, "raysearch_memory_share", of=o) for o in ("host", "gpu")] == [0.5, 0.5]

    _until("run-2", lambda samples: are_there(samples, 1))
    _until("run-3", lambda samples: are_there(samples, 2))
    assert not [w for w in recwarn if "etric" in str(w.message)]


def test_the_local_pool_tells_what_its_replica_uses_too() -> None:
    told: list[tuple[str, int | None, set[str]]] = []
    pool = LocalPool(
        planted_work(test=8, holdout=0),
        on_usage=lambda worker, task, usage: told.append(
            (worker, task and task.id, set(usage.phases))
        ),
    )
    opened = pool.open()
    pool.submit(Task(4, "screen", (), (Block("test", 0, (opened.encoded[0].index,)),)))
    assert len(pool.wait()) == 1
    assert [(worker, task) for worker, task, _ in told] == [("local-0", None), ("local-0", 4)]
    assert "load" in told[0][2]
    assert "capture" in told[1][2]


def test_names_and_tags_are_few_and_as_prometheus_wants_them() -> None:
    for figure in METRICS:
        assert re.fullmatch(r"raysearch_[a-z_]+", figure.name)
        assert not figure.name.endswith(("_total", "_count", "_sum", "_bucket"))
        assert (figure.kind == "histogram") == bool(figure.boundaries)
        assert sum(map(len, figure.tags.values())) <= 8, (
            "every value of a tag is a series of its own"
        )
    assert len(SERIES) == len({f.name for f in METRICS}) + 2 * sum(
        f.kind == "histogram" for f in METRICS
    )


def _expressions(rules: dict[str, Any]) -> list[str]:
    return [rule["expr"] for group in rules["groups"] for rule in group["rules"]]


def _panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return panels


def _asked_by_the_dashboard() -> list[str]:
    return [target["expr"] for panel in _panels() for target in panel["targets"]]


def _metrics_in(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:\w+:)*(?:ray_)?raysearch_\w+(?::\w+)?", expression))


def _strangers(expressions: Sequence[str], known: set[str]) -> set[str]:
    return {name for expression in expressions for name in _metrics_in(expression)} - known


def test_dashboard_and_rules_ask_for_nothing_that_the_code_does_not_register() -> None:
    rules = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())
    recorded = {
        rule["record"] for group in rules["groups"] for rule in group["rules"] if "record" in rule
    }
    asked = _asked_by_the_dashboard()
    variables = json.loads(DASHBOARD.read_text())["templating"]["list"]
    assert not _strangers(_expressions(rules), SERIES | recorded)
    assert not _strangers(
        [*asked, *(v["definition"] for v in variables if v["type"] == "query")], SERIES
    )
    made_up = [
        s["series"]
        for t in yaml.safe_load((PROMETHEUS / "rules_test.yml").read_text())["tests"]
        for s in t["input_series"]
    ]
    assert not _strangers(made_up, SERIES)
    assert _strangers(
        ["sum(ray_raysearch_pairs)", "run:raysearch_pear:rate1m"], SERIES | recorded
    ), "it would be seen"
    shown = {name for expression in asked for name in _metrics_in(expression)}
    assert all(shown & set(figure.series) for figure in METRICS), (
        "every figure has a place on the dashboard"
    )


def test_tags_in_dashboard_and_rules_are_those_of_the_figures() -> None:
    rules = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())
    known = {RUN, "le"} | {tag for figure in METRICS for tag in figure.tags}
    values = {(tag, value) for figure in METRICS for tag, of in figure.tags.items() for value in of}
    for expression in [*_expressions(rules), *_asked_by_the_dashboard()]:
        for by in re.findall(r"\bby \(([^)]*)\)", expression):
            assert set(by.replace(" ", "").split(",")) <= known, expression
        pairs = [
            pair
            for inside in re.findall(r"{([^}]*)}", expression)
            for pair in re.findall(r'(\w+)="([^"]*)"', inside)
        ]
        assert set(pairs) <= values, expression


def test_the_dashboard_can_be_provisioned_as_it_is() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert "__inputs" not in dashboard, "that is of a dashboard to be imported by hand"
    assert {v["name"]: v["type"] for v in dashboard["templating"]["list"]} == {
        "datasource": "datasource",
        "run": "query",
    }
    assert len({p["id"] for p in _panels()}) == len(_panels())
    taken: set[tuple[int, int]] = set()
    for panel in _panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, f"{panel['title']} lies on another panel"
        taken |= cells
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["description"]
        assert all(
            t["datasource"]["uid"] == "${datasource}" and 'run=~"$run"' in t["expr"]
            for t in panel["targets"]
        )


def _promtool(*arguments: str, cwd: Path = PROMETHEUS) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    done = subprocess.run([tool, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_takes_the_configuration_and_the_rules_fire_when_they_should() -> None:
    _promtool("check", "config", "prometheus.yml")
    _promtool("test", "rules", "rules_test.yml")


def test_promtool_can_read_what_the_dashboard_asks(tmp_path: Path) -> None:
    asked = [
        e.replace("$__rate_interval", "1m").replace("$run", ".+") for e in _asked_by_the_dashboard()
    ]
    rules = [{"record": f"panel:{at}", "expr": expression} for at, expression in enumerate(asked)]
    (tmp_path / "asked.yml").write_text(
        yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]})
    )
    _promtool("check", "rules", "asked.yml", cwd=tmp_path)


def test_the_page_on_watching_lists_every_figure_as_the_code_has_it() -> None:
    assert table() in (ROOT / "docs/how-to/watch.md").read_text()
