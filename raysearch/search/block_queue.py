"""Blocks on their way: asked for once, out again where a task was lost or raised, three attempts
each.

Invariants: a block waits until it is told, and is told once; what comes of it does not depend on
who told it, nor how often; the loss of a node is no attempt.
"""

from collections.abc import Iterable

from raysearch.causal import Split
from raysearch.core.events import Block, Failed, Lost
from raysearch.errors import SearchFailedError

ATTEMPTS = 3


class BlockQueue:
    """Blocks in, blocks to run out. `what`: for what they are run, as an error calls it."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._waiting: dict[tuple[Split, int], Block] = {}
        self._queue: list[Block] = []
        self._out: dict[int, Block] = {}
        self._attempts: dict[tuple[Split, int], int] = {}

    @property
    def empty(self) -> bool:
        """Whether all that were added are told."""
        return not self._waiting

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def out(self) -> int:
        """Tasks that are out."""
        return len(self._out)

    def add(self, blocks: Iterable[Block]) -> None:
        for block in blocks:
            self._queue.append(block)
            self._waiting[block.split, block.index] = block

    def ask(self, task: int) -> Block | None:
        """The next block, which goes out as the task `task`."""
        if not self._queue:
            return None
        block = self._out[task] = self._queue.pop(0)
        return block

    def told(self, task: int, split: Split, index: int, pairs: tuple[int, ...]) -> bool:
        """Takes note that a block was told; False where it was known already, or is none of ours."""
        self._out.pop(task, None)
        block = self._waiting.get((split, index))
        if block is None or block.pairs != pairs:
            return False
        del self._waiting[split, index]
        self._queue = [b for b in self._queue if b is not block]
        return True

    def again(self, event: Lost | Failed) -> None:
        """A task was lost or raised: if it was of ours, its block goes out once more. Raises:
        SearchFailedError after three attempts."""
        block = self._out.pop(event.task, None)
        if block is None or (block.split, block.index) not in self._waiting:
            return
        key = block.split, block.index
        self._queue.append(block)
        if isinstance(event, Lost) and not event.counts:
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
