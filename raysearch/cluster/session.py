"""Where Ray comes from: one of our own on this machine, or one that is there already; and whether it can do what is asked.

Invariants: nothing here stops a Ray that we did not start (`ray stop` ends everybody's).
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

from raysearch.cluster.nodes import nodes
from raysearch.cluster.shape import Node, Shape, room_in
from raysearch.errors import ClusterError, ResourcesError


@dataclass(frozen=True)
class Session:
    """A connection to Ray. `dashboard`: its address, where it has one; `embedded`: whether it ends with us; its nodes at first."""

    embedded: bool
    dashboard: str | None
    nodes: tuple[Node, ...]

    @property
    def gpus(self) -> float:
        """The most that a node has."""
        return max((n.resources.get("GPU", 0.0) for n in self.nodes), default=0.0)


@contextmanager
def ray_session(address: str | None, dashboard: bool = True, files: Path | None = None) -> Iterator[Session]:
    """Connects to `address`, or starts a Ray on this machine that ends with us (None).

    `files`: a folder whose `files/` the workers find where they stand. Raises: ClusterError where `address` cannot be reached.
    """
    # Workers without a GPU keep the device variables as they are; Ray warns of another default otherwise.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is not None:
        check_reachable(address)
    term = signal.getsignal(signal.SIGTERM)
    try:
        if address is None:
            context = ray.init(
                "local",
                include_dashboard=dashboard,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=False,
            )
        else:
            context = ray.init(
                address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=False,
                runtime_env=None if files is None else _with_files(files),
            )
    except Exception as e:  # Ray raises what it likes here, bare Exception for a start that took too long among it
        where = address or "this machine"
        raise ClusterError(
            f"Ray at {where} cannot be reached ({' '.join(str(e).split())[:300]}); is it up? "
            "Where it asks for a token, set RAY_AUTH_MODE=token (and RAY_AUTH_TOKEN, if it was started on another machine)"
        ) from e
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, term)  # Ray's own ends a driver with 15, before it has said anything
    try:
        url = context.dashboard_url or None
        yield Session(address is None, f"http://{url}" if url else None, tuple(nodes()))
    finally:
        ray.shutdown()


def _with_files(folder: Path) -> dict[str, Any]:
    """The runtime environment of workers that stand in a copy of `folder`, of which there is `files/` alone."""
    others = [f"/{path.name}" for path in folder.iterdir() if path.name != "files"]  # Ray takes no "all but"
    return {"working_dir": str(folder), "excludes": others}


def check_reachable(address: str, seconds: float = 5) -> None:
    """Raises: ClusterError where nothing answers. Ray itself tries a dead address for a minute and more, and talks of its inner servers."""
    if address.startswith(("http://", "https://")):
        raise ClusterError(
            f"{address} is the address of a job server; `raysearch submit --address` takes it, a driver here joins a cluster at HOST:PORT "
            "(6379, as `ray start --head` prints it)"
        )
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return  # "auto", "local": Ray knows what to do
    try:
        socket.create_connection((host, int(port)), timeout=seconds).close()
    except OSError as e:
        raise ClusterError(
            f"Ray at {address} cannot be reached ({e.strerror or e}); is it up? `ray start --head` prints its address"
        ) from e


def check_fits(session: Session, shape: Shape) -> None:
    """Raises: ResourcesError where a Ray that cannot grow lacks what `shape` asks."""
    replicas = 1 if shape.replicas == "auto" else shape.replicas
    here = {name: sum(n.resources.get(name, 0.0) for n in session.nodes) for name in shape.each}
    for name, each in shape.each.items():
        if replicas * each > here[name]:
            raise ResourcesError(
                f"resources: {replicas} replica{'s' * (replicas > 1)} of {each:g} {name} need {replicas * each:g} {name}s, this Ray has "
                f"{here[name]:g}; lower it (resources.replicas: auto takes what fits), or use a larger cluster (raysearch run --address)"
            )
    if shape.labels and not room_in(session.nodes, replace(shape, bytes=0)):
        raise ResourcesError(
            f"resources.labels: {dict(shape.labels)} asked, and this machine's own Ray has no such node; leave them out, or use a "
            "cluster that has (raysearch run --address)"
        )
