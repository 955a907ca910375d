"""Files of a run written anew from its journal: parts of tables that were damaged or lost, and
digests.json.

Invariants: no model is loaded and no code that the run names is run; parts come back under their
names with the bytes that they had (of the same pyarrow), by the lines of code that wrote them; what
the journal does not hold is named, for nothing can bring it back.
"""

from dataclasses import dataclass

from raysearch import driver
from raysearch.errors import StoreError
from raysearch.runner.stored_run.recorded_proposals import recorded_search
from raysearch.runner.stored_run.reopen import reopened_job
from raysearch.storage.digests_json import (
    FILE,
    Digests,
    read_checked,
    read_digests,
    write_digests,
    wrong_parts,
)
from raysearch.storage.local import LocalFolder
from raysearch.store.fit_store import FitStore
from raysearch.store.journal_codec import Sealed
from raysearch.store.ledger import RunLedger
from raysearch.store.pairs_table import FILE as PAIRS
from raysearch.store.run_folder import RunFolder
from raysearch.store.run_history import journal_summary, read_entries


@dataclass(frozen=True, slots=True)
class Repaired:
    """The files that were damaged or lost and are written anew, by their paths in the run folder;
    how many files there are with digests."""

    files: tuple[str, ...]
    among: int


def repair(run: RunFolder) -> Repaired:
    """Writes what is damaged or lost anew; hold `run.lock()`. Does nothing where all is well.

    Raises: StoreError where a file that the journal does not hold is damaged, or a driver may work
    on the run; ResumeError where the run is of another version, or of a proposer that its journal
    does not know.
    """
    ended = journal_summary(run).ended
    if ended is None and not isinstance(run.folder, LocalFolder):
        raise StoreError(
            f"{run.place}: its driver works, or was killed (an object store cannot say which); "
            "`raysearch resume` it, which writes its tables anew too"
        )
    fits = FitStore(run.interventions)
    for name in run.interventions.names():
        fits.read(name.removesuffix(".safetensors"))
    wrong = _restored(run)
    read_checked(run.folder, PAIRS)
    wrong += wrong_parts(run.folder)
    digests = read_digests(run.folder)
    if wrong or digests is None:
        _write_anew(run, ended)
        digests = read_digests(run.folder)
    return Repaired(tuple(wrong), len(digests.files) if digests is not None else 0)


def _restored(run: RunFolder) -> list[str]:
    """Writes digests.json anew from the journal where it is damaged or lost, and returns its name
    if so."""
    try:
        read_digests(run.folder)
    except StoreError:
        sealed = (
            entry for batch in read_entries(run) for entry in batch if isinstance(entry, Sealed)
        )
        write_digests(run.folder, Digests({entry.file: entry.digest for entry in sealed}))
        return [FILE]
    return []


def _write_anew(run: RunFolder, ended: str | None) -> None:
    """Writes all parts by a replay, as a driver does that resumes the run."""
    with reopened_job(run) as (stored, resolved):
        search = recorded_search(run, stored, resolved)
        ledger = RunLedger(run)
        try:
            driver.replay(search, ledger.replay(), ledger)
            ledger.close(ended or "interrupted")
        except BaseException:
            ledger.abandon()
            raise
