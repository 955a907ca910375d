"""A pool of one replica in this process: no Ray, the same answers.

Invariants: a task runs when the driver waits; what raises as a whole is told as Failed, never lost.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

import torch

from raysearch.cluster.replica_spec import (
    NOTHING,
    OnUsage,
    ReplicaSpec,
    check_answers,
    failed_whole,
    unheard,
)
from raysearch.core.events import Event, Opened, Task
from raysearch.core.model_source import ModelSource
from raysearch.core.records import Snapshot
from raysearch.engine.execution.usage import UsageMeter
from raysearch.engine.loading.factory import load_module
from raysearch.engine.loading.load import load
from raysearch.engine.networks.network import LoadedNetwork
from raysearch.engine.replica import Replica
from raysearch.errors import ResourcesError

WORKER = "local-0"
Load = Callable[[], LoadedNetwork]


class LocalPool:
    """One replica in this process. `load`: gives the model, where it is not read anew."""

    def __init__(
        self,
        work: ReplicaSpec,
        device: str = "cpu",
        on_usage: OnUsage = unheard,
        load: Load | None = None,
    ) -> None:
        self._work = work
        self._load = load
        self._on_usage = on_usage
        self._device = device
        self._replica: Replica | None = None
        self._waiting: list[tuple[Task, Mapping[str, bytes]]] = []

    def open(self) -> Opened:
        """Loads the model and encodes the pairs. Raises: ModelError, PairsError."""
        self._replica = open_replica(self._work, WORKER, self._device, load=self._load)
        self._on_usage(WORKER, None, self._replica.usage())
        return self._replica.opened

    @property
    def free(self) -> int:
        return 1 - len(self._waiting)

    def submit(self, task: Task, tensors: Mapping[str, bytes] = NOTHING) -> None:
        assert self.free, "no worker is idle"
        self._waiting.append((task, tensors))

    def wait(self) -> list[Event]:
        assert self._replica is not None, "open the pool first"
        assert self._waiting, "nothing is out"
        task, tensors = self._waiting.pop()
        try:
            events = self._replica.do(task, tensors)
        except Exception as e:  # noqa: BLE001  (whatever a task raises is told to the search, which splits it)
            return [failed_whole(task, e, WORKER)]
        self._on_usage(WORKER, task, self._replica.usage())
        check_answers(task, events)
        return events

    def on_lost(self, say: Callable[[], None]) -> None:
        """There is nothing that it could lose."""

    def show(self, run: str, snapshot: Snapshot) -> None:
        """There is no port to show it at."""

    def close(self) -> None:
        self._replica = None


def open_replica(
    spec: ReplicaSpec, worker: str, device: str, node: str = "", load: Load | None = None
) -> Replica:
    """A replica of the run's model (read by `load`, where that is given), with its pairs encoded.
    Raises: ModelError, PairsError."""
    meter = UsageMeter()
    with meter.phase("load"):
        loaded = _load(spec.model, device) if load is None else load()
    return Replica(
        loaded,
        spec.pairs,
        spec.positions,
        spec.variables,
        worker,
        node,
        spec.settings,
        spec.components,
        meter,
    )


def _load(source: ModelSource, device: str) -> LoadedNetwork:
    if source.is_factory:
        return load_module(source, device)
    return load(source if device == "cuda" else replace(source, device_map=None), device)


def device_here(gpus: float | Literal["auto"]) -> str:
    """ "cuda" or "cpu", for a job's resources.gpus in this process. Raises: ResourcesError where a
    GPU is asked and none is there."""
    if gpus == 0:
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if gpus == "auto":
        return "cpu"
    raise ResourcesError(
        f"resources.gpus: {gpus:g} asked, and this machine has no GPU that torch can use; give 0 "
        f"or auto"
    )
