"""Retries failed hypotheses and estimates; which ones is reported and journalled before the run
goes on.

Invariants: what has failed follows from the journal alone; once that it is tried again stands
there, the run goes on as after any crash, and any `resume` finishes it.
"""

from collections.abc import Iterable, Sequence

from raysearch.core.events import JournalledEvent, Retried
from raysearch.runner.session.frontend import Frontend
from raysearch.runner.stored_run.recorded_proposals import UnrecordedError, recorded_search
from raysearch.runner.stored_run.reopen import reopened_job
from raysearch.search.search import Search
from raysearch.store.ledger import RunLedger
from raysearch.store.run_folder import RunFolder
from raysearch.store.run_history import journal_summary, read_entries
from raysearch.viewer.page import FILE as PAGE
from raysearch.viewer.page import data_in, stamp_of


def concluded_search(run: RunFolder) -> Search | None:
    """Returns the search of a run that is done, as its journal has it, without the model; None
    where something is left to do, or only the user's proposer can tell.

    Raises: StoreError, ResumeError.
    """
    if journal_summary(run).ended != "done" or not _has_last_page(run):
        return None
    with reopened_job(run) as (stored, resolved):
        try:
            search = recorded_search(run, stored, resolved)
        except UnrecordedError:
            return None  # whoever goes on with it runs the proposer, and sees
        for batch in read_entries(run):
            search.tell([e for e in batch if isinstance(e, JournalledEvent)])
        return search if search.done else None


def _has_last_page(run: RunFolder) -> bool:
    """Says whether the page of a run is that of its end: one is written on the way as well."""
    if not run.folder.exists(PAGE):
        return False
    stamp, _ = data_in(run.folder.read(PAGE).decode())
    return stamp in ("", stamp_of(run.folder))  # earlier versions wrote it at the end, unstamped


def retry_failed(ledger: RunLedger, search: Search, frontend: Frontend) -> None:
    """Journals what is tried again. `search`: a new one of the same question, spent on finding out.
    Raises: StoreError."""
    failed = _failed(search, ledger.history())
    if failed.is_empty:
        frontend.say("retrying  nothing: nothing has failed so far")
        return
    controls = sum(
        search.verdicts[name].hypothesis.intervention.control is not None
        for name in failed.hypotheses
    )
    ledger.request(failed)
    counts = [f"{len(failed.hypotheses) - controls} failed hypotheses"]
    counts += [f"{controls} failed controls"] if controls else []
    counts += [f"{len(failed.estimates)} estimates that broke off"] if failed.estimates else []
    anew = f"; {len(failed.fits)} fits begin anew" if failed.fits else ""
    frontend.say(f"retrying  {', '.join(counts)}{anew}")


def _failed(search: Search, history: Iterable[Sequence[JournalledEvent]]) -> Retried:
    """Returns what has failed, once `search` was told its history."""
    for batch in history:
        search.tell(batch)
    return search.failed
