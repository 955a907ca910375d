"""Builds the events of a task from what came of it."""

import math
import traceback
from collections.abc import Mapping
from typing import Any

from raysearch.core.events import Block, Failed, Fitted, Seed, Task
from raysearch.engine.execution.evaluate import Fault
from raysearch.engine.training.fit_request import FitOutcome
from raysearch.storage.digests_json import sha256


def pairs_of(block: Block) -> dict[str, Any]:
    """Returns the fields of an event that say which pairs it is of."""
    return {"split": block.split, "block": block.index, "pairs": block.pairs}


def fitted_event(task: Task, seed: Seed, fit: FitOutcome, origin: Mapping[str, Any]) -> Fitted:
    """Returns the event of one seed of a fit. `origin`: the fields that say where it was done."""
    first, last = task.steps
    points = [p for p in fit.points if p[0] > first]
    contents = (
        (fit.content, fit.state) if last else (fit.content,)
    )  # a featurizer without steps is never resumed
    tensors = {sha256(content): content for content in contents}
    digest, *state = tensors
    return Fitted(
        **origin,
        intervention=seed.intervention.id,
        seed=seed.seed,
        first=first,
        last=last,
        steps=tuple(step for step, _, _ in points),
        losses=tuple(loss for _, loss, _ in points),
        iias=tuple(iia for _, _, iia in points),
        validation_iia=fit.validation_iia,
        validation_loss=_finite(fit.validation_loss),
        validation_n=fit.validation_n,
        found=dict(fit.found),
        fit=digest,
        state=state[0] if state else None,
        stopped=fit.stopped,
        tensors=tensors,
    )


def failed_event(task: Task, key: str | None, fault: Fault, worker: str, node: str) -> Failed:
    """Returns the event of an intervention that failed; `key` None: of the whole task."""
    return Failed(
        task=task.id,
        intervention=key,
        block=task.blocks[fault.block].index,
        error_type=type(fault.error).__name__,
        message=str(fault.error),
        traceback="".join(traceback.format_exception(fault.error)),
        node=node,
        worker=worker,
        attempt=task.attempt,
        group=task.keys,
        split=task.blocks[0].split,
        blocks=tuple(b.index for b in task.blocks),
    )


def _finite(loss: float | None) -> float | None:
    """Returns None for an infinite loss, as of an answer that the model rules out: a journal holds
    finite numbers."""
    return None if loss is None or not math.isfinite(loss) else loss
