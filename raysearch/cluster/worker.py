"""The process that holds a replica: an actor class without Ray in it.

Invariants: it loads in `open`, not when it is made, so that a model that cannot be loaded is told apart from a worker that died.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass

from raysearch.cluster.parcel import Parcel, pack_events, unpack_task
from raysearch.cluster.work import Work
from raysearch.search.events import Event, Opened, Task


@dataclass(frozen=True, slots=True)
class Ready:
    """A replica that has loaded: what it knows, the `digest` of model and encoding (equal for all), the node it stands on."""

    opened: Opened
    digest: str
    node: str


class Worker:
    """Holds one replica and does one task after the other."""

    def __init__(self, name: str) -> None:
        self._name = name

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
        return Ready(opened, digest, node)

    def do(self, task: Task, tensors: Mapping[str, bytes]) -> list[Event]:
        """The events of a task. `tensors`: what was fit that it needs, by digest."""
        return self._replica.do(task, tensors)

    def run(self, parcel: Parcel) -> Parcel:
        """`do`, as it is called from another process."""
        return pack_events(self.do(*unpack_task(parcel)))

    def pid(self) -> int:
        """The process id."""
        return os.getpid()
