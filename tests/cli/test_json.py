"""Every command speaks JSON: with `-o json` stdout has that alone, under keys that are listed."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner, Result

from raysearch.cli import json_output
from raysearch.cli.main import cli
from raysearch.cluster.jobs import NAME_KEY
from raysearch.report.results_table import results
from tests.cli.conftest import QUICKSTART, ROOT, Shell
from tests.command import environment
from tests.edited import unended
from tests.runner import finished

PRINTS = """
import sys
from raysearch.problems.add_three import problem as add_three

print("printed when it is imported")

def problem():
    print("printed when it is called")
    return add_three()
"""
TEXT = Path(__file__).read_text()


def leaves(command: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command that has none below, by the words that call it."""
    if isinstance(command, click.Group):
        for word, below in command.commands.items():
            yield from leaves(below, f"{name} {word}".strip())
    else:
        yield name, command


COMMANDS = dict(leaves(cli))


def listed(name: str) -> str:
    return "deploy render" if name.startswith("deploy render") else name


def called(*words: object) -> Result:
    return CliRunner().invoke(cli, list(map(str, words)), standalone_mode=False)


def spoken(*words: object) -> Any:
    """What a command prints as JSON, under the keys that are listed; nothing else is on its stdout."""
    done = called(*words, "-o", "json")
    if done.exception is not None:
        raise done.exception
    said = json.loads(done.stdout)
    name = " ".join(map(str, words[:2])) if words[0] == "deploy" else str(words[0])
    keys = tuple(json_output.JSON_KEYS[name][1])
    for document in [said] if isinstance(said, dict) else said:
        assert keys == ("...",) or tuple(document) == keys
    return said


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small search, to be looked at."""
    return finished.make(tmp_path_factory.mktemp("spoken"))


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_command_takes_json_and_its_keys_are_listed(name: str) -> None:
    (flag,) = [p for p in COMMANDS[name].params if "-o" in p.opts]
    assert isinstance(flag.type, click.Choice)
    assert "json" in flag.type.choices
    assert listed(name) in json_output.JSON_KEYS


def test_no_key_is_listed_of_a_command_that_is_none() -> None:
    assert set(json_output.JSON_KEYS) == set(map(listed, COMMANDS))


def test_each_command_is_tried_below() -> None:
    calls = re.findall(r'(?:spoken|called|shell\.json)\(\s*"(\w+)"|shell\.command, "(\w+)"', TEXT)
    tried = {*OF_RUNS, *(name for call in calls for name in call if name)}
    assert tried == {name.split()[0] for name in COMMANDS}


OF_RUNS = {"status": (), "report": ("--figures", "figures"), "export": (), "results": ()}


@pytest.mark.parametrize("name", sorted(OF_RUNS))
def test_a_command_on_a_run_says_its_keys_in_their_order(
    name: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    more: tuple[object, ...] = OF_RUNS[name]
    if name == "export":
        accepted = results(run, accepted=True)["hypothesis"][0].as_py()
        more = (accepted[:6], "--to", "it")
    said = spoken(name, run, *more)
    if name == "results":
        assert {tuple(row) for row in said} == {tuple(results(run).column_names)}
        assert len(said) == results(run).num_rows
        return
    assert said["run"] == str(run)


def test_what_is_written_is_said_and_is_there(tmp_path: Path) -> None:
    for said in (spoken("example", "--to", tmp_path / "e"), spoken("init", tmp_path / "i")):
        assert said["job"] in said["files"]
        assert all(Path(path).exists() for path in said["files"])
    plan = spoken("plan", tmp_path / "i" / "job.yaml")
    assert plan["name"] == "i"
    assert plan["hopeless"] is None


def test_a_copy_of_a_run_is_merged_repaired_and_listed(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / run.name
    shutil.copytree(run, copy)
    merged = spoken("compact", copy)
    assert {"table", "rows", "before", "after"} == set(merged["tables"][0])
    next((copy / "tables" / "hypotheses").glob("*.parquet")).write_bytes(b"damaged")
    assert [Path(f).parts[1] for f in spoken("repair", copy)["files"]] == ["hypotheses"]
    (line,) = spoken("runs", tmp_path)
    assert (line["id"], line["state"]) == (run.name, "done")


@pytest.mark.slow
def test_a_run_and_its_resumption_end_with_one_document_though_its_code_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(PRINTS)
    job = finished.JOB | {"problem": {"use": "mine.py:problem"}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    done = called("plan", "job.yaml", "-o", "json")
    assert json.loads(done.stdout)["hypotheses"] == 8
    assert "printed when it is called" in done.stderr
    said = spoken("run", "job.yaml", "--pool", "local", "--tracking-uri", "none")
    assert (said["status"], said["exit_code"], said["failed"]) == ("done", 0, 0)
    accepted = json.loads(called("results", "small", "--accepted", "-o", "json").stdout)
    assert [row["hypothesis"] for row in said["alignment"]] == [r["hypothesis"] for r in accepted]
    assert said["accepted"] == len(accepted) > 0
    assert Path(said["page"]).exists()
    unended(Path(said["run"]))
    again = spoken("resume", "latest", "--pool", "local")
    assert {**again, "exit_code": 0} == said


def test_where_it_listens_is_said_at_once(run: Path, shell: Shell) -> None:
    command = [*shell.command, "view", str(run), "-o", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as view:
        assert view.stdout is not None
        said = "".join(view.stdout.readline() for _ in range(4))
        view.terminate()  # as Ctrl-C
        assert view.stdout.read() == ""
    assert view.returncode == 0
    assert tuple(json.loads(said)) == ("address", "store")


@pytest.mark.slow
def test_a_run_is_told_to_a_tracker(run: Path, tmp_path: Path, migrated_db: Path) -> None:
    copy, database = tmp_path / run.name, tmp_path / "mlflow.db"
    shutil.copytree(run, copy)
    shutil.copy(migrated_db, database)
    said = spoken("sync", copy, "--tracking-uri", f"sqlite:///{database}")
    assert said["tracking_uri"] == f"sqlite:///{database}"
    assert spoken("status", copy)["tracking_run_id"] == said["tracking_run_id"] != ""


def test_what_is_exported_for_mib_is_imported(run: Path, tmp_path: Path) -> None:
    sent = spoken("export", run, "--format", "mib", "--to", tmp_path / "mib")
    assert sent["hypothesis"] is None
    folders = spoken("import", tmp_path / "mib", "--to", tmp_path / "units")["folders"]
    assert folders
    assert all(list(Path(folder).iterdir()) for folder in folders)


@pytest.mark.slow  # a real Ray
def test_a_search_on_a_ray_of_its_own_ends_with_one_document(shell: Shell) -> None:
    (shell.folder / "job.yaml").write_text(yaml.safe_dump(finished.JOB))
    said = shell.json("submit", "job.yaml", "--tracking-uri", "none", "-o", "json")
    assert tuple(said) == tuple(json_output.JSON_KEYS["submit"][1])
    assert (said["status"], said["exit_code"]) == ("done", 0)


class RayJobs(BaseHTTPRequestHandler):
    """Answers as Ray's job server does, of one job, which runs until it is told to stop."""

    status = "RUNNING"
    LOG = "run       /shared/runs/mine-1\nraysearch: interrupted; go on with: raysearch resume /shared/runs/mine-1\n"

    def do_GET(self) -> None:
        times = {"start_time": 1000, "end_time": None if self.status == "RUNNING" else 3000}
        job = {"type": "SUBMISSION", "submission_id": "raysearch-mine-1", "entrypoint": "x"}
        job |= {"status": type(self).status, "metadata": {NAME_KEY: "mine"}, **times}
        answers = {"version": {"version": "4", "ray_version": "2", "ray_commit": "x"}}
        answers |= {"raysearch-mine-1": job, "logs": {"logs": self.LOG}}
        name = self.path.rstrip("/").rpartition("/")[2]
        self._answer([job] if name == "jobs" else answers[name])

    def do_POST(self) -> None:
        type(self).status = "STOPPED"
        self._answer({"stopped": True})

    def _answer(self, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Says nothing on stderr."""


@pytest.fixture
def job_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of such a server."""
    monkeypatch.setattr(RayJobs, "status", "RUNNING")
    with ThreadingHTTPServer(("127.0.0.1", 0), RayJobs) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", address)  # which the client sets
        yield address
        server.shutdown()


def test_the_jobs_of_a_cluster_are_listed_read_and_stopped(job_server: str) -> None:
    at = ("--address", job_server)
    (job,) = spoken("jobs", *at)
    assert (job["id"], job["status"], job["run"]) == ("raysearch-mine-1", "RUNNING", None)
    done = called("logs", "mine", *at, "-o", "json")
    lines = [json.loads(line)["line"] for line in done.stdout.splitlines()]
    assert lines == RayJobs.LOG.splitlines()
    of_job = called("status", *at, "-o", "json")
    assert tuple(json.loads(of_job.stdout)) == (*job, "says")
    stopped = spoken("stop", "mine", *at)
    assert (stopped["status"], stopped["run"]) == ("STOPPED", "/shared/runs/mine-1")
    assert stopped["messages"][-1].startswith("raysearch-mine-1 is stopped")


@pytest.mark.parametrize("place", ["slurm", "kuberay", "compose", "ray"])
def test_rendered_files_are_said_with_their_text_or_where_they_were_written(
    place: str, tmp_path: Path
) -> None:
    said = spoken("deploy", "render", place, QUICKSTART, "--model-path", "/models/it")
    assert all(file["text"] for file in said["files"])
    if place != "ray":  # which builds a wheel
        written = spoken(
            "deploy", "render", place, QUICKSTART, "--model-path", "/models/it", "--to", tmp_path
        )
        assert all(Path(file["path"]).is_file() for file in written["files"])


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("results", "nosuch"), 2),
        (("plan", "nosuch.yaml"), 2),
        (("run", "nosuch.yaml"), 2),
        (("export", "nosuch", "a", "--to", "it"), 2),
        (("status", "nosuch", "--address", "http://127.0.0.1:9"), 4),
        (("jobs", "--address", "http://127.0.0.1:9"), 4),
        (("submit", str(QUICKSTART), "--address", "http://127.0.0.1:9", "--store", "/s"), 2),
        (("sync", "nosuch"), 2),
        (("resume", "nosuch"), 2),
    ],
)
def test_an_error_is_one_line_on_stderr_and_nothing_on_stdout(
    words: tuple[str, ...], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found, stdout, stderr = finished.raysearch(*words, "-o", "json")
    assert (found, stdout) == (code, "")
    assert stderr.splitlines()[-1].startswith("raysearch: ")


def test_the_schema_is_json_and_a_page_only_where_it_is_asked_for() -> None:
    assert "properties" in spoken("schema")
    assert called("schema", "--markdown").stdout.startswith("#")


def test_the_checks_of_a_machine_are_a_list(tmp_path: Path) -> None:
    checks = spoken("doctor", "--store", tmp_path, "--tracking-uri", "none")
    assert {tuple(check) for check in checks} == {("check", "ok", "message")}


def test_the_table_of_keys_stands_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "command-line.md").read_text()
    assert json_output.keys_page() in page
