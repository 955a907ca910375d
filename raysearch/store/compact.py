"""Compaction: merges the parts of each table of a finished run into one.

Invariants:

- the merged part is complete, and was read back, before the first of its parts is removed. From
  then on it replaces them (`storage/parquet.py`), so that a crash at any moment loses no row and
  counts none twice; merging again finishes the work;
- the journal stays unchanged: a `resume` writes the parts again from it, then removes the merged
  one (`table_writer.py`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from raysearch.errors import StoreError, TakenOverError, check_memory
from raysearch.storage.digests_json import each_checked, sha256
from raysearch.storage.folder import Folder
from raysearch.storage.parquet import (
    from_parquet,
    is_merged,
    is_part,
    merged_digest,
    merged_name,
    to_parquet,
)
from raysearch.store.journal import drivers
from raysearch.store.run_folder import RunFolder
from raysearch.store.run_history import journal_summary


@dataclass(frozen=True, slots=True)
class Merged:
    """Result for one table: its rows, and the number of parts before and after."""

    table: str
    rows: int
    before: int
    after: int = 1


def compact(run: RunFolder) -> Iterator[Merged]:
    """Merges the parts of each table, one table after the other in memory; hold `run.lock()`.

    Raises:
        StoreError: the run is not done, a part cannot be read, or the store refuses.
        TakenOverError: another driver works on the run.
    """
    status = journal_summary(run).ended
    if status != "done":
        raise StoreError(
            f"run {run.info.id}: is not done ({status or 'its driver works, or was killed'}), and "
            "only what is done is merged; `resume` it to its end first"
        )
    before = drivers(run.journal)
    for name in run.tables.folders():
        folder = run.tables.at(name)
        names, parts = folder.names(), dict(each_checked(run.folder, name))
        if not parts:
            continue
        whole, last = _read(folder, parts.items()), list(parts)[-1]
        done = len(parts) == 1 and not (is_merged(last) and merged_digest(last) is None)
        result = last if done else _write_merged(folder, last, whole)
        if (
            drivers(run.journal) != before
        ):  # an object store cannot lock; that driver writes the parts again
            raise TakenOverError(
                f"run {run.info.id}: a driver has gone on with it; merge when that is done"
            )
        folder.sweep()
        if is_merged(result):
            for old in names:
                if old != result and is_part(old):
                    folder.delete(old)
        yield Merged(name, whole.num_rows, len(parts))


def _write_merged(folder: Folder, last: str, whole: pa.Table) -> str:
    """Writes `whole` as one part, reads it back, and returns its name."""
    content = to_parquet(whole)
    name = merged_name(last, sha256(content))
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
            check_memory(e, f"reading {folder.shown(name)}")
            raise StoreError(
                f"{folder.shown(name)}: cannot be read as Parquet ({e}); `raysearch repair` writes "
                f"it anew from the journal"
            ) from e
    try:
        return pa.concat_tables(tables)
    except pa.ArrowException as e:
        check_memory(e, f"joining {folder.place}")
        raise StoreError(
            f"{folder.place}: its parts are not of one form ({e}); `raysearch repair` writes them "
            f"anew"
        ) from e
