"""The protocol of what observes a search beside its tables, such as a tracker."""

from collections.abc import Sequence
from typing import Protocol

from raysearch.core.records import Record, Snapshot


class SearchObserver(Protocol):
    """Follows a search, for example to send it to a tracker; its failures do not matter to the
    search.
    """

    @property
    def run_id(self) -> str | None:
        """The observer's own id of the run, once there is one."""
        ...

    def write_records(self, records: Sequence[Record], replayed: bool = False) -> None:
        """Takes records of the search; those that are `replayed` were taken before."""
        ...

    def snapshot(self, snapshot: Snapshot) -> None:
        """Takes the current state of the search; cheap, since it is called at every turn."""
        ...
