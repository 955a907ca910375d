"""The driver: carries tasks from the search to the pool, and events through the ledger to the
search.

Invariants: the search takes an event only after the ledger has made it durable.
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
        """Number of tasks that would start at once if they were submitted now."""
        ...

    def submit(self, task: Task, tensors: Mapping[str, bytes]) -> None:
        """Gives a task to an idle worker; there must be one (`free`).

        Args:
            tensors: the fitted tensors that the task needs, by digest.
        """
        ...

    def wait(self) -> list[Event]:
        """Returns the events since the last call; waits about a second if there is none, and may
        return none.

        Every task ends in events for all its items, or in Lost or Failed. A pool may ignore
        `Task.lease` and run all blocks. One that ends an intervention early, as the lease allows,
        sets `stopped` on its last Measured: the search waits for the other blocks otherwise.
        """
        ...


class Ledger(Protocol):
    """Stores everything that a search sees and concludes."""

    def write_events(self, events: Sequence[Event]) -> None:
        """Makes the events durable before it returns."""
        ...

    def tensors_for(self, task: Task) -> Mapping[str, bytes]:
        """Returns the fitted tensors that `task` needs, by digest."""
        ...

    def write_records(self, records: Sequence[Record]) -> None:
        """Adds the search's records to tables and tracker."""
        ...


def drive(search: Search, pool: Pool, ledger: Ledger, watch: Callable[[Snapshot], None]) -> None:
    """Drives `search` to its end; calls `watch` with a snapshot after every turn."""
    while not search.done:
        for task in search.ask(pool.free):
            pool.submit(task, ledger.tensors_for(task))
        events = pool.wait()
        if events:
            ledger.write_events(events)
            ledger.write_records(search.tell(events))
        watch(search.snapshot())


def replay(search: Search, history: Iterable[Sequence[JournalledEvent]], ledger: Ledger) -> None:
    """Passes the events that earlier drivers have journalled to a new `search`."""
    for events in history:
        ledger.write_records(search.tell(events))
