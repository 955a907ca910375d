"""What every replica of a run is given, and how a whole task that raised is told. This file is light: no torch, no ray.

Invariants: a pool answers each task with events for all its items, or with one Lost or Failed.
"""

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from raysearch.causal import Pair
from raysearch.search.events import Event, Failed, Lost, Measured, Screened, Task


@dataclass(frozen=True)
class Work:
    """The model and the pairs of a run. `cpus`: threads of a replica; `rows`: rows of a forward pass.

    `device_map`: how a replica is spread over its GPUs; without one it stands on the CPU as a whole. `factory`: `model` names a
    function that makes it, and the pairs are of tensors.

    `components`: those that interventions may name. `memory`: GiB of a replica for activations that it keeps (None: as there is room).
    """

    model: str
    revision: str | None
    dtype: str
    pairs: tuple[Pair, ...]
    positions: tuple[str, ...]
    variables: tuple[str, ...]
    rows: int = 64
    cpus: int = 1
    components: tuple[str, ...] = ("residual",)
    memory: float | None = None
    device_map: str | None = None
    factory: bool = False


def group_of(task: Task) -> tuple[str, ...]:
    """The ids of a task's interventions."""
    return tuple(i.id for i in task.interventions)


def failed_whole(task: Task, error: BaseException, worker: str, node: str = "") -> Failed:
    """The event of a task that raised as a whole."""
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
        group=group_of(task),
        split=task.blocks[0].split,
        blocks=tuple(b.index for b in task.blocks),
    )


def lost(task: Task, cause: Literal["worker", "node", "deadline"], worker: str, message: str) -> Lost:
    """The event of a task whose worker went away."""
    return Lost(
        task.id, cause, worker, message, group_of(task), task.blocks[0].split, tuple(b.index for b in task.blocks)
    )


def check_answers(task: Task, events: Sequence[Event]) -> None:
    """Asserts that `events` settle every item of `task`: ours to keep, or a search would wait for ever."""
    if any(isinstance(e, Failed) and e.intervention is None for e in events):
        return
    failed = {e.intervention: e.block for e in events if isinstance(e, Failed)}
    if task.kind == "screen":
        got = {(e.split, e.block) for e in events if isinstance(e, Screened)}
        wanted = {(b.split, b.index) for b in task.blocks}
        assert got == wanted, (task.id, got, wanted)
        return
    done = {(e.intervention, e.block) for e in events if isinstance(e, Measured)}
    missing = {(i.id, b.index) for i in task.interventions if i.id not in failed for b in task.blocks} - done
    assert not missing, (task.id, missing)
