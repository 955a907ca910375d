"""The process that holds a replica: an actor class without Ray in it.

Invariants: it loads in `open`, not when it is made, so that a model that cannot be loaded is told
apart from a worker that died.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass

from raysearch.cluster.replica_spec import ReplicaSpec
from raysearch.core.events import Event, Opened, Task
from raysearch.engine.execution.usage import Usage


@dataclass(frozen=True, slots=True)
class WorkerLocation:
    """Where an actor is: its node, its process there."""

    node: str
    pid: int


@dataclass(frozen=True, slots=True)
class ReplicaReady:
    """A replica that has loaded: what it knows, the `digest` of model and encoding (equal for all),
    what loading took.

    `said`: why it runs on the CPU, though it was given a GPU.
    """

    opened: Opened
    digest: str
    usage: Usage
    said: str | None = None


class Worker:
    """Holds one replica and does one task after the other. `or_cpu`: where torch cannot use the GPU
    that it was given."""

    def __init__(self, name: str, or_cpu: bool = False) -> None:
        self._name = name
        self._or_cpu = or_cpu

    def __repr__(self) -> str:
        """What Ray puts before its log lines, and beside its name on the dashboard."""
        return self._name

    def place(self) -> WorkerLocation:
        """Where it is."""
        import ray

        return WorkerLocation(ray.get_runtime_context().get_node_id(), os.getpid())

    def open(self, work: ReplicaSpec) -> ReplicaReady:
        """Loads the model, encodes the pairs. Raises: ModelError, PairsError; ResourcesError for a
        GPU that torch cannot use."""
        import ray

        from raysearch.cluster.local_pool import device_here, open_replica
        from raysearch.engine.encoding.encode import encoding_digest
        from raysearch.errors import ResourcesError

        said, device = None, "cpu"
        if given := ray.get_gpu_ids():
            try:
                device = device_here(len(given))
            except ResourcesError as e:
                said = f"Ray gave {self._name} GPU {given} of {os.uname().nodename}, which torch cannot use"
                if not self._or_cpu:
                    raise ResourcesError(
                        f"{said} (no driver, or a torch without CUDA); mend that, or set "
                        f"resources.gpus to 0 or auto"
                    ) from e
        self._replica = open_replica(
            work, self._name, device, ray.get_runtime_context().get_node_id()
        )
        opened = self._replica.opened
        seen = f"{opened.facts.digest} {encoding_digest(opened.encoded)}"
        return ReplicaReady(
            opened, hashlib.sha256(seen.encode()).hexdigest(), self._replica.usage(), said
        )

    def do(self, task: Task, tensors: Mapping[str, bytes]) -> tuple[list[Event], Usage]:
        """The events of a task, and what it took. `tensors`: what was fit that it needs, by digest."""
        events = self._replica.do(task, tensors)
        return events, self._replica.usage()
