"""Drives the search of a run to its end or to an interrupt, and concludes it: pictures, page,
summary, tracker.

Invariants: whatever ends a search early, whoever asked for it hears that it can be gone on with,
where that can help.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from raysearch import driver
from raysearch.core.events import Encoded
from raysearch.core.records import Snapshot
from raysearch.errors import JobError, StoreError, TakenOverError
from raysearch.proposers.base import Proposer
from raysearch.report.run_results import RunResults
from raysearch.runner.session.continuation import Continuation
from raysearch.runner.session.frontend import Frontend, RunOptions, RunOutcome
from raysearch.runner.session.interrupt import Interrupt
from raysearch.runner.session.messages import report_end, report_screening
from raysearch.runner.session.pools import RunPool
from raysearch.runner.session.retry import retry_failed
from raysearch.runner.session.too_few_pairs import nothing_accepted
from raysearch.runner.session.tracked_run import finish_tracking
from raysearch.runner.stored_run.recorded_proposals import Recording
from raysearch.search.search import Search
from raysearch.store.ledger import RunLedger
from raysearch.store.run_folder import RunFolder
from raysearch.tracking.registry import tracker_of
from raysearch.tracking.tracker import Tracker
from raysearch.viewer.live_page import LivePage
from raysearch.viewer.page import write_page
from raysearch.viewer.pair_texts import read_tokens

HEATMAPS = "RAYSEARCH_HEATMAPS"
"""The variable that switches off the pictures of a run, whose page has the same as tables."""


@dataclass(frozen=True)
class RunSession:
    """A run folder, which is locked, with all that works on it."""

    run: RunFolder
    search: Search
    proposer: Proposer
    pool: RunPool
    where: RunOptions
    frontend: Frontend
    tracker: Tracker | None

    def drive(
        self,
        before: Search | None = None,
        more: Continuation | None = None,
        encoded: tuple[Encoded, ...] = (),
    ) -> RunOutcome:
        """Drives the search to its end, or to an interrupt.

        Args:
            before: one more search, where what failed is tried again (`retry_failed`).
            more: what the run is continued with, on pairs as `encoded`.
        """
        run, frontend = self.run, self.frontend
        # Before there is a journal, so that whoever sees it and interrupts is told how to go on.
        with frontend.interrupt() as interrupt:
            ledger = self._ledger()
            page = LivePage(run.folder, frontend.say)
            try:
                if before is not None:
                    retry_failed(ledger, before, frontend)
                if more is not None:
                    ledger.request(more.event, more.pairs(encoded))
                    frontend.say(more.words)
                run.update(continued={str(n): p for n, p in enumerate(ledger.continued, start=1)})
                seconds = self._search(ledger, interrupt, page)
                ledger.close("done")
            except KeyboardInterrupt:
                frontend.stop()
                ledger.close("interrupted")
                page.end()
                frontend.left("interrupted", run)
                self._track("interrupted")
                return RunOutcome(run, "interrupted", self.search.snapshot())
            except BaseException as e:
                frontend.stop()
                self._end_badly(e, ledger, page)
                raise
            frontend.stop()
            return self._conclude(seconds)

    def _ledger(self) -> RunLedger:
        """Opens the books of the run, and says where it lies."""
        suggested = self.proposer.recorded if isinstance(self.proposer, Recording) else ()
        ledger = RunLedger(self.run, self.tracker, suggested=suggested)
        for line in ledger.messages:
            self.frontend.say(line)
        self.frontend.say(f"run       {self.run.place}")
        self.pool.on_lost(lambda: self.frontend.left("failed", self.run))
        return ledger

    def _search(self, ledger: RunLedger, interrupt: Interrupt, page: LivePage) -> float:
        """Runs the search from what is journalled to its end. Returns the seconds that it took."""
        began = time.monotonic()
        search, frontend = self.search, self.frontend
        screening = True

        def show(snapshot: Snapshot) -> None:
            nonlocal screening
            ledger.snapshot(snapshot)
            self.pool.show(self.run.info.id, snapshot)
            if screening and snapshot.stage != "screening":
                screening = False
                report_screening(search, frontend)
                if search.preparation.score_scale is not None:
                    self.run.update(scale=search.preparation.score_scale.scale)
            frontend(snapshot)
            page.tick()
            interrupt.check()

        def show_training(step: int, fits: int, loss: float) -> None:
            now = search.snapshot()
            if now.training is not None:
                now = replace(now, training=now.training.at(step, fits, loss))
                ledger.snapshot(now)
                frontend(now)

        driver.replay(search, ledger.replay(), ledger)
        self.pool.on_step(show_training)
        if past := ledger.past_events:
            frontend.say(f"replayed  {past} events: {frontend.words(search.snapshot())}")
        driver.drive(search, self.pool, ledger, show)
        ledger.snapshot(search.snapshot())
        return time.monotonic() - began

    def _conclude(self, seconds: float) -> RunOutcome:
        """Draws pictures and writes the summary of a search that is done."""
        run, frontend = self.run, self.frontend
        ended = RunOutcome(run, "done", self.search.snapshot())
        try:
            pictures = _heatmaps(run)
            report_end(run, ended.snapshot, seconds, frontend)
            if line := nothing_accepted(ended):
                frontend.say(line)
            write_page(run.folder, ended.results)
            frontend.ended(ended)
            self._track("done", pictures, ended.results)
        except BaseException:
            if self.tracker is not None:
                # The search is done, even where a picture could not be drawn.
                self.tracker.close("done")
            frontend.left("the search is done, its pictures and summary are not", run)
            raise
        return ended

    def _end_badly(self, error: BaseException, ledger: RunLedger, page: LivePage) -> None:
        """Closes the books as far as that can be done. An error that a resume would only meet again
        gets no hint to resume; a store that fails would only refuse page and files, too."""
        of_store = isinstance(error, StoreError)
        if of_store:
            ledger.abandon()
        else:
            ledger.close("failed")
        if not isinstance(error, JobError | TakenOverError):
            self.frontend.left("failed", self.run)
        if not of_store:
            page.end()
            self._track("failed")
        elif self.tracker is not None:
            self.tracker.close("failed")

    def _track(
        self, status: str, pictures: Sequence[str] = (), results: RunResults | None = None
    ) -> None:
        """Gives the tracker what the run has left, and waits for it (a bounded time)."""
        if self.tracker is None:
            return
        uri, say = self.run.info.tracking_uri or "", self.frontend.say
        kind = tracker_of(uri)

        def say_finishing() -> None:
            say(f"{kind.name:<9} writing to {uri} (--tracking-uri none: no {kind.title})")

        children = self.where.tracked_children
        finish_tracking(
            self.tracker, status, self.run, children, pictures, results, say=say_finishing
        )
        if page := self.tracker.address:
            say(f"{kind.name:<9} {page}")


def _heatmaps(run: RunFolder) -> list[str]:
    """Draws the heat maps, unless they are switched off; returns the files' names."""
    if os.environ.get(HEATMAPS, "").lower() == "off":
        return []
    from raysearch.report.heatmap import heatmaps  # matplotlib, which takes a second to import

    return heatmaps(run.folder, run.heatmaps, read_tokens(run.folder))
