"""A pool with one replica in this process: no Ray, the same results.

Invariants: a task runs when the driver waits; a task that raises becomes Failed, never Lost.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

import torch

from raysearch.cluster.replica_spec import (
    NO_TENSORS,
    OnUsage,
    ReplicaSpec,
    build_failed,
    check_answers,
    ignore_usage,
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
STEP_SECONDS = 1.0
"""Time between two looks at a training that goes on."""
Load = Callable[[], LoadedNetwork]


class LocalPool:
    """Runs one replica in this process. `load`: provides a model that is already in memory."""

    def __init__(
        self,
        spec: ReplicaSpec,
        device: str = "cpu",
        on_usage: OnUsage = ignore_usage,
        load: Load | None = None,
    ) -> None:
        self._spec = spec
        self._load = load
        self._on_usage = on_usage
        self._device = device
        self._replica: Replica | None = None
        self._submitted: list[tuple[Task, Mapping[str, bytes]]] = []
        self._meter = UsageMeter()
        self._not_shown: Exception | None = None

    def open(self) -> Opened:
        """Loads the model and encodes the pairs. Raises: ModelError, PairsError."""
        self._replica = open_replica(
            self._spec, WORKER, self._device, load=self._load, meter=self._meter
        )
        self._on_usage(WORKER, None, self._replica.usage())
        return self._replica.opened

    @property
    def free(self) -> int:
        return 1 - len(self._submitted)

    def submit(self, task: Task, tensors: Mapping[str, bytes] = NO_TENSORS) -> None:
        assert self.free, "no worker is idle"
        self._submitted.append((task, tensors))

    def wait(self) -> list[Event]:
        assert self._replica is not None, "open the pool first"
        assert self._submitted, "nothing is out"
        task, tensors = self._submitted.pop()
        try:
            events = self._replica.do(task, tensors)
        except Exception as e:  # (the search splits the task)
            if e is self._not_shown:
                raise
            return [build_failed(task, e, WORKER)]
        self._on_usage(WORKER, task, self._replica.usage())
        check_answers(task, events)
        return events

    def on_lost(self, say: Callable[[], None]) -> None:
        """Does nothing: no Ray can die here."""

    def on_step(self, show: Callable[[int, int, float], None]) -> None:
        """Has the training of a task shown as it goes on: `show` is called about once a second. Its
        errors are no failures of the task: `wait` raises them."""
        last = time.monotonic()

        def look(step: int, fits: int, loss: Callable[[], float]) -> None:
            nonlocal last
            if time.monotonic() - last >= STEP_SECONDS:
                mean = loss()
                try:
                    show(step, fits, mean)
                except Exception as error:
                    self._not_shown = error
                    raise
                last = time.monotonic()

        self._meter.on_step = look

    def show(self, run: str, snapshot: Snapshot) -> None:
        """Does nothing: there is no metrics port."""

    def close(self) -> None:
        self._replica = None


def open_replica(
    spec: ReplicaSpec,
    worker: str,
    device: str,
    node: str = "",
    load: Load | None = None,
    meter: UsageMeter | None = None,
) -> Replica:
    """Builds a replica: loads the model (with `load`, if given) and encodes the pairs.

    Raises: ModelError, PairsError.
    """
    meter = UsageMeter() if meter is None else meter
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
    """Returns "cuda" or "cpu" for a job's resources.gpus in this process.

    Raises: ResourcesError when a GPU is requested and none can be used.
    """
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
