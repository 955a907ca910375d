"""A real Ray of two nodes on this machine, with token auth on: own ports, own folders, ended by its
own processes alone."""

import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cli.conftest import environment
from tests.ports import free_ports

START_SECONDS = 400.0


@dataclass(frozen=True)
class TwoNodes:
    """`address`: of its job server; `token`: what it asks for."""

    address: str
    token: str

    def get(self, path: str) -> str:
        """What the job server answers, as text."""
        request = urllib.request.Request(
            self.address + path, headers={"Authorization": f"Bearer {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return str(answer.read().decode())


@contextmanager
def two_nodes() -> Iterator[TwoNodes]:
    """Each node has a folder of its own, as on two machines: two nodes of one folder take each
    other's uploads away (Ray 2.60)."""
    head, dashboard, client, *agents = free_ports(5)
    token = secrets.token_hex(16)
    folders = [tempfile.mkdtemp(prefix="rs", dir="/tmp") for _ in range(2)]
    env = environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token, OMP_NUM_THREADS="1")
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    env.pop(
        "PYTHONPATH", None
    )  # the nodes are other machines: what they know of this tree, a job has to bring
    each = "--block --num-cpus=1 --object-store-memory=100000000 --disable-usage-stats --min-worker-port=0 --max-worker-port=0"
    starts = [
        f"--head --port={head} --dashboard-port={dashboard} --ray-client-server-port={client} "
        f"{each}",
        f"--address=127.0.0.1:{head} {each}",
    ]
    cluster = TwoNodes(f"http://127.0.0.1:{dashboard}", token)
    nodes: list[subprocess.Popen[bytes]] = []
    try:
        for i, (start, folder, agent) in enumerate(zip(starts, folders, agents, strict=True)):
            command = [
                "ray",
                "start",
                *start.split(),
                f"--temp-dir={folder}",
                f"--dashboard-agent-listen-port={agent}",
            ]
            with (Path(folder) / "start.log").open("wb") as log:
                nodes.append(
                    subprocess.Popen(
                        command, env=env, stdout=log, stderr=subprocess.STDOUT, cwd=folder
                    )
                )
            _until(cluster, i + 1, nodes[-1], Path(folder) / "start.log")
        yield cluster
    finally:
        for node in reversed(nodes):
            node.terminate()  # `--block` ends the processes of its own node, and no others
        for node in nodes:
            node.wait(timeout=60)
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def _until(cluster: TwoNodes, alive: int, node: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            if cluster.get("/nodes?view=summary").count('"state": "ALIVE"') >= alive:
                return
        except OSError:
            pass  # not up yet
        assert node.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.5)
