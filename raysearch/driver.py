"""The program in one page: the search says what to do, the pool does it, the ledger keeps it; the
driver only carries.

Invariants: the search hears of an event only after the ledger has made it durable.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from raysearch.core.events import Event, JournalledEvent, Task
from raysearch.core.records import Record, Snapshot
from raysearch.search.search import Search


class Pool(Protocol):
    """Workers that hold replicas of the model."""

    @property
    def free(self) -> int:
        """How many tasks would be begun at once if they were submitted now."""
        ...

    def submit(self, task: Task, tensors: Mapping[str, bytes]) -> None:
        """Gives a task to an idle worker; there must be one (`free`). `tensors`: what was fit that
        it needs, by digest."""
        ...

    def wait(self) -> list[Event]:
        """What has come since; waits a moment (a second or so) if nothing has, and may return
        nothing.

        Every task ends in events for all its items, or in Lost or Failed.
        """
        ...


class Ledger(Protocol):
    """Where everything is kept."""

    def events(self, events: Sequence[Event]) -> None:
        """Makes the events durable before it returns."""
        ...

    def tensors(self, task: Task) -> Mapping[str, bytes]:
        """What was fit that `task` needs, by digest."""
        ...

    def notes(self, notes: Sequence[Record]) -> None:
        """Projects what the search said to tables and mirrors."""
        ...


def drive(search: Search, pool: Pool, ledger: Ledger, watch: Callable[[Snapshot], None]) -> None:
    """Drives `search` to its end. `watch` is shown where it stands after every turn."""
    while not search.done:
        for task in search.ask(pool.free):
            pool.submit(task, ledger.tensors(task))
        events = pool.wait()
        if events:
            ledger.events(events)
            ledger.notes(search.tell(events))
        watch(search.snapshot())


def replay(search: Search, history: Iterable[Sequence[JournalledEvent]], ledger: Ledger) -> None:
    """Tells a new `search` what drivers before this one have journalled."""
    for events in history:
        ledger.notes(search.tell(events))
