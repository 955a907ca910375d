"""A queue of blocks that must each be run once; a block is retried when its task is lost or raises.

Invariants: a block waits until its result is reported, and is reported once; the result does not
depend on which worker reported it, nor how often; losing a node is no attempt.
"""

from collections.abc import Iterable

from raysearch.causal import Split
from raysearch.core.events import Block, Failed, Lost
from raysearch.errors import SearchFailedError

ATTEMPTS = 3


class BlockQueue:
    """Hands out blocks and keeps track of those without a result.

    Args:
        what: the name of the stage, for error messages.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._waiting: dict[tuple[Split, int], Block] = {}
        self._queue: list[Block] = []
        self._out: dict[int, Block] = {}
        self._attempts: dict[tuple[Split, int], int] = {}

    @property
    def empty(self) -> bool:
        """Says whether every block that was added has its result."""
        return not self._waiting

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def out(self) -> int:
        """Number of tasks that are running."""
        return len(self._out)

    def add(self, blocks: Iterable[Block]) -> None:
        for block in blocks:
            self._queue.append(block)
            self._waiting[block.split, block.index] = block

    def ask(self, task: int) -> Block | None:
        """Returns the next block and remembers that it runs as the task `task`; None if none is
        ready.
        """
        if not self._queue:
            return None
        block = self._out[task] = self._queue.pop(0)
        return block

    def receive(self, task: int, split: Split, index: int, pairs: tuple[int, ...]) -> bool:
        """Marks a block as done; returns False if it was done already or is not in this queue."""
        self._out.pop(task, None)
        block = self._waiting.get((split, index))
        if block is None or block.pairs != pairs:
            return False
        del self._waiting[split, index]
        self._queue = [b for b in self._queue if b is not block]
        return True

    def requeue(self, event: Lost | Failed) -> None:
        """Queues the block of a lost or failed task again; ignores tasks of other stages.

        Raises:
            SearchFailedError: this was the third failed attempt.
        """
        block = self._out.pop(event.task, None)
        if block is None or (block.split, block.index) not in self._waiting:
            return
        key = block.split, block.index
        self._queue.append(block)
        if isinstance(event, Lost) and not event.counts_as_attempt:
            return
        self._attempts[key] = self._attempts.get(key, 0) + 1
        if self._attempts[key] >= ATTEMPTS:
            what = (
                f"lost its worker ({event.cause})"
                if isinstance(event, Lost)
                else f"raised {event.error_type}"
            )
            raise SearchFailedError(
                f"{self._what} cannot be done: block {block.index} of the {block.split} pairs "
                f"{what} {ATTEMPTS} times, "
                f"the last time on {event.worker}: {event.message}"
            )
