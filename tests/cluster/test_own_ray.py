"""The Ray of our own that a search starts: whom it listens to, what it imports, and what is said
when a part of it dies."""

import ipaddress
import os
import shlex
import signal
import stat
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from raysearch.cluster.auth import protect_token_file
from raysearch.cluster.ray_session import Session
from tests.cli.conftest import QUICKSTART, Shell
from tests.once import Once

pytestmark = pytest.mark.timeout(900)
NAMED_LIKE_MODULES = (
    "random",
    "torch",
    "types",
    "logging",
    "json",
    "typing",
    "numpy",
    "ray",
    "raysearch",
    "mlflow",
)
PROBLEM = """
import helper
from raysearch.problems.add_three import problem as given

def problem():
    assert helper.HERE
    return given()
"""


def _look() -> dict[str, Any]:
    """What a worker of Ray's sees. It gets a function within this one as code, for it can import no
    module of the tests."""

    def look() -> dict[str, Any]:
        import os
        import sys

        return {"path": sys.path, "cwd": os.getcwd()}

    seen: dict[str, Any] = ray.get(ray.remote(look).remote())
    return seen


@pytest.mark.slow  # a real Ray
def test_each_server_of_it_listens_on_loopback_alone(session: Session) -> None:
    _look()  # a worker is there too
    me = psutil.Process()
    found = []
    for process in [me, *me.children(recursive=True)]:
        for connection in process.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN:
                found.append((process.name(), connection.laddr.ip.removeprefix("::ffff:")))
    assert {name for name, _ in found} >= {"gcs_server", "raylet"}
    assert [(name, ip) for name, ip in found if not ipaddress.ip_address(ip).is_loopback] == []


@pytest.mark.slow  # a real Ray
def test_a_worker_imports_from_no_folder_of_the_driver(session: Session) -> None:
    seen = _look()
    first = seen["path"][
        : seen["path"].index(str(Path(os.__file__).parent))
    ]  # what takes the place of Python's own
    assert not {"", ".", os.getcwd(), seen["cwd"], str(Path(sys.argv[0]).parent)} & set(first)


def test_a_token_that_others_can_read_is_closed_and_a_new_one_is_closed_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    token = tmp_path / ".ray" / "auth_token"
    protect_token_file()
    assert not token.exists()
    before = os.umask(0)
    try:
        protect_token_file(make=True)
    finally:
        os.umask(before)
    secret = token.read_text()
    assert (stat.S_IMODE(token.stat().st_mode), stat.S_IMODE(token.parent.stat().st_mode)) == (
        0o600,
        0o700,
    )
    assert len(secret) == 64
    protect_token_file(make=True)
    assert caplog.messages == []
    token.chmod(0o644)
    protect_token_file()
    assert (stat.S_IMODE(token.stat().st_mode), token.read_text()) == (0o600, secret)
    (said,) = caplog.messages
    assert "others could read it" in said
    assert secret not in said


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A folder with a problem of the user's, what it imports, and files named like modules that
    everybody needs."""
    (tmp_path / "mine.py").write_text(PROBLEM)
    (tmp_path / "helper.py").write_text("HERE = True")
    for name in NAMED_LIKE_MODULES:
        (tmp_path / f"{name}.py").write_text(
            "raise RuntimeError('the user has a file of that name')"
        )
    job = QUICKSTART.read_text().replace("path: planted", f"path: {QUICKSTART.parent}/planted")
    job = job.replace("use: raysearch.problems.add_three", "use: mine.py:problem").replace(
        "options:", "# options:"
    )
    (tmp_path / "job.yaml").write_text(job)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["local", "ray"])
def test_files_named_like_modules_beside_a_job_take_the_place_of_none(
    beside: Path, shell: Shell, pool: str
) -> None:
    done = shell.fresh(
        "run", "job.yaml", "--pool", pool, "--tracking-uri", "none", "--set", "pairs.test=64"
    )
    assert done.returncode == 0, done.stderr
    assert "Alignment: accepted hypotheses" in done.stdout


SHORT = [
    f"--set={key}"
    for key in ("space.variables=[sum_ab]", "pairs.test=96", "test.max_pairs=96", "pairs.holdout=0")
]


@pytest.mark.slow
@pytest.mark.parametrize("part", ["gcs_server", "raylet"])
def test_a_part_of_it_that_dies_is_named_with_the_command_that_goes_on(
    tmp_path: Path, shell: Shell, once: Once, part: str
) -> None:
    slow = "--set=resources.rows=2"  # so that there is a middle
    driver = shell.begin("submit", str(QUICKSTART), "--tracking-uri", "none", *SHORT, slow)
    while not sum(f.stat().st_size for f in tmp_path.glob("runs/*/journal/*/*.jsonl")) > 1500:
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.02)
    (dies,) = [p for p in psutil.Process(driver.pid).children(recursive=True) if p.name() == part]
    dies.send_signal(signal.SIGKILL)
    _, said = driver.communicate()
    (run,) = (tmp_path / "runs").iterdir()
    assert driver.returncode == 4, said
    assert said.endswith(f"raysearch: failed; go on with: raysearch resume {run}\n")
    assert (
        f"raysearch: {part} of this search's own Ray (process {dies.pid}) was killed by signal 9"
        in said
    )
    command = shlex.split(said.rpartition("go on with: raysearch ")[2])
    done = shell(*command, *(["--pool", "local"] if part == "raylet" else []))
    assert done.returncode == 0, done.stderr
    assert _verdicts(shell, run) == _verdicts(shell, once.searched(QUICKSTART, *SHORT))


def _verdicts(shell: Shell, run: Path) -> dict[str, Any]:
    rows = shell.json("results", str(run), "-o", "json")
    return {row["hypothesis"]: (row["verdict"], row["n"], row["matches"]) for row in rows}
