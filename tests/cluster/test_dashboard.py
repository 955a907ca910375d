"""A search by the command line as whoever watches it sees it: Ray's dashboard in a real browser,
its node's metrics port, Prometheus.

The picture in docs/how-to/watch.md is of this test: RAYSEARCH_SCREENSHOT=docs/pictures/ray-actors.png python -m
pytest tests/cluster/test_dashboard.py
"""

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml
from ray import __version__ as ray_version

from raysearch.cluster.metric_definitions import FAILED_ROWS, FAILURES, LOSSES, METRICS
from tests.browser import browser
from tests.cli.conftest import Shell, environment
from tests.cluster.test_metrics import DASHBOARD, PROMETHEUS, at_the_port
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
TOKEN = "a-planted-secret-that-nobody-may-see-0123456789abcdef"
"""For Ray; whatever answers without it must not tell it."""
PATIENCE = 300.0
"""Seconds; far more than anything takes on an idle machine."""
PICTURE_BYTES = 300_000

Found = TypeVar("Found")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Searching:
    """A search that goes on: Ray's dashboard, the run's id, what the command has said."""

    process: subprocess.Popen[bytes]
    dashboard: str
    run: str
    said: Path

    def get(self, path: str, token: str | None = TOKEN) -> Any:
        """What the dashboard answers."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        with urllib.request.urlopen(
            urllib.request.Request(self.dashboard + path, headers=headers), timeout=30
        ) as answer:
            return json.load(answer)

    def actors(self) -> list[dict[str, Any]]:
        """As Ray has them."""
        actors: dict[str, dict[str, Any]] = self.get("/logical/actors")["data"]["actors"]
        return list(actors.values())


@pytest.fixture(scope="module")
def searching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searching]:
    """The quick start on two replicas, with so much to ask, and so surely, that it is not over
    before we are."""
    folder = tmp_path_factory.mktemp("searching")
    (folder / "job.yaml").write_text(yaml.safe_dump(_job()))
    command = [*Shell(folder).command, "run", "job.yaml", "--tracking-uri", "none"]
    said = folder / "said.txt"
    with said.open("wb") as stream:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(RAY_AUTH_TOKEN=TOKEN), stdout=stream, stderr=stream
        )
    try:
        dashboard = _wait_for(lambda: _line(said, "dashboard"), process, said)
        run = Path(_wait_for(lambda: _line(said, "run "), process, said)).name
        yield Searching(process, dashboard, run, said)
    finally:
        _end(process, signal.SIGINT)


def _end(process: subprocess.Popen[bytes], by: signal.Signals) -> None:
    process.send_signal(by)
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def prometheus(searching: Searching, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real one with our rules, which asks Ray's dashboard for the nodes, as
    docs/how-to/watch.md has it; every second."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed (Debian: prometheus)")
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "auth_token").write_text(TOKEN)
    configuration = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    configuration["rule_files"] = [str(PROMETHEUS / name) for name in configuration["rule_files"]]
    asked = {
        "url": f"{searching.dashboard}/api/prometheus/sd",
        "authorization": {"type": "Bearer", "credentials_file": "auth_token"},
    }
    configuration["scrape_configs"] = [
        {"job_name": "ray", "http_sd_configs": [{**asked, "refresh_interval": "1s"}]}
    ]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    address = f"127.0.0.1:{free_port()}"
    command = [
        program,
        "--config.file=prometheus.yml",
        "--storage.tsdb.path=data",
        f"--web.listen-address={address}",
    ]
    with (folder / "said.txt").open("wb") as said:
        process = subprocess.Popen(command, cwd=folder, stdout=said, stderr=said)
    try:
        yield f"http://{address}"
    finally:
        _end(process, signal.SIGTERM)


def _job() -> dict[str, Any]:
    job: dict[str, Any] = yaml.safe_load((ROOT / "jobs/quickstart.yaml").read_text())
    job["model"]["path"] = str(ROOT / "jobs/planted/model")
    job["pairs"] = {"test": 64, "fit": 0, "holdout": 16, "seed": 0}
    job["test"] |= {"max_pairs": 64, "miss": 1e-12}
    job["space"]["subspaces"] = [
        "full",
        *({"coordinates": [i, i + 1 + j]} for j in range(4) for i in range(48)),
    ]
    job["space"]["components"] = ["residual", "attention_output", "mlp_output"]
    job["resources"] = {"replicas": 2, "cpus": 1, "rows": 8}
    return job


def _line(said: Path, first: str) -> str | None:
    lines = [line for line in said.read_text().splitlines() if line.startswith(first)]
    return lines[0].split(maxsplit=1)[1] if lines else None


def _wait_for(
    look: Callable[[], Found | None], process: subprocess.Popen[bytes], said: Path
) -> Found:
    until = time.monotonic() + PATIENCE
    refused: OSError | None = None
    while time.monotonic() < until:
        try:
            if found := look():
                return found
        except OSError as e:  # who is asked is starting, or has too much to do
            refused = e
        assert process.poll() is None, (
            f"the search ended before it was looked at:\n{said.read_text()}"
        )
        time.sleep(0.5)
    raise AssertionError(
        f"not seen within {PATIENCE:.0f} s; the search said:\n{said.read_text()}"
    ) from refused


def test_rays_dashboard_shows_each_replica_by_its_name(
    searching: Searching, tmp_path: Path
) -> None:
    _wait_for(
        lambda: len([a for a in searching.actors() if a["state"] == "ALIVE"]) == 2,
        searching.process,
        searching.said,
    )
    picture = Path(os.environ.get("RAYSEARCH_SCREENSHOT") or tmp_path / "actors.png")
    with browser(1700, 760) as opened:
        opened.get(searching.dashboard)  # a cookie needs a page of its own site
        opened.add_cookie({"name": "ray-authentication-token", "value": TOKEN})
        opened.get(f"{searching.dashboard}/#/actors")
        opened.refresh()

        def shown() -> str | None:
            text: str = opened.execute_script("return document.body.innerText")
            return (
                text
                if all(f"replica-{n}" in text for n in (0, 1)) and text.count("ALIVE") >= 2
                else None
            )

        text = _wait_for(shown, searching.process, searching.said)
        assert opened.save_screenshot(str(picture))
    names = [f"raysearch-quickstart-{searching.process.pid}:replica-{n}" for n in (0, 1)]
    assert all(name in text for name in names)
    assert TOKEN not in text
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert 10_000 < picture.stat().st_size < PICTURE_BYTES


def test_tasks_are_named_by_kind(searching: Searching) -> None:
    """What the pages of a replica list: read from the interface that they read."""

    def names(name: str = "") -> set[str]:
        """Of the latest tasks, or of those of one name: the first of a search are soon not among
        the latest."""
        only = (
            {"filter_keys": "name", "filter_predicates": "=", "filter_values": name} if name else {}
        )
        asked = urllib.parse.urlencode({"limit": 1000, "detail": 0, **only})
        tasks = searching.get(f"/api/v0/tasks?{asked}")["data"]["result"]["result"]
        return {t["name"] for t in tasks if t["type"] == "ACTOR_TASK"}

    for name in ("load replica-0", "load replica-1", "measure"):
        _wait_for(lambda name=name: names(name), searching.process, searching.said)
    assert {name for name in names() if " " not in name} <= {"screen", "measure", "estimate"}


def test_a_running_search_is_at_the_metrics_port_which_tells_no_secret(
    searching: Searching,
) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        searching.get("/api/prometheus/sd", token=None)
    targets = [target for of in searching.get("/api/prometheus/sd") for target in of["targets"]]
    healthy = [figure for figure in METRICS if figure not in (FAILURES, FAILED_ROWS)]  # none fails
    wanted = {series for figure in healthy for series in figure.series}

    missing: set[str] = set()
    kills: list[float] = []

    def kill_one() -> None:
        """Now and then, until a task is lost: a replica that is killed between two tasks loses
        none."""
        alive = [a for a in searching.actors() if a["state"] == "ALIVE"]
        if len(alive) == 2 and (not kills or time.monotonic() - kills[-1] > 15):
            os.kill(alive[0]["pid"], signal.SIGKILL)
            kills.append(time.monotonic())

    def shown() -> set[str] | None:
        names = {name for target in targets for name, _ in at_the_port(target, searching.run)}
        missing.clear()
        missing.update(wanted - names)
        if LOSSES.series[0] in missing:
            kill_one()
        return names if not missing else None

    try:
        assert LOSSES.series[0] in _wait_for(shown, searching.process, searching.said)
    except AssertionError as e:
        raise AssertionError(f"never at the port: {sorted(missing)}") from e
    for target in targets:
        with urllib.request.urlopen(f"http://{target}/metrics", timeout=30) as answer:
            assert TOKEN not in answer.read().decode()


def test_prometheus_has_something_to_show_in_every_panel_of_the_dashboard(
    searching: Searching, prometheus: str
) -> None:
    def query(expression: str) -> list[dict[str, Any]]:
        question = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"{prometheus}/api/v1/query?{question}", timeout=30) as answer:
            result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return result

    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert panels

    def filled() -> bool:
        asked = [
            [
                t["expr"].replace("$__rate_interval", "1m").replace("$run", searching.run)
                for t in p["targets"]
            ]
            for p in panels
        ]
        return all(any(query(expression) for expression in targets) for targets in asked)

    assert _wait_for(filled, searching.process, searching.said)

    def rate() -> float:
        found = query(f'run:raysearch_pairs:rate1m{{run="{searching.run}"}}')
        return float(found[0]["value"][1]) if found else 0.0

    assert _wait_for(rate, searching.process, searching.said) > 0


def test_the_doctor_is_let_in_with_the_token_and_says_what_is_wrong_with_another(
    searching: Searching,
) -> None:
    def ask(token: str) -> dict[str, Any]:
        asked = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": token,
            "RAY_API_SERVER_ADDRESS": searching.dashboard,
        }
        shell = Shell(searching.said.parent)
        done = shell("doctor", "-o", "json", "--tracking-uri", "none", **asked)
        assert token not in done.stdout
        return next(f for f in json.loads(done.stdout) if f["check"] == "ray jobs")

    assert ask(TOKEN) == {
        "check": "ray jobs",
        "ok": True,
        "message": f"{searching.dashboard} answers, Ray {ray_version}",
    }
    other = ask("not-the-token")
    assert not other["ok"]
    assert "asks for another token" in other["message"]
