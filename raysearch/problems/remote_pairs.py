"""Reads a file of pairs from disk or an object store; from the latter it and its tensors are copied
first.

Invariants: the file is read once for a run, which stores its pairs (pairs.parquet); the copy is
deleted after reading.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit, urlunsplit

from raysearch.causal import PairSample, Split
from raysearch.errors import JobError, PairsError
from raysearch.problems import read_sample
from raysearch.problems.pair_files import tensor_names
from raysearch.storage.folder import Folder
from raysearch.storage.open_folder import open_folder
from raysearch.storage.uris import is_uri


def sample_at(
    place: str, counts: Mapping[Split, int], seed: int, by_line: bool = False
) -> PairSample:
    """Returns the pairs of the file or folder at a path or URI, in the order of the run, and
    counts those left out; `by_line` is as in `read_sample`.

    Raises:
        PairsError: as in `read_sample`.
        JobError: as in `read_sample`.
        StoreError: the store refuses.
    """
    if not is_uri(place):
        return read_sample(Path(place), counts, seed, by_line)
    parts = urlsplit(place)
    path = PurePosixPath(parts.path)
    folder = open_folder(urlunsplit(parts._replace(path=str(path.parent))))
    with tempfile.TemporaryDirectory(prefix="raysearch-pairs-") as scratch:
        copies = Path(scratch).resolve()
        location = folder.shown(path.name).removesuffix(path.name)
        copy = copies / path.name
        try:
            if folder.exists(path.name):
                _copy(folder, path.name, copies)
                origin, to = folder, copies
            else:
                origin, to = folder.at(path.name), copy
                _copy_folder(origin, copy)
                if not copy.exists():
                    raise PairsError(_missing(folder, path.name))
            for name in tensor_names(copy):
                _copy(origin, name, to)
            return read_sample(copy, counts, seed, by_line)
        except (PairsError, JobError) as e:
            raise type(e)(str(e).replace(f"{copies}/", location)) from e


def _copy_folder(folder: Folder, to: Path) -> None:
    """Copies the files of `folder` and its folders, except hidden ones."""
    for name in folder.names():
        if not name.startswith((".", "_")):
            _copy(folder, name, to)
    for name in folder.folders():
        if not name.startswith((".", "_")):
            _copy_folder(folder.at(name), to / name)


def _copy(folder: Folder, name: str, to: Path) -> None:
    """Copies a file `name` (or a/name) of `folder` to `to`."""
    parts = PurePosixPath(name).parts
    if ".." in parts or parts[0] == "/":
        raise PairsError(f"{folder.place}: its pairs name {name}, which leads out of that folder")
    for part in parts[:-1]:
        folder, to = folder.at(part), to / part
    if not folder.exists(parts[-1]):
        raise PairsError(_missing(folder, parts[-1]))
    to.mkdir(parents=True, exist_ok=True)
    (to / parts[-1]).write_bytes(folder.read(parts[-1]))


def _missing(folder: Folder, name: str) -> str:
    return (
        f"problem.pairs: there is no file {folder.shown(name)}; give a JSONL or Parquet file of "
        "pairs"
    )
