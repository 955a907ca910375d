"""A file of pairs wherever it lies: on disk, or in an object store, from which it and the tensors that it names are copied first.

Invariants: read once for a run, which keeps its pairs (pairs.parquet); a copy ends with the reading.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit, urlunsplit

from raysearch.causal import Pair, Split
from raysearch.errors import PairsError
from raysearch.folders.folder import Folder
from raysearch.folders.where import folder_at, is_uri
from raysearch.problems import read_pairs
from raysearch.problems.files import tensor_names


def pairs_at(place: str, counts: Mapping[Split, int], seed: int) -> tuple[Pair, ...]:
    """All pairs of the file at a path or URI, in the order of the run. Raises: PairsError, JobError as `read_pairs`; StoreError."""
    if not is_uri(place):
        return read_pairs(Path(place), counts, seed)
    parts = urlsplit(place)
    path = PurePosixPath(parts.path)
    folder = folder_at(urlunsplit(parts._replace(path=str(path.parent))))
    with tempfile.TemporaryDirectory(prefix="raysearch-pairs-") as scratch:
        copies = Path(scratch).resolve()
        there = folder.shown(path.name).removesuffix(path.name)
        try:
            copy = copies / path.name
            _copy(folder, path.name, copies)
            for name in tensor_names(copy):
                _copy(folder, name, copies)
            return read_pairs(copy, counts, seed)
        except PairsError as e:
            raise PairsError(str(e).replace(f"{copies}/", there)) from e


def _copy(folder: Folder, name: str, to: Path) -> None:
    """A file `name` (or a/name) of `folder`, below `to`."""
    parts = PurePosixPath(name).parts
    if ".." in parts or parts[0] == "/":
        raise PairsError(f"{folder.place}: its pairs name {name}, which leads out of that folder")
    for part in parts[:-1]:
        folder, to = folder.at(part), to / part
    if not folder.exists(parts[-1]):
        raise PairsError(
            f"problem.pairs: there is no file {folder.shown(parts[-1])}; give a JSONL or Parquet file of pairs"
        )
    to.mkdir(parents=True, exist_ok=True)
    (to / parts[-1]).write_bytes(folder.read(parts[-1]))
