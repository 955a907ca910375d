"""Seals: the digest of each file that a run's readers rely on, in the journal before the file is written, and in digests.json.

Invariants: the order is journal, digests.json ("is being written"), the file, digests.json ("is written"), so that whoever dies anywhere
leaves files that readers take, and a replay finishes; a file that is written again with the same bytes needs no new seal; a replay that
comes to other bytes (rows that a retry took back, another pyarrow) seals them anew.
"""

from collections.abc import Callable, Mapping, Sequence

from raysearch.folders.digests import Digests, digest_of, write_digests
from raysearch.folders.folder import Folder
from raysearch.store.codec import JournalEntry, Sealed


class Seals:
    """Writes the files of a run that have digests.

    `known`: the digests that the journal has. `keep`: makes entries durable in the journal, and raises where a later driver is there.
    `check`: raises where a later driver is there.
    """

    def __init__(
        self,
        run: Folder,
        known: Mapping[str, str],
        keep: Callable[[Sequence[JournalEntry]], None],
        check: Callable[[], None],
    ) -> None:
        self._run = run
        self._files = dict(known)
        self._keep = keep
        self._check = check

    def show(self) -> None:
        """digests.json says what the journal says. Raises: StoreError."""
        write_digests(self._run, Digests(self._files))

    def seal(self, file: str, content: bytes) -> None:
        """Takes a file that is there for what it is. Raises: StoreError, TakenOverError."""
        self._files[file] = digest_of(content)
        self._keep([Sealed(file, self._files[file])])

    def write(self, folder: Folder, path: str, name: str, content: bytes, before: Sequence[JournalEntry] = ()) -> None:
        """The file `name` of `folder`, which is at `path` (ending in "/", or "") of the run, holds `content`.

        `before`: entries that the journal gets with the seal. Raises: StoreError, TakenOverError.
        """
        file, digest = path + name, digest_of(content)
        old = self._files.get(file)
        if old == digest and not before:
            self._check()
            folder.write(name, content)
            return
        self._keep([*before, Sealed(file, digest)])
        self._files[file] = digest
        write_digests(self._run, Digests(self._files, file, old))
        folder.write(name, content)
        self.show()
