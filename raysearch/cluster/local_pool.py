"""A pool of one replica in this process: no Ray, the same answers.

Invariants: a task runs when the driver waits; what raises as a whole is told as Failed, never lost.
"""

from collections.abc import Callable, Mapping
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
from raysearch.core.records import Snapshot
from raysearch.engine.encoding.prompt_format import PromptFormat
from raysearch.engine.loading.factory import FactorySource
from raysearch.engine.loading.load import ModelSource
from raysearch.engine.model_runner import RunnerSettings
from raysearch.engine.networks.network import NetworkSource
from raysearch.engine.replica import Replica
from raysearch.engine.training.recipe import Recipe
from raysearch.errors import ResourcesError

WORKER = "local-0"


class LocalPool:
    """One replica in this process. `source`: the model, where it is not read anew."""

    def __init__(
        self,
        work: ReplicaSpec,
        device: str = "cpu",
        on_usage: OnUsage = unheard,
        source: NetworkSource | None = None,
    ) -> None:
        self._work = work
        self._source = source
        self._on_usage = on_usage
        self._device = device
        self._replica: Replica | None = None
        self._waiting: list[tuple[Task, Mapping[str, bytes]]] = []

    def open(self) -> Opened:
        """Loads the model and encodes the pairs. Raises: ModelError, PairsError."""
        self._replica = open_replica(self._work, WORKER, self._device, source=self._source)
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
    work: ReplicaSpec, worker: str, device: str, node: str = "", source: NetworkSource | None = None
) -> Replica:
    """A replica of the run's model (or of `source`), with its pairs encoded. Raises: ModelError,
    PairsError."""
    capture_bytes = None if work.memory is None else int(work.memory * 2**30)
    return Replica.open(
        source or _named(work, device),
        work.pairs,
        work.positions,
        work.variables,
        worker=worker,
        device=device,
        node=node,
        settings=RunnerSettings(
            work.rows,
            capture_bytes,
            work.cpus,
            recipe=Recipe(**work.recipe) if work.recipe else None,
            files=work.files,
            scores=work.scores,
        ),
        components=work.components,
    )


def _named(work: ReplicaSpec, device: str) -> NetworkSource:
    """The source of the model that the work names."""
    if work.factory:
        return FactorySource(work.model, work.dtype)
    device_map = work.device_map if device == "cuda" else None
    return ModelSource(
        work.model,
        work.revision,
        work.dtype,
        device_map,
        work.trust_remote_code,
        PromptFormat(**work.wording),
    )


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
