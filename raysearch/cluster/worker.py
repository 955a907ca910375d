"""The process that holds a replica, as an actor class that knows little of Ray.

Invariants: the model loads in `open`, not in the constructor, so that a load error is distinguished
from a dead worker.
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
    """The node and process of an actor."""

    node: str
    pid: int


@dataclass(frozen=True, slots=True)
class ReplicaReady:
    """A loaded replica: its facts, a `digest` of model and encoding (equal for all), and loading's
    cost.

    `warning`: why it runs on the CPU although it was given a GPU.
    """

    opened: Opened
    digest: str
    usage: Usage
    warning: str | None = None


class Worker:
    """Holds one replica and runs one task after the other.

    `or_cpu`: use the CPU when torch cannot use the assigned GPU.
    """

    def __init__(self, name: str, or_cpu: bool = False) -> None:
        self._name = name
        self._or_cpu = or_cpu

    def __repr__(self) -> str:
        """Returns the name that Ray shows before its log lines and on the dashboard."""
        return self._name

    def locate(self) -> WorkerLocation:
        """Returns its node and process."""
        import ray

        return WorkerLocation(ray.get_runtime_context().get_node_id(), os.getpid())

    def open(self, spec: ReplicaSpec) -> ReplicaReady:
        """Loads the model and encodes the pairs.

        Raises: ModelError, PairsError; ResourcesError for a GPU that torch cannot use.
        """
        import ray

        from raysearch.cluster.local_pool import device_here, open_replica
        from raysearch.engine.encoding.encode import encoding_digest
        from raysearch.errors import ResourcesError

        warning, device = None, "cpu"
        if gpus := ray.get_gpu_ids():
            try:
                device = device_here(len(gpus))
            except ResourcesError as e:
                warning = (
                    f"Ray gave {self._name} GPU {gpus} of {os.uname().nodename}, "
                    "which torch cannot use"
                )
                if not self._or_cpu:
                    raise ResourcesError(
                        f"{warning} (no driver, or a torch without CUDA); mend that, or set "
                        f"resources.gpus to 0 or auto"
                    ) from e
        self._replica = open_replica(
            spec, self._name, device, ray.get_runtime_context().get_node_id()
        )
        opened = self._replica.opened
        digests = f"{opened.facts.digest} {encoding_digest(opened.encoded)}"
        return ReplicaReady(
            opened, hashlib.sha256(digests.encode()).hexdigest(), self._replica.usage(), warning
        )

    def do(self, task: Task, tensors: Mapping[str, bytes]) -> tuple[list[Event], Usage]:
        """Runs a task; returns its events and what it used. `tensors`: trained ones it needs, by
        digest."""
        events = self._replica.do(task, tensors)
        return events, self._replica.usage()
