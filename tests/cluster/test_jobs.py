"""A real Ray of two nodes, reached as users reach it: submit, follow, status, logs, stop, resume,
from another folder."""

import http.server
import json
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from raysearch.cluster.jobs import clean_lines
from raysearch.store.run_folder import find_run
from tests.cli.conftest import QUICKSTART, ROOT, Shell, environment
from tests.cluster.two_nodes import TwoNodes, two_nodes

pytestmark = pytest.mark.timeout(900)

SMALL = tuple(
    f"--set={key}"
    for key in (
        "pairs.test=96",
        "pairs.holdout=8",
        "test.max_pairs=96",
        "space.variables=[c,total]",
        "space.layers=[0,3]",
    )
)
SECRET = "planted-secret-7c1e"


@pytest.fixture(scope="module")
def nodes() -> Iterator[TwoNodes]:
    with two_nodes() as cluster:
        yield cluster


class Client(Shell):
    """Calls `raysearch` from a folder of its own, with the cluster's address and token, and a
    secret in the environment."""

    def on(
        self, nodes: TwoNodes, *arguments: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return self(*arguments, **{**self.variables(nodes), **environment})

    def begun(self, nodes: TwoNodes, *arguments: str) -> subprocess.Popen[str]:
        command = [*self.command, *arguments]
        env = environment(**self.variables(nodes))
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_hears_interrupts,
        )

    @staticmethod
    def variables(nodes: TwoNodes) -> dict[str, str]:
        return {
            "RAY_API_SERVER_ADDRESS": nodes.address,
            "RAY_AUTH_TOKEN": nodes.token,
            "MLFLOW_TRACKING_PASSWORD": SECRET,
            "RAYSEARCH_TEST_MARK": "handed-on",
        }


def _hears_interrupts() -> None:
    """A shell lets what it starts with & ignore SIGINT, and so all that this starts, tests among
    it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path)


@pytest.fixture
def brake(tmp_path: Path) -> Iterator[Path]:
    """A file that holds a search up while it is there; gone at the end, so that no job is left to
    hold the cluster."""
    yield tmp_path / "brake"
    (tmp_path / "brake").unlink(missing_ok=True)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The small search, run in this process's own way, without Ray: what every other run must
    equal."""
    shell = Shell(tmp_path_factory.mktemp("alone"))
    done = shell("run", str(QUICKSTART), *SMALL, "--pool", "local", "--tracking-uri", "none", "-q")
    assert done.returncode == 0, done.stderr
    return shell.json("results", "latest", "-o", "json")  # type: ignore[no-any-return]


def _one_line(done: subprocess.CompletedProcess[str], code: int, *says: str) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.strip()]
    assert all(word in line for word in says), line


@pytest.mark.slow
def test_a_job_from_another_folder_gives_what_a_local_run_gives_and_spills_no_secret(
    nodes: TwoNodes, client: Client, alone: list[dict[str, Any]], migrated_db: Path
) -> None:
    store, database = client.folder / "store", client.folder / "shared.db"
    shutil.copy(migrated_db, database)
    where = (
        "--store",
        str(store),
        "--tracking-uri",
        f"sqlite:///{database}",
        "--env",
        "RAYSEARCH_TEST_MARK",
    )
    done = client.on(nodes, "submit", str(QUICKSTART), *SMALL, *where)
    assert done.returncode == 0, done.stderr
    assert "is a path on the head node" in done.stderr
    assert done.stdout.splitlines()[0].startswith(
        "ray       connecting to"
    )  # nothing of Ray's own before
    assert "Alignment: accepted hypotheses" in done.stdout
    assert client.json("results", "latest", "--store", str(store), "-o", "json") == alone
    run = find_run(store, "latest")
    assert (run.path / "files/planted/model/config.json").is_file()

    (job,) = json.loads(client.on(nodes, "jobs", "-o", "json").stdout)
    assert job["id"].startswith(f"raysearch-quickstart-{job['job'][:8]}-")
    assert (job["status"], job["exit_code"], job["store"]) == ("SUCCEEDED", 0, str(store))
    status = json.loads(client.on(nodes, "status", "-o", "json").stdout)
    assert status["run"] == str(run.path)
    assert (
        client.on(nodes, "logs", "quickstart").stdout == done.stdout
    )  # the beginning of an id will do

    told = nodes.get("/api/jobs/") + nodes.get(f"/api/jobs/{job['id']}/logs") + done.stderr
    assert "handed-on" in told
    assert not _spilled(nodes, store, database)
    assert SECRET not in told
    assert nodes.token not in told
    tags = _mlflow_run(f"sqlite:///{database}", run.info.tracking_run_id).data.tags
    assert (tags["raysearch.submission_id"], tags["raysearch.status"]) == (job["id"], "done")


def _holds(path: Path, *secrets: str) -> bool:
    content = path.read_bytes()
    return any(secret.encode() in content for secret in secrets)


def _mlflow_run(uri: str, run_id: str | None) -> Any:
    from mlflow import MlflowClient

    assert run_id is not None
    return MlflowClient(uri).get_run(run_id)


@pytest.mark.slow
def test_a_job_is_left_to_itself_followed_stopped_and_resumed(
    nodes: TwoNodes, client: Client, migrated_db: Path, brake: Path
) -> None:
    """Own code is sent, kept with the run, and sent again to go on; results are those of a run that
    nobody stopped."""
    store, database = client.folder / "store", client.folder / "shared.db"
    shutil.copy(migrated_db, database)
    job = _own_code(client.folder, BRAKE.format(brake=brake))
    local = client("run", job, "--pool", "local", "--tracking-uri", "none", "-q")
    assert local.returncode == 0, local.stderr
    brake.touch()
    where = ("--store", str(store), "--tracking-uri", f"sqlite:///{database}")
    sent = client.on(nodes, "submit", job, *where, "--no-wait")
    assert sent.returncode == 0, sent.stderr
    id = sent.stdout.strip()

    following = client.begun(nodes, "logs", "-f", id)
    assert following.stdout is not None
    while not (line := following.stdout.readline()).startswith("run  "):
        assert line, "the log ended before there was a run"
    following.send_signal(signal.SIGINT)
    _, stderr = following.communicate()
    assert (following.returncode, "Traceback" in stderr) == (130, False), stderr
    assert f"{id} goes on" in stderr

    run = find_run(store, "latest")
    while not list((run.path / "journal").rglob("*.jsonl")):
        time.sleep(0.05)
    stopped = client.on(nodes, "stop", id)
    assert stopped.returncode == 0, stopped.stderr
    (hint,) = [
        line for line in stopped.stderr.splitlines() if f"{id} is stopped; go on with: " in line
    ]
    assert f"go on with: raysearch resume {run.path} --address {nodes.address}" in hint
    assert any('"interrupted"' in p.read_text() for p in (run.path / "journal").rglob("*.jsonl"))
    mirrored = _mlflow_run(f"sqlite:///{database}", find_run(store, "latest").info.tracking_run_id)
    assert (mirrored.info.status, mirrored.data.tags["raysearch.submission_id"]) == ("KILLED", id)
    assert client.on(nodes, "logs", "-f", id).returncode == 130

    brake.unlink()
    resumed = client.on(nodes, *shlex.split(hint.split("go on with: raysearch ")[1]))
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    expected = client.json("results", "latest", "-o", "json")
    assert client.json("results", "latest", "--store", str(store), "-o", "json") == expected
    newest = json.loads(client.on(nodes, "status", "-o", "json").stdout)
    assert (newest["run"], newest["status"]) == (run.info.id, "SUCCEEDED")
    assert not _spilled(nodes, store, database)


def _spilled(nodes: TwoNodes, store: Path, database: Path) -> list[str]:
    """Files of a run and of its MLflow that hold a secret."""
    return [
        str(p)
        for p in (*store.rglob("*"), database)
        if p.is_file() and _holds(p, SECRET, nodes.token)
    ]


@pytest.mark.slow
def test_the_drivers_exit_code_is_handed_through(nodes: TwoNodes, client: Client) -> None:
    """A model of which one layer cannot be written (3), a problem that takes no such option (2)."""
    job = _own_code(client.folder, BREAKS)
    where = ("--store", str(client.folder / "store"), "--tracking-uri", "none")
    failed = client.on(nodes, "submit", job, *where)
    assert failed.returncode == 3, failed.stdout + failed.stderr
    assert "more than --fail-on-error" in failed.stdout
    own = ("--runtime", "installed")  # the nodes' own raysearch
    refused = client.on(nodes, "submit", job, "--set=problem.options={symbol: 3}", *own, *where)
    assert refused.returncode == 2
    assert "problem.options" in refused.stdout
    assert "Traceback" not in refused.stdout


def _own_code(folder: Path, changes: str) -> str:
    """A job with its network and its problem in files beside it; the network's file changes the
    engine as well."""
    net = (ROOT / "jobs/models/hierarchical_equality.py").read_text()
    (folder / "net.py").write_text(net + changes)
    (folder / "mine.py").write_text(OWN_PROBLEM)
    job = yaml.safe_load((ROOT / "jobs/hierarchical_equality_handcrafted.yaml").read_text())
    job["model"]["path"], job["problem"]["use"] = "net.py:handcrafted", "mine.py:problem"
    job["pairs"] = {"test": 32, "fit": 0, "holdout": 8}
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    return "job.yaml"


OWN_PROBLEM = """
from raysearch.problems import hierarchical_equality

def problem(symbols=20, dimensions=4):
    return hierarchical_equality.problem(symbols, dimensions)
"""

BRAKE = """
import time
import raysearch.engine.replica as replica
_build_row = replica.build_row
def build_row(*given):
    while Path("{brake}").exists():
        time.sleep(0.05)
    return _build_row(*given)
replica.build_row = build_row
"""
"""An engine that waits as long as a file is there."""

BREAKS = """
import raysearch.engine.replica as replica
_build_row = replica.build_row
def build_row(pair, intervention, *more):
    if intervention.units[0].site.layer == 0:
        raise OverflowError("this layer cannot be written")
    return _build_row(pair, intervention, *more)
replica.build_row = build_row
"""
"""An engine that cannot write one layer: an error of ours, as a bug would make it."""


@pytest.mark.slow
def test_who_is_not_let_in_or_asks_for_what_is_not_there_is_told_in_one_line(
    nodes: TwoNodes, client: Client
) -> None:
    _one_line(client.on(nodes, "jobs", RAY_AUTH_TOKEN="wrong"), 4, "token", "RAY_AUTH_TOKEN")
    _one_line(client.on(nodes, "jobs", RAY_AUTH_TOKEN="", RAY_AUTH_MODE="disabled"), 4, "token")
    _one_line(client.on(nodes, "stop", "nobody-knows-it"), 4, "there is no job nobody-knows-it")
    file = client.folder / "token"
    file.write_text(nodes.token)
    by_file = client.on(
        nodes, "jobs", "-o", "json", RAY_AUTH_TOKEN="", RAY_AUTH_TOKEN_PATH=str(file)
    )
    assert by_file.returncode == 0, by_file.stderr
    assert isinstance(json.loads(by_file.stdout), list)


@pytest.mark.slow  # it starts another server
def test_no_server_and_another_server_are_told_in_one_line(client: Client) -> None:
    _one_line(
        client("jobs", "--address", "http://127.0.0.1:9"),
        4,
        "127.0.0.1:9 cannot be reached",
        "refused",
    )
    _one_line(client("jobs", "--address", "ray://127.0.0.1:10001"), 4, "http://HEAD:8265")
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler
    ) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        done = client("status", "--address", f"127.0.0.1:{other.server_port}")
        other.shutdown()
    _one_line(done, 4, "does not answer as Ray's job server does")


def test_lines_are_whole_whatever_pieces_they_come_in() -> None:
    text = (
        "2026-11-23 15:35:47,997\tINFO job_manager.py:581 -- Runtime env is setting up.\n"
        "Running entrypoint for job x: python3 -m raysearch.cli run\n"
        "loading   a model\n\nLoading: 10%\rLoading: 90%\r\nthe end"
    )
    for size in (1, 7, 1000):
        pieces = [text[i : i + size] for i in range(0, len(text), size)]
        assert list(clean_lines(pieces)) == ["loading   a model", "", "Loading: 90%", "the end"]


@pytest.mark.slow
def test_files_named_like_modules_that_are_sent_along_take_the_place_of_none(
    nodes: TwoNodes, client: Client
) -> None:
    names = ("random", "torch", "types", "logging", "json", "numpy", "ray")
    for name in names:
        (client.folder / f"{name}.py").write_text(
            "raise RuntimeError('the user has a file of that name')"
        )
    (client.folder / "helper.py").write_text("from raysearch.problems.add_three import problem")
    (client.folder / "mine.py").write_text(
        "import helper\n\ndef problem():\n    return helper.problem()\n"
    )
    shutil.copytree(QUICKSTART.parent / "planted" / "model", client.folder / "model")
    job = yaml.safe_load(QUICKSTART.read_text()) | {
        "problem": {"use": "mine.py:problem"},
        "model": {"path": "model"},
    }
    (client.folder / "job.yaml").write_text(yaml.safe_dump(job))
    along = [flag for name in (*names, "helper") for flag in ("--include", f"{name}.py")]
    store = ("--store", str(client.folder / "store"), "--tracking-uri", "none")
    done = client.fresh("submit", "job.yaml", *SMALL, *along, *store, **client.variables(nodes))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Alignment: accepted hypotheses" in done.stdout
