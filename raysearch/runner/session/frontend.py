"""The caller of a run: where the run goes, the messages that the caller gets, and how the caller
stops it."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

from raysearch.core.records import Snapshot
from raysearch.report.results_table import read_results
from raysearch.report.run_results import RunResults
from raysearch.runner.session.interrupt import Interrupt
from raysearch.store.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Only where, never what. `tracking_uri`: "none": the run is shown in no
    tracker."""

    store: str
    tracking_uri: str
    pool: str
    address: str | None
    tracked_children: int = 20


@dataclass(frozen=True)
class RunOutcome:
    """A search that was driven to its end, or to an interrupt."""

    run: RunFolder
    status: Literal["done", "interrupted"]
    snapshot: Snapshot

    @cached_property
    def results(self) -> RunResults:
        """The hypotheses of a run that is done; read once. Raises: StoreError."""
        return read_results(self.run.folder)


class Frontend(Protocol):
    """Follows a run."""

    def say(self, text: str) -> None:
        """Takes a line of its own."""
        ...

    def words(self, snapshot: Snapshot) -> str:
        """Returns a snapshot in one line."""
        ...

    def __call__(self, snapshot: Snapshot) -> None:
        """Takes the state of the search after every turn."""
        ...

    def stop(self) -> None:
        """Takes that no snapshot will come any more."""
        ...

    def interrupt(self) -> AbstractContextManager[Interrupt]:
        """Returns the context in which a Ctrl-C asks the search to stop."""
        ...

    def left(self, status: str, run: RunFolder) -> None:
        """Takes that the run is left unfinished, and that resuming it can help."""
        ...

    def ended(self, ended: RunOutcome) -> None:
        """Takes that the search is done and its pictures are drawn. The tracker does not have its
        files yet."""
        ...
