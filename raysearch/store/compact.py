"""Merging: each table of a finished run as one part.

Invariants:
- the merged part is whole, and was read again, before the first of the parts that it holds is
  removed. From then on it stands for them (`folders.parquet`), so that a crash at any moment loses
  no row and counts none twice; merging again finishes the work;
- the journal is not touched: a `resume` writes the parts anew from it, then removes the merged one
  (`tables.py`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from raysearch.errors import StoreError, TakenOverError
from raysearch.storage.digests import digest_of, each_checked
from raysearch.storage.folder import Folder
from raysearch.storage.parquet import (
    PART,
    from_parquet,
    is_merged,
    merged_digest,
    merged_name,
    to_parquet,
)
from raysearch.store.run_folder import RunFolder
from raysearch.store.run_history import journal_summary


@dataclass(frozen=True, slots=True)
class Merged:
    """What became of a table: its rows, and how many parts hold them before and after."""

    table: str
    rows: int
    before: int
    after: int = 1


def compact(run: RunFolder) -> Iterator[Merged]:
    """Merges the parts of each table, table by table, each in memory; hold `run.lock()`.

    Raises: StoreError for a run that is not done, a part that cannot be read, a store that refuses;
    TakenOverError.
    """
    status = journal_summary(run).ended
    if status != "done":
        raise StoreError(
            f"run {run.info.id}: is not done ({status or 'its driver works, or was killed'}), and "
            f"only what is done is merged; "
            "`resume` it to its end first"
        )
    drivers = run.journal.folders()
    for name in run.tables.folders():
        folder = run.tables.at(name)
        names, parts = folder.names(), dict(each_checked(run.folder, name))
        if not parts:
            continue
        whole, last = _read(folder, parts.items()), list(parts)[-1]
        done = len(parts) == 1 and not (is_merged(last) and merged_digest(last) is None)
        kept = last if done else _write_merged(folder, last, whole)
        if (
            run.journal.folders() != drivers
        ):  # an object store cannot lock; that driver writes the parts anew
            raise TakenOverError(
                f"run {run.info.id}: a driver has gone on with it; merge when that is done"
            )
        folder.sweep()
        if is_merged(kept):
            for old in names:
                if old != kept and old.endswith(PART) and not old.startswith("_"):
                    folder.delete(old)
        yield Merged(name, whole.num_rows, len(parts))


def _write_merged(folder: Folder, last: str, whole: pa.Table) -> str:
    """The name of the part that holds `whole`, once it is there and was read again."""
    content = to_parquet(whole)
    name = merged_name(last, digest_of(content))
    folder.write(name, content)
    if not _read(folder, [(name, folder.read(name))]).equals(whole, check_metadata=True):
        folder.delete(name)
        raise StoreError(
            f"{folder.shown(name)}: came back otherwise than it was written; see to the disk or "
            f"store"
        )
    return name


def _read(folder: Folder, parts: Iterable[tuple[str, bytes]]) -> pa.Table:
    tables = []
    for name, content in parts:
        try:
            tables.append(from_parquet(content))
        except (pa.ArrowException, KeyError, OSError) as e:
            raise StoreError(
                f"{folder.shown(name)}: cannot be read as Parquet ({e}); `raysearch repair` writes "
                f"it anew from the journal"
            ) from e
    try:
        return pa.concat_tables(tables)
    except pa.ArrowException as e:
        raise StoreError(
            f"{folder.place}: its parts are not of one form ({e}); `raysearch repair` writes them "
            f"anew"
        ) from e
