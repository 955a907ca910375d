"""Seals: the digest of each file that a run's readers rely on, in the journal before the file is
written, and in digests.json.

Invariants: the order is journal, digests.json ("is being written"), the file, digests.json ("is
written"), so that whoever dies anywhere leaves files that readers take, and a replay finishes; a
file that is written again with the same bytes needs no new seal; a replay that comes to other bytes
(rows that a retry took back, another pyarrow) seals them anew.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from raysearch.errors import StoreError
from raysearch.storage.digests import Digests, digest_of, read_digests, write_digests
from raysearch.storage.folder import Folder
from raysearch.store.codec import JournalEntry, Sealed
from raysearch.store.run_folder import RunFolder


class FileDigests:
    """Writes the files of a run that have digests.

    `known`: the digests that the journal has. `parts`: those that it names; where some have no
    digest yet (an earlier version wrote them), there is no digests.json before a replay has sealed
    the last of them. `keep`: makes entries durable in the journal, and raises where a later driver
    is there. `check`: raises where a later driver is there.
    """

    def __init__(
        self,
        run: RunFolder,
        known: Mapping[str, str],
        parts: Iterable[str],
        keep: Callable[[Sequence[JournalEntry]], None],
        check: Callable[[], None],
    ) -> None:
        self._run = run
        self._files = dict(known)
        self._unsealed = set(parts) - known.keys()
        self._writing = _left_by(run.folder, self._files)
        self._keep = keep
        self._check = check

    def show(self) -> None:
        """digests.json says what the journal says, and run.json that it is there. Raises:
        StoreError."""
        if not self._unsealed:
            write_digests(self._run.folder, Digests(self._files, self._writing))
            self._run.update(sealed=True)

    def seal(self, file: str, content: bytes) -> None:
        """Takes a file that is there for what it is. Raises: StoreError, TakenOverError."""
        self._files[file] = digest_of(content)
        self._writing.pop(file, None)
        self._keep([Sealed(file, self._files[file])])

    def write(
        self,
        folder: Folder,
        path: str,
        name: str,
        content: bytes,
        before: Sequence[JournalEntry] = (),
    ) -> None:
        """The file `name` of `folder`, which is at `path` (ending in "/", or "") of the run, holds
        `content`.

        `before`: entries that the journal gets with the seal. Raises: StoreError, TakenOverError.
        """
        file, digest = path + name, digest_of(content)
        old = self._files.get(file)
        if old == digest and file not in self._writing:
            self._check()
            folder.write(name, content)
            return
        if old != digest:
            self._keep([*before, Sealed(file, digest)])
            self._files[file] = digest
            self._writing[file] = old
            self.show()
        else:
            self._check()
        folder.write(name, content)
        del self._writing[file]
        self._unsealed.discard(file)
        self.show()


def _left_by(run: Folder, known: Mapping[str, str]) -> dict[str, str | None]:
    """What drivers before were writing when they died: as digests.json has it, and where the
    journal is ahead of that."""
    try:
        found = read_digests(run)
    except StoreError:
        return {}  # lost or damaged, and written anew from the journal
    if found is None:
        return {}
    ahead = {
        file: found.files.get(file)
        for file, digest in known.items()
        if found.files.get(file) != digest
    }
    return {file: digest for file, digest in {**found.writing, **ahead}.items() if file in known}
