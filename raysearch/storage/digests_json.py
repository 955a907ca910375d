"""digests.json: the digests of a run's table parts and pairs, by which readers notice damaged or
lost files.

Invariants:

- the journal has the digest of a file before the file is written (store/file_digests.py).
  digests.json repeats it in one small file, so that a reader need not read a journal. It has a
  checksum of itself, and run.json says that it must exist;
- while a file is being written it may have its previous content, or not exist yet; every other file
  is as written, or a StoreError names it;
- a merged part has its digest in its name;
- a run of an older version has no digests: its files are read unchecked.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from raysearch.errors import StoreError
from raysearch.storage.folder import Folder
from raysearch.storage.parquet import PART, base_of, is_merged, merged_digest, parts_that_count

FILE = "digests.json"
TABLES = "tables"
_RUN_FILE = "run.json"
_SUM = "sum"


@dataclass(frozen=True, slots=True)
class Digests:
    """The SHA-256 (64 hex digits) of each file, by its path in the run folder
    ("tables/verdicts/NAME.parquet").

    `writing` has the files that are being written, or were when a driver died, with the previous
    digest of each; None if it did not exist.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    writing: Mapping[str, str | None] = field(default_factory=dict)

    def allows(self, file: str, digest: str | None) -> bool:
        """Says whether a file may have content of this digest; None stands for a missing file."""
        return digest == self.files.get(file) or (
            file in self.writing and digest == self.writing[file]
        )


def sha256(content: bytes) -> str:
    """Returns the SHA-256 of bytes, in 64 hex digits."""
    return hashlib.sha256(content).hexdigest()


def checksum(plain: Mapping[str, object]) -> str:
    """Returns the checksum that a JSON object contains: the SHA-256 of its canonical JSON without
    `sum`.
    """
    rest = {k: v for k, v in plain.items() if k != _SUM}
    return sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode())


def write_digests(run: Folder, digests: Digests) -> None:
    """Writes digests.json.

    Raises:
        StoreError: it cannot be written.
    """
    plain = {"files": dict(digests.files), "writing": dict(digests.writing)}
    run.write(
        FILE,
        (json.dumps(plain | {_SUM: checksum(plain)}, indent=1, sort_keys=True) + "\n").encode(),
    )


def read_digests(run: Folder) -> Digests | None:
    """Returns the digests of a run; None for a run of an older version.

    Raises:
        StoreError: they are lost or damaged.
    """
    if not run.exists(FILE):
        if _must_have(run):
            raise StoreError(
                f"{run.shown(FILE)}: is lost, and run.json says that it was there; {_remedy(run)}"
            )
        return None
    try:
        plain = json.loads(run.read(FILE))
        if plain[_SUM] != checksum(plain):
            raise ValueError("its checksum is another")
        if not all(isinstance(plain[key], dict) for key in ("files", "writing")):
            raise ValueError("files and writing must be objects")
        return Digests(plain["files"], plain["writing"])
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise StoreError(f"{run.shown(FILE)}: is damaged ({e}); {_remedy(run)}") from e


def read_checked(run: Folder, name: str) -> bytes:
    """Returns the content of a file in the run folder itself.

    Raises:
        StoreError: it is lost or damaged.
    """
    digests = read_digests(run)
    if digests is None or name not in digests.files:
        return run.read(name)
    content = run.read(name) if run.exists(name) else None
    return _checked(run, run, name, name, content, digests)


def each_checked(run: Folder, table: str) -> Iterator[tuple[str, bytes]]:
    """Yields (name, content) of the parts that make a table, in their order.

    If the run is being written, these are the parts at the time of the call.

    Raises:
        StoreError: a part is lost or damaged.
    """
    digests = read_digests(run)
    folder = run.at(TABLES).at(table)
    there = folder.names()
    counting = parts_that_count(there)
    if digests is not None:
        counting = _due(run, folder, digests, there, counting)
    for name, content in zip(counting, folder.read_each(counting), strict=True):
        if is_merged(name):
            if merged_digest(name) not in (None, sha256(content)):
                raise _damaged(run, folder, name)
        elif digests is not None:
            content = _checked(run, folder, name, f"{TABLES}/{table}/{name}", content, digests)
        yield name, content


def wrong_parts(run: Folder) -> list[str]:
    """Returns the lost or damaged parts of all tables, by their paths in the run folder.

    Raises:
        StoreError: the digests cannot be read.
    """
    digests = read_digests(run) or Digests()
    wrong = []
    for table in sorted(
        {file.split("/")[1] for file in digests.files if file.startswith(f"{TABLES}/")}
    ):
        folder = run.at(TABLES).at(table)
        there = folder.names()
        merged, due = _parts(folder, digests, parts_that_count(there))
        bad = (n for n in merged if merged_digest(n) not in (None, sha256(folder.read(n))))
        wrong += [f"{TABLES}/{table}/{name}" for name in bad]
        for name in due:
            digest = sha256(folder.read(name)) if name in there else None
            if not digests.allows(f"{TABLES}/{table}/{name}", digest):
                wrong.append(f"{TABLES}/{table}/{name}")
    return wrong


def check_parts(run: Folder) -> None:
    """Checks the parts of all tables.

    Raises:
        StoreError: a part is lost or damaged; the text names the first.
    """
    for file in wrong_parts(run):
        _, table, name = file.split("/")
        folder = run.at(TABLES).at(table)
        raise _damaged(run, folder, name) if folder.exists(name) else _lost(run, folder, name)


def _due(
    run: Folder, folder: Folder, digests: Digests, there: list[str], counting: list[str]
) -> list[str]:
    """Returns the parts that must exist: the merged one that counts, and the later ones that have
    digests.
    """
    merged, due = _parts(folder, digests, counting)
    for name in due:
        file = f"{TABLES}/{folder.name}/{name}"
        if name not in there and not digests.allows(file, None):
            _check_again(run, folder, name, file, None)
    return merged + [name for name in due if name in there]


def _parts(folder: Folder, digests: Digests, counting: list[str]) -> tuple[list[str], list[str]]:
    """Returns the merged part that counts, if there is one, and the parts after it."""
    merged = [name for name in counting if is_merged(name)]
    last = base_of(merged[0]) if merged else ""
    prefix = f"{TABLES}/{folder.name}/"
    due = sorted(file.removeprefix(prefix) for file in digests.files if file.startswith(prefix))
    return merged, [name for name in due if name.removesuffix(PART) > last]


def _checked(
    run: Folder, folder: Folder, name: str, file: str, content: bytes | None, digests: Digests
) -> bytes:
    digest = None if content is None else sha256(content)
    if not digests.allows(file, digest):
        _check_again(run, folder, name, file, digest)
    return folder.read(name) if content is None else content


def _check_again(run: Folder, folder: Folder, name: str, file: str, digest: str | None) -> None:
    """Reads the digests again, since a driver may have written after they were read.

    Raises:
        StoreError: the file is lost or damaged still.
    """
    now = read_digests(run)
    if now is not None and not now.allows(file, digest):
        raise _damaged(run, folder, name) if digest is not None else _lost(run, folder, name)


def _damaged(run: Folder, folder: Folder, name: str) -> StoreError:
    return StoreError(
        f"{folder.shown(name)}: is damaged, its SHA-256 is not that of what was written; "
        f"{_remedy(run, name)}"
    )


def _lost(run: Folder, folder: Folder, name: str) -> StoreError:
    return StoreError(
        f"{folder.shown(name)}: is lost, though the journal says that it was written; "
        f"{_remedy(run, name)}"
    )


def _remedy(run: Folder, name: str = FILE) -> str:
    if name == "pairs.parquet":
        return "restore it from a copy"
    return f"`raysearch repair {run.place}` writes it anew from the journal"


def _must_have(run: Folder) -> bool:
    try:
        plain = json.loads(run.read(_RUN_FILE)) if run.exists(_RUN_FILE) else {}
    except (ValueError, RecursionError) as e:
        raise StoreError(
            f"{run.shown(_RUN_FILE)}: cannot be read ({e}); restore it from a copy"
        ) from e
    return isinstance(plain, dict) and plain.get("sealed") is True
