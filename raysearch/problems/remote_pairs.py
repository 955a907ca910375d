"""A file of pairs wherever it lies: on disk, or in an object store, from which it and the tensors
that it names are copied first.

Invariants: read once for a run, which keeps its pairs (pairs.parquet); a copy ends with the
reading.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit, urlunsplit

from raysearch.causal import Pair, PairSample, Split
from raysearch.errors import JobError, PairsError
from raysearch.problems import read_drawn
from raysearch.problems.pair_files import tensor_names
from raysearch.storage.folder import Folder
from raysearch.storage.open import open_folder
from raysearch.storage.uris import is_uri


def pairs_at(place: str, counts: Mapping[Split, int], seed: int) -> tuple[Pair, ...]:
    """The pairs of the file or folder at a path or URI, in the order of the run. Raises: as
    `drawn_at`."""
    return drawn_at(place, counts, seed).pairs


def drawn_at(place: str, counts: Mapping[Split, int], seed: int) -> PairSample:
    """These pairs, and what was left out of them. Raises: PairsError, JobError as `read_drawn`;
    StoreError."""
    if not is_uri(place):
        return read_drawn(Path(place), counts, seed)
    parts = urlsplit(place)
    path = PurePosixPath(parts.path)
    folder = open_folder(urlunsplit(parts._replace(path=str(path.parent))))
    with tempfile.TemporaryDirectory(prefix="raysearch-pairs-") as scratch:
        copies = Path(scratch).resolve()
        there = folder.shown(path.name).removesuffix(path.name)
        copy = copies / path.name
        try:
            if folder.exists(path.name):
                _copy(folder, path.name, copies)
                beside, to = folder, copies
            else:
                beside, to = folder.at(path.name), copy
                _copy_folder(beside, copy)
                if not copy.exists():
                    raise PairsError(_nothing(folder, path.name))
            for name in tensor_names(copy):
                _copy(beside, name, to)
            return read_drawn(copy, counts, seed)
        except (PairsError, JobError) as e:
            raise type(e)(str(e).replace(f"{copies}/", there)) from e


def _copy_folder(folder: Folder, to: Path) -> None:
    """The files of `folder` and of the folders in it, those aside that are no part of a data set."""
    for name in folder.names():
        if not name.startswith((".", "_")):
            _copy(folder, name, to)
    for name in folder.folders():
        if not name.startswith((".", "_")):
            _copy_folder(folder.at(name), to / name)


def _copy(folder: Folder, name: str, to: Path) -> None:
    """A file `name` (or a/name) of `folder`, below `to`."""
    parts = PurePosixPath(name).parts
    if ".." in parts or parts[0] == "/":
        raise PairsError(f"{folder.place}: its pairs name {name}, which leads out of that folder")
    for part in parts[:-1]:
        folder, to = folder.at(part), to / part
    if not folder.exists(parts[-1]):
        raise PairsError(_nothing(folder, parts[-1]))
    to.mkdir(parents=True, exist_ok=True)
    (to / parts[-1]).write_bytes(folder.read(parts[-1]))


def _nothing(folder: Folder, name: str) -> str:
    return f"problem.pairs: there is no file {folder.shown(name)}; give a JSONL or Parquet file of pairs"
