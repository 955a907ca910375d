"""What chaos is brought to: a Ray of three nodes on one machine, an MLflow server, a small disk, a
driver; each of them real.

Invariants: nothing here touches a process that it did not start; whatever is started, mounted or
stopped ends with the `with`.
"""

import os
import re
import resource
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from tests.ports import free_port

ROOT = Path(__file__).parents[2]
DISK_BYTES = 48 * 2**20
"""A run of chaos.yaml takes under one MiB."""


class Nodes:
    """A Ray of so many nodes with a CPU each, that asks for a token. The first is its head, and is
    never lost."""

    def __init__(self, folder: Path, count: int) -> None:
        # Before Ray is imported. The folder keeps the address of this Ray out of the way of others;
        # short, for sockets.
        os.environ.update(
            RAY_TMPDIR=str(folder), RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(16)
        )
        # By default 15: beside tests that run too, replicas would hardly be given a core, and tasks
        # pass their deadlines.
        os.environ.update({"RAY_worker_niceness": "0"})
        from ray.cluster_utils import Cluster

        self._cluster = Cluster()
        for _ in range(count):
            self.add()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self) -> None:
        """One node more."""
        added(self._cluster, num_cpus=1, include_dashboard=False)

    def replicas(self) -> list[psutil.Process]:
        """The processes that hold a replica or load one, oldest first."""
        found = [child for node in self._nodes for child in _children(_raylet(node))]
        return sorted((p for p in found if _is_replica(p)), key=lambda p: (p.create_time(), p.pid))

    def lose(self, number: int) -> None:
        """Kills a raylet that is not the head's with SIGKILL; Ray's other processes of that node
        are swept up once it is gone."""
        nodes = [n for n in self._nodes if n is not self._cluster.head_node]
        node = nodes[number % len(nodes)]
        _raylet(node).kill()
        self._cluster.remove_node(node, allow_graceful=False)

    def close(self) -> None:
        self._cluster.shutdown()

    @property
    def _nodes(self) -> list[Any]:
        return list(self._cluster.list_all_nodes())


class Mlflow:
    """An MLflow server on SQLite, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._port = free_port()
        self.uri = f"http://127.0.0.1:{self._port}"
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begins to start, unless it runs; `wait` for it."""
        if self._server is not None:
            return
        command = [
            _beside("mlflow"),
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(self._port),
            "--workers",
            "1",
        ]
        command += ["--backend-store-uri", f"sqlite:///{self._folder / 'mlflow.db'}"]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        with (self._folder / "log").open("ab") as log:
            self._server = subprocess.Popen(
                command,
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self, seconds: float = 180.0) -> None:
        """Returns when the server answers."""
        until = time.monotonic() + seconds
        while not self.answers():
            assert time.monotonic() < until, (
                f"MLflow did not start within {seconds:.0f} s: {self._folder / 'log'}"
            )
            time.sleep(0.2)

    def answers(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            return bool(opener.open(f"{self.uri}/health", timeout=5).status == 200)
        except OSError:
            return False

    def kill(self) -> None:
        """SIGKILL to the server and its workers. Harmless twice."""
        if self._server is not None:
            os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait()
            self._server = None


class Disk:
    """A small disk of its own, where this process may mount one; else a folder (`mounted` says
    which)."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.path = path
        self._ballast = path / "ballast"
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(path)]
        self.mounted = subprocess.run(mount, check=False, capture_output=True).returncode == 0

    def fill(self, left: int) -> None:
        """Takes all but `left` bytes (rounded down to pages)."""
        with self._ballast.open("wb", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(bytes(2**16))
            except OSError:
                size = os.fstat(ballast.fileno()).st_size
            ballast.truncate(max(0, size - left))

    def free(self) -> None:
        self._ballast.unlink()

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.path)], check=True)


class Driver:
    """A `raysearch` process (by chaos_driver.py), its words in a file."""

    def __init__(
        self, folder: Path, orders: Path, deadline: float, arguments: Sequence[str]
    ) -> None:
        self._log = folder / f"driver-{time.monotonic_ns()}.log"
        command = [
            sys.executable,
            "-m",
            "tests.cluster.chaos_driver",
            str(orders),
            str(deadline),
            *arguments,
        ]
        clean = {k: v for k, v in os.environ.items() if not k.startswith("RAYSEARCH_")}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=folder, env={**clean, "PYTHONPATH": str(ROOT), "RAYSEARCH_CACHE": "off"},
                stdout=log, stderr=log,
            )  # fmt: skip

    @property
    def said(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    def wait(self, seconds: float) -> int:
        return self._process.wait(seconds)

    def kill(self) -> None:
        """SIGKILL. Harmless twice."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> bool:
        """SIGSTOP; whether it was still there. `go_on` undoes it."""
        if self.code is None:
            self._process.send_signal(signal.SIGSTOP)
        return self.code is None

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def allow(self, file_bytes: int | None) -> None:
        """From now on no file of it grows beyond so many bytes: a write there fails with EFBIG.
        None: as ever."""
        limit = resource.RLIM_INFINITY if file_bytes is None else file_bytes
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


class Closing:
    """Closes what it is given, last first, whatever happens."""

    def __init__(self) -> None:
        self._open: list[Any] = []

    def __enter__(self) -> Self:
        return self

    def take(self, what: Any) -> Any:
        self._open.append(what)
        return what

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        while self._open:
            what = self._open.pop()
            what.close() if hasattr(what, "close") else what.kill()


def added(cluster: Any, attempts: int = 4, **node: Any) -> Any:
    """A new node of a `ray.cluster_utils.Cluster`. Ray waits 30 s for it, whatever we say; beside
    other tests that may be too few."""
    try:
        return cluster.add_node(**node)
    except Exception as e:  # Ray raises nothing narrower
        if attempts == 1 or "timed out during startup" not in str(e):
            raise
        return added(cluster, attempts - 1, **node)


def _raylet(node: Any) -> psutil.Process:
    from ray._private import ray_constants

    return psutil.Process(node.all_processes[ray_constants.PROCESS_TYPE_RAYLET][0].process.pid)


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children())
    except psutil.NoSuchProcess:
        return []


def _is_replica(process: psutil.Process) -> bool:
    """Ray names an actor's process by its class; one that waits for work is ray::IDLE, and its own
    agents are children too."""
    try:
        title = " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False
    return title.startswith("ray::") and not re.match(r"ray::(IDLE|\w+Agent\b)", title)


def _beside(program: str) -> str:
    return str(Path(sys.executable).with_name(program))
