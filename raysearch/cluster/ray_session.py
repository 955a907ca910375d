"""Connects to a Ray, or starts one on this machine, and checks that it has the resources a job
needs.

Invariants: this never stops a Ray that it did not start (`ray stop` would end everybody's); our own
listens on loopback alone; no process of Ray's imports from the current folder, where a user's
`random.py` may lie.
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

from raysearch.cluster.auth import protect_token_file
from raysearch.cluster.nodes import nodes
from raysearch.cluster.pool_shape import Node, PoolShape, room_in
from raysearch.cluster.ray_watch import AddressWatch, RayWatch, watch_processes
from raysearch.errors import ClusterError, ResourcesError

_QUIET: dict[str, Any] = {
    "log_to_driver": False,
    "logging_level": logging.ERROR,
    "configure_logging": False,
}
_TOLERANT_HEALTH_CHECKS = {
    "health_check_initial_delay_ms": 60_000,
    "health_check_period_ms": 10_000,
    "health_check_timeout_ms": 60_000,
    "health_check_failure_threshold": 30,
    "gcs_rpc_server_reconnect_timeout_s": 600,
}
"""Health checks of our own one-node Ray: a slow answer on a busy machine does not mean death.

Ray's defaults are 3 s, 10 s and 5 times. Nobody could take over from a dead process here, and
RayWatch notices its death at once.
"""
_SAFE_PATH = "PYTHONSAFEPATH"
"""Environment variable that keeps Python from importing from the current folder."""
_RECONNECT = "RAY_gcs_rpc_server_reconnect_timeout_s"


@dataclass(frozen=True)
class Session:
    """A connection to Ray.

    `embedded`: whether that Ray ends with this process; `dashboard`: its URL, if it has one;
    `nodes`: those it had at first; `watch`: notices its death.
    """

    embedded: bool
    dashboard: str | None
    nodes: tuple[Node, ...]
    watch: RayWatch

    @property
    def gpus(self) -> float:
        """The largest number of GPUs on one node."""
        return max((n.resources.get("GPU", 0.0) for n in self.nodes), default=0.0)


@contextmanager
def ray_session(
    address: str | None, dashboard: bool = True, files: Path | None = None
) -> Iterator[Session]:
    """Connects to the Ray at `address`, or (None) starts one on this machine that ends with the
    block.

    `files`: a folder whose `files/` is copied to each worker's current folder.

    Raises: ClusterError when `address` cannot be reached.
    """
    # Workers without a GPU keep the device variables; without this, Ray warns that its default
    # changes.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is not None:
        check_reachable(address)
    protect_token_file(make=address is None)
    term = signal.getsignal(signal.SIGTERM)
    try:
        if address is None:
            context = _start(dashboard)
        else:
            context = ray.init(
                address,
                **_QUIET,
                job_config=_job_config(),
                runtime_env=None if files is None else _files_environment(files),
            )
    except (
        Exception
    ) as e:  # Ray raises many types here, even a bare Exception when a start takes too long
        where = address or "this machine"
        raise ClusterError(
            f"Ray at {where} cannot be reached ({' '.join(str(e).split())[:300]}); is it up? "
            "Where it asks for a token, set RAY_AUTH_MODE=token (and RAY_AUTH_TOKEN, if it was "
            "started on another machine)"
        ) from e
    if threading.current_thread() is threading.main_thread():
        signal.signal(
            signal.SIGTERM, term
        )  # Ray's own handler ends a driver with 15 before it can say anything
    watch = _watch_ray(address is None)
    try:
        url = context.dashboard_url or None
        yield Session(address is None, f"http://{url}" if url else None, tuple(nodes()), watch)
    finally:
        watch.close()
        ray.shutdown()


def _start(dashboard: bool) -> Any:
    """Starts our own Ray on loopback alone, with health checks that tolerate a busy machine."""
    clusters, safe = ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(_SAFE_PATH)
    token_log = logging.getLogger("ray._private.authentication.authentication_token_setup")
    level = token_log.level
    token_log.setLevel(logging.ERROR)  # it says on each start that its token is asked for
    # Ray's only switch for all its servers: it replaces a given 127.0.0.1 by the machine's address
    # (2.60).
    ray_constants.ENABLE_RAY_CLUSTER = False
    os.environ[_SAFE_PATH] = "1"
    try:
        return ray.init(
            "local",
            include_dashboard=dashboard,
            dashboard_host="127.0.0.1",
            job_config=_job_config(),
            _system_config=dict(_TOLERANT_HEALTH_CHECKS),  # Ray modifies it
            **_QUIET,
        )
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = clusters
        token_log.setLevel(level)
        if safe is None:
            del os.environ[_SAFE_PATH]
        else:
            os.environ[_SAFE_PATH] = safe


class _NoFolders(list[str]):
    """An import path that stays empty, so that workers do not import from the driver's folders
    first."""

    def extend(self, _: object) -> None:
        """Ignores what Ray adds."""


def _job_config() -> JobConfig:
    config = JobConfig()
    config._py_driver_sys_path = _NoFolders()  # Ray has no public option for it
    return config


def _watch_ray(embedded: bool) -> RayWatch:
    if embedded:
        children = ray._private.worker._global_node.all_processes
        watched = {name: children[name][0].process for name in ("gcs_server", "raylet")}
        return RayWatch(watch_processes(watched))
    seconds = float(os.environ.get(_RECONNECT, "60"))  # Ray ends this process after so many seconds
    address = ray.get_runtime_context().gcs_address
    return RayWatch(AddressWatch(address, 0.75 * seconds), stuck=0.1 * seconds)


def _files_environment(folder: Path) -> dict[str, Any]:
    """Returns a runtime environment that copies only `files/` of `folder` to the workers."""
    others = [
        f"/{path.name}" for path in folder.iterdir() if path.name != "files"
    ]  # Ray has no "all but"
    return {"working_dir": str(folder), "excludes": others}


def check_reachable(address: str, seconds: float = 5) -> None:
    """Raises ClusterError when nothing answers at `address`.

    Ray itself would retry for over a minute, and then report its inner servers.
    """
    if address.startswith(("http://", "https://")):
        raise ClusterError(
            f"{address} is the address of a job server; `raysearch submit --address` takes it, a "
            "driver here joins a cluster at HOST:PORT (6379, as `ray start --head` prints it)"
        )
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return  # "auto", "local": Ray resolves them
    try:
        socket.create_connection((host, int(port)), timeout=seconds).close()
    except OSError as e:
        raise ClusterError(
            f"Ray at {address} cannot be reached ({e.strerror or e}); is it up? `ray start --head` "
            f"prints its address"
        ) from e


def check_fits(session: Session, shape: PoolShape) -> None:
    """Raises ResourcesError when a Ray that cannot grow lacks what `shape` requests."""
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
            "node; leave them out, or use a cluster that has (raysearch run --address)"
        )
