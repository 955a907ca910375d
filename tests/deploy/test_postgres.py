"""The MLflow server of deploy/ for real: PostgreSQL 15 with a password, MLflow with passwords, a
search that is mirrored to it."""

import os
import secrets
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.conftest import QUICKSTART, ROOT, Shell
from tests.deploy.processes import answers, as_user, find, folder_of, missing, running, servant
from tests.ports import free_port

PROGRAMS = ("initdb", "postgres")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(missing(*PROGRAMS)),
        reason=f"PostgreSQL is not here (Debian: postgresql): no {missing(*PROGRAMS)}",
    ),
    pytest.mark.timeout(900),
]


@dataclass(frozen=True)
class Server:
    """An MLflow server. `environment`: what a client needs to be let in."""

    uri: str
    environment: dict[str, str]


@contextmanager
def postgres(password: str, logs: Path) -> Iterator[int]:
    """The port of a PostgreSQL of our own with a database `mlflow`, which asks for `password`."""
    user = servant("postgres")
    with folder_of(user) as folder:
        given = folder / "password"
        given.write_text(password)
        given.chmod(0o644)  # its folder is the server's alone
        data = folder / "data"
        subprocess.run(
            [str(find("initdb")), "--pgdata", data, "--username=mlflow", "--auth=scram-sha-256", f"--pwfile={given}", "--no-sync"],
            check=True, capture_output=True, cwd=folder, **as_user(user),
        )  # fmt: skip
        port = free_port()
        command = [
            str(find("postgres")),
            "-D",
            str(data),
            "-p",
            str(port),
            "-k",
            str(folder),
            "-c",
            "fsync=off",
        ]
        with running(
            command, logs / "postgres.log", lambda: answers(port), cwd=folder, **as_user(user)
        ):
            yield port


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """As deploy/kuberay/base/mlflow.yaml starts it: the same flags, the same file of who may do
    what, the secrets by variable."""
    logs = tmp_path_factory.mktemp("logs")
    inside, outside = secrets.token_hex(16), secrets.token_hex(16)
    with postgres(inside, logs) as database:
        where = f"127.0.0.1:{database}/mlflow"
        _create_database(database, inside)
        auth = logs / "basic_auth.ini"
        text = (ROOT / "deploy" / "kuberay" / "base" / "basic_auth.ini").read_text()
        auth.write_text(text.replace("raysearch-postgres:5432/mlflow", where))
        port = free_port()
        command = [
            Path(sys.executable).with_name("mlflow"), "server", "--app-name=basic-auth", "--host=127.0.0.1", f"--port={port}",
            "--workers=1",
            f"--backend-store-uri=postgresql+psycopg2://mlflow@{where}", f"--artifacts-destination={logs / 'artifacts'}",
        ]  # fmt: skip
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")},
            "PGPASSWORD": inside,
            "MLFLOW_AUTH_CONFIG_PATH": str(auth),
            "MLFLOW_AUTH_ADMIN_USERNAME": "raysearch",
            "MLFLOW_AUTH_ADMIN_PASSWORD": outside,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        uri = f"http://127.0.0.1:{port}"
        with running(
            list(map(str, command)),
            logs / "mlflow.log",
            lambda: _healthy(uri),
            env=environment,
            cwd=logs,
        ):
            yield Server(
                uri, {"MLFLOW_TRACKING_USERNAME": "raysearch", "MLFLOW_TRACKING_PASSWORD": outside}
            )


def test_a_search_is_mirrored_to_mlflow_on_postgresql(
    server: Server, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = (
        "--pool",
        "local",
        "--set",
        "pairs.test=64",
        "--set",
        "space.layers=[1]",
        "--tracking-uri",
        server.uri,
    )
    done = shell("run", str(QUICKSTART), *flags, **server.environment)
    assert done.returncode == 0, done.stderr
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    from mlflow import MlflowClient

    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name("raysearch/quickstart")
    (run,) = client.search_runs([experiment.experiment_id], "tags.mlflow.parentRunId IS NULL")
    accepted = shell.json("results", "latest", "--accepted", "-o", "json")
    assert run.info.status == "FINISHED"
    assert accepted
    assert run.data.metrics["accepted"] == len(accepted)
    assert "job.yaml" in [f.path for f in client.list_artifacts(run.info.run_id)]
    kept = [p.read_text(errors="ignore") for p in (shell.folder / "runs").rglob("*.json*")]
    assert kept
    assert not [
        t
        for t in [*kept, done.stdout, done.stderr]
        if server.environment["MLFLOW_TRACKING_PASSWORD"] in t
    ]


def test_mlflow_lets_in_nobody_without_the_password(server: Server) -> None:
    asked = urllib.request.Request(f"{server.uri}/api/2.0/mlflow/experiments/search?max_results=1")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(asked, timeout=30)
    assert refused.value.code == 401
    refused.value.close()


def _create_database(port: int, password: str) -> None:
    import psycopg2

    connection = psycopg2.connect(
        host="127.0.0.1", port=port, user="mlflow", password=password, dbname="postgres"
    )
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE mlflow")
    finally:
        connection.close()
    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(
            host="127.0.0.1", port=port, user="mlflow", password="another", dbname="mlflow"
        )


def _healthy(uri: str) -> bool:
    try:
        with urllib.request.urlopen(f"{uri}/health", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False
