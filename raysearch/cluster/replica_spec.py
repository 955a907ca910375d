"""Defines what every replica is built from, and events for tasks that fail as a whole. Light: no
torch, no ray.

Invariants: a pool answers each task with events for all its items, or with one Lost or Failed; of
an intervention whose lease has ended, no items follow the Measured that is `stopped`.
"""

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from raysearch.causal import Pair
from raysearch.core.events import (
    Attributed,
    Event,
    Failed,
    Fitted,
    LossCause,
    Lost,
    Measured,
    Screened,
    Task,
)
from raysearch.core.model_source import ModelSource
from raysearch.core.runner_settings import DEFAULT_SETTINGS, RunnerSettings
from raysearch.engine.execution.usage import Usage

NO_TENSORS: Mapping[str, bytes] = MappingProxyType({})
"""The tensors of a task that needs none."""

OnUsage = Callable[[str, Task | None, Usage], None]
"""Called with a worker's name, its task (None: loading), and what it used."""


def ignore_usage(worker: str, task: Task | None, usage: Usage) -> None:
    """Ignores what workers use."""


@dataclass(frozen=True)
class ReplicaSpec:
    """Everything that a replica is built from: model, pairs, and how it runs.

    `positions`, `variables`, `components`: the names that interventions may use.
    """

    model: ModelSource
    pairs: tuple[Pair, ...]
    positions: tuple[str, ...]
    variables: tuple[str, ...]
    components: tuple[str, ...] = ("residual",)
    settings: RunnerSettings = DEFAULT_SETTINGS


def build_failed(task: Task, error: BaseException, worker: str, node: str = "") -> Failed:
    """Builds the event for a task that raised as a whole."""
    return Failed(
        task=task.id,
        intervention=None,
        block=None,
        error_type=type(error).__name__,
        message=" ".join(str(error).split()) or type(error).__name__,
        traceback="".join(traceback.format_exception(error)),
        node=node,
        worker=worker,
        attempt=task.attempt,
        group=task.keys,
        split=task.blocks[0].split,
        blocks=tuple(b.index for b in task.blocks),
    )


def lost(task: Task, cause: LossCause, worker: str, message: str) -> Lost:
    """Builds the event for a task whose worker was lost."""
    return Lost(
        task.id,
        cause,
        worker,
        message,
        task.keys,
        task.blocks[0].split,
        tuple(b.index for b in task.blocks),
    )


def check_answers(task: Task, events: Sequence[Event]) -> None:
    """Asserts that `events` settle every item of `task`; otherwise the search would hang."""
    if any(isinstance(e, Failed) and e.intervention is None for e in events):
        return
    failed = {e.intervention for e in events if isinstance(e, Failed)}
    if task.kind in ("screen", "attribute"):
        got = {(e.split, e.block) for e in events if isinstance(e, Screened | Attributed)}
        wanted = {(b.split, b.index) for b in task.blocks}
        assert got == wanted, (task.id, got, wanted)
        return
    if task.kind == "fit":
        trained = {e.key for e in events if isinstance(e, Fitted) and e.first == task.steps[0]}
        assert trained | failed == set(task.keys), (task.id, trained, failed)
        return
    measured = [e for e in events if isinstance(e, Measured)]
    done = {(e.intervention, e.block) for e in measured}
    ends = {e.intervention: e.block for e in measured if e.stopped}
    items = ((key, b.index) for key in task.keys if key not in failed for b in task.blocks)
    missing = {(key, at) for key, at in items if at <= ends.get(key, at)} - done
    assert not missing, (task.id, missing)
