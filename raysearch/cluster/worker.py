"""The process that holds a replica: an actor class without Ray in it.

Invariants: it loads in `open`, not when it is made, so that a model that cannot be loaded is told apart from a worker that died.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass

from raysearch.cluster.work import Work
from raysearch.engine.meter import Usage
from raysearch.search.events import Event, Opened, Task


@dataclass(frozen=True, slots=True)
class Ready:
    """A replica that has loaded: what it knows, the `digest` of model and encoding (equal for all), the node it stands on,
    what loading took."""

    opened: Opened
    digest: str
    node: str
    usage: Usage


class Worker:
    """Holds one replica and does one task after the other."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        """What Ray puts before its log lines, and beside its name on the dashboard."""
        return self._name

    def open(self, work: Work) -> Ready:
        """Loads the model, encodes the pairs. Raises: ModelError, PairsError."""
        import ray

        from raysearch.cluster.local_pool import open_replica
        from raysearch.engine.encode import encoding_digest

        node = ray.get_runtime_context().get_node_id()
        device = "cuda" if ray.get_gpu_ids() else "cpu"
        self._replica = open_replica(work, self._name, device, node)
        opened = self._replica.opened
        digest = hashlib.sha256(f"{opened.facts.digest} {encoding_digest(opened.encoded)}".encode()).hexdigest()
        return Ready(opened, digest, node, self._replica.usage())

    def do(self, task: Task, tensors: Mapping[str, bytes]) -> tuple[list[Event], Usage]:
        """The events of a task, and what it took. `tensors`: what was fit that it needs, by digest."""
        events = self._replica.do(task, tensors)
        return events, self._replica.usage()

    def pid(self) -> int:
        """The process id."""
        return os.getpid()
