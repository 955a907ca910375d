"""Where Ray comes from: one of our own on this machine, or one that is there already; and how many replicas fit.

Invariants: nothing here stops a Ray that we did not start (`ray stop` ends everybody's).
"""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from raysearch.errors import ClusterError, ResourcesError

GIB = 2**30


@dataclass(frozen=True)
class Session:
    """A connection to Ray. `dashboard`: its address, where it has one; `embedded`: whether it ends with us."""

    embedded: bool
    dashboard: str | None
    resources: Mapping[str, float]


@contextmanager
def ray_session(address: str | None, dashboard: bool = True, files: Path | None = None) -> Iterator[Session]:
    """Connects to `address`, or starts a Ray on this machine that ends with us (None).

    `files`: a folder whose `files/` the workers find where they stand. Raises: ClusterError where `address` cannot be reached.
    """
    # Workers without a GPU keep the device variables as they are; Ray warns of another default otherwise.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is not None:
        _check_reachable(address)
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
        yield Session(address is None, f"http://{url}" if url else None, ray.cluster_resources())
    finally:
        ray.shutdown()


def _with_files(folder: Path) -> dict[str, Any]:
    """The runtime environment of workers that stand in a copy of `folder`, of which there is `files/` alone."""
    others = [f"/{path.name}" for path in folder.iterdir() if path.name != "files"]  # Ray takes no "all but"
    return {"working_dir": str(folder), "excludes": others}


def _check_reachable(address: str) -> None:
    """Ray itself tries a dead address for a minute and more, and talks of its inner servers."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return  # "auto", "local": Ray knows what to do
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as e:
        raise ClusterError(
            f"Ray at {address} cannot be reached ({e.strerror or e}); is it up? `ray start --head` prints its address"
        ) from e


def replicas_that_fit(resources: Mapping[str, float], cpus: int, gpus: float, model_bytes: int) -> int:
    """How many replicas of `model_bytes` (files, in bytes) fit into `resources`, as Ray tells them: at least 1.

    A replica on CPU is reckoned at twice its files and 3 GiB: weights, the activations that it keeps (2 GiB), the libraries.
    """
    room = [resources.get("CPU", 1.0) // cpus]
    if gpus > 0:
        room.append(resources.get("GPU", 0.0) // gpus)
    elif "memory" in resources:
        room.append(resources["memory"] // (2 * model_bytes + 3 * GIB))
    return max(1, int(min(room)))


def check_fits(resources: Mapping[str, float], replicas: int, cpus: int, gpus: float) -> None:
    """Raises: ResourcesError where a Ray that cannot grow lacks what `replicas` ask."""
    for name, each in (("CPU", cpus), ("GPU", gpus)):
        have = resources.get(name, 0.0)
        if replicas * each > have:
            raise ResourcesError(
                f"resources: {replicas} replicas of {each:g} {name} need {replicas * each:g} {name}s, this Ray has {have:g}; "
                "lower resources.replicas (auto takes what fits), or use a larger cluster (raysearch run --address)"
            )
