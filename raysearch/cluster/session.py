"""Where Ray comes from: one of our own on this machine, or one that is there already; and whether
it can do what is asked.

Invariants: nothing here stops a Ray that we did not start (`ray stop` ends everybody's); one of our
own listens on loopback alone; no process of Ray's imports from the folder that we stand in, where a
`random.py` of the user's may lie.
"""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants
from ray.job_config import JobConfig

from raysearch.cluster.auth import keep_private
from raysearch.cluster.nodes import nodes
from raysearch.cluster.ray_watch import OfAddress, RayWatch, of_processes
from raysearch.cluster.shape import Node, PoolShape, room_in
from raysearch.errors import ClusterError, ResourcesError

_QUIET: dict[str, Any] = {
    "log_to_driver": False,
    "logging_level": logging.ERROR,
    "configure_logging": False,
}
_PATIENT = {
    "health_check_initial_delay_ms": 60_000,
    "health_check_period_ms": 10_000,
    "health_check_timeout_ms": 60_000,
    "health_check_failure_threshold": 30,
    "gcs_rpc_server_reconnect_timeout_s": 600,
}
"""Of a Ray of one node, which nobody could take over from: a busy machine that answers late is no
dead one (Ray's own: 3 s, 10 s, 5 times); that a process of it is dead its vigil says at once."""
_SAFE_PATH = "PYTHONSAFEPATH"
"""Of a Python process: it takes nothing from the folder it stands in."""
_RECONNECT = "RAY_gcs_rpc_server_reconnect_timeout_s"


@dataclass(frozen=True)
class Session:
    """A connection to Ray. `dashboard`: its address, where it has one; `embedded`: whether it ends
    with us; its nodes at first; `vigil`: watches whether it lives."""

    embedded: bool
    dashboard: str | None
    nodes: tuple[Node, ...]
    vigil: RayWatch

    @property
    def gpus(self) -> float:
        """The most that a node has."""
        return max((n.resources.get("GPU", 0.0) for n in self.nodes), default=0.0)


@contextmanager
def ray_session(
    address: str | None, dashboard: bool = True, files: Path | None = None
) -> Iterator[Session]:
    """Connects to `address`, or starts a Ray on this machine that ends with us (None).

    `files`: a folder whose `files/` the workers find where they stand. Raises: ClusterError where
    `address` cannot be reached.
    """
    # Workers without a GPU keep the device variables as they are; Ray warns of another default
    # otherwise.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is not None:
        check_reachable(address)
    keep_private(make=address is None)
    term = signal.getsignal(signal.SIGTERM)
    try:
        if address is None:
            context = _start(dashboard)
        else:
            context = ray.init(
                address,
                **_QUIET,
                job_config=_job_config(),
                runtime_env=None if files is None else _with_files(files),
            )
    except (
        Exception
    ) as e:  # Ray raises what it likes here, bare Exception for a start that took too long among it
        where = address or "this machine"
        raise ClusterError(
            f"Ray at {where} cannot be reached ({' '.join(str(e).split())[:300]}); is it up? "
            "Where it asks for a token, set RAY_AUTH_MODE=token (and RAY_AUTH_TOKEN, if it was "
            "started on another machine)"
        ) from e
    if threading.current_thread() is threading.main_thread():
        signal.signal(
            signal.SIGTERM, term
        )  # Ray's own ends a driver with 15, before it has said anything
    vigil = _vigil(address is None)
    try:
        url = context.dashboard_url or None
        yield Session(address is None, f"http://{url}" if url else None, tuple(nodes()), vigil)
    finally:
        vigil.close()
        ray.shutdown()


def _start(dashboard: bool) -> Any:
    """A Ray of our own: on loopback alone, as where Ray makes no clusters (macOS), and patient with
    a busy machine."""
    clusters, safe = ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(_SAFE_PATH)
    # Ray's only switch for all its servers: an address of 127.0.0.1 that it is given it turns into
    # the machine's own (2.60).
    ray_constants.ENABLE_RAY_CLUSTER = False
    os.environ[_SAFE_PATH] = "1"
    try:
        return ray.init(
            "local",
            include_dashboard=dashboard,
            dashboard_host="127.0.0.1",
            job_config=_job_config(),
            _system_config=dict(_PATIENT),  # Ray writes into it
            **_QUIET,
        )
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = clusters
        if safe is None:
            del os.environ[_SAFE_PATH]
        else:
            os.environ[_SAFE_PATH] = safe


class _NoFolders(list[str]):
    """Folders that workers would import from before all others: the driver's own and its script's.
    Ours need none of them."""

    def extend(self, _: object) -> None:
        """Stays empty."""


def _job_config() -> JobConfig:
    config = JobConfig()
    config._py_driver_sys_path = _NoFolders()  # Ray has no public way to leave them out
    return config


def _vigil(embedded: bool) -> RayWatch:
    if embedded:
        children = ray._private.worker._global_node.all_processes
        watched = {name: children[name][0].process for name in ("gcs_server", "raylet")}
        return RayWatch(of_processes(watched))
    seconds = float(os.environ.get(_RECONNECT, "60"))  # after so many Ray ends this process
    address = ray.get_runtime_context().gcs_address
    return RayWatch(OfAddress(address, 0.75 * seconds), stuck=0.1 * seconds)


def _with_files(folder: Path) -> dict[str, Any]:
    """The runtime environment of workers that stand in a copy of `folder`, of which there is
    `files/` alone."""
    others = [
        f"/{path.name}" for path in folder.iterdir() if path.name != "files"
    ]  # Ray takes no "all but"
    return {"working_dir": str(folder), "excludes": others}


def check_reachable(address: str, seconds: float = 5) -> None:
    """Raises: ClusterError where nothing answers. Ray itself tries a dead address for a minute and
    more, and talks of its inner servers."""
    if address.startswith(("http://", "https://")):
        raise ClusterError(
            f"{address} is the address of a job server; `raysearch submit --address` takes it, a "
            f"driver here joins a cluster at HOST:PORT "
            "(6379, as `ray start --head` prints it)"
        )
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return  # "auto", "local": Ray knows what to do
    try:
        socket.create_connection((host, int(port)), timeout=seconds).close()
    except OSError as e:
        raise ClusterError(
            f"Ray at {address} cannot be reached ({e.strerror or e}); is it up? `ray start --head` "
            f"prints its address"
        ) from e


def check_fits(session: Session, shape: PoolShape) -> None:
    """Raises: ResourcesError where a Ray that cannot grow lacks what `shape` asks."""
    replicas = 1 if shape.replicas == "auto" else shape.replicas
    here = {name: sum(n.resources.get(name, 0.0) for n in session.nodes) for name in shape.each}
    for name, each in shape.each.items():
        if replicas * each > here[name]:
            raise ResourcesError(
                f"resources: {replicas} replica{'s' * (replicas > 1)} of {each:g} {name} need "
                f"{replicas * each:g} {name}s, this Ray has "
                f"{here[name]:g}; lower it (resources.replicas: auto takes what fits), or use a "
                f"larger cluster (raysearch run --address)"
            )
    if shape.labels and not room_in(session.nodes, replace(shape, bytes=0)):
        raise ResourcesError(
            f"resources.labels: {dict(shape.labels)} asked, and this machine's own Ray has no such "
            f"node; leave them out, or use a "
            "cluster that has (raysearch run --address)"
        )
