"""Failed attempts: which intervention a failed or lost task counts against, and at which blocks.

Invariants: a loss that is no fault of the task counts against nothing; a task of several
interventions counts against one of them only if the engine could tell which.
"""

from dataclasses import dataclass

from raysearch.core.events import Failed, Lost


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """A failed attempt at the `blocks` of one intervention, named by its key."""

    intervention: str
    blocks: tuple[int, ...]
    reason: str


def failed_attempt(event: Lost | Failed) -> FailedAttempt | None:
    """Returns the attempt that failed; None if no single intervention is known to be at fault."""
    alone = event.group[0] if len(event.group) == 1 else None
    if isinstance(event, Lost):
        at_fault = alone if event.counts_as_attempt else None
        blocks, reason = event.blocks, f"{event.message} ({event.cause})"
    else:
        reason = f"{event.error_type}: {event.message}"
        told = event.intervention is not None and event.block is not None
        at_fault = event.intervention if told else alone
        blocks = (event.block,) if told and event.block is not None else event.blocks
    return None if at_fault is None else FailedAttempt(at_fault, blocks, reason)
