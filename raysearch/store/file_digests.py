"""Digests of a run's files: each is in the journal before the file is written, and in digests.json
for readers.

Invariants: the order is journal, digests.json ("is being written"), the file, digests.json ("is
written"), so that a driver that dies at any point leaves files that readers accept, and a replay
finishes; a file that is written again with the same bytes needs no new digest; a replay that gives
other bytes (rows that a retry withdrew, another pyarrow) journals the new ones.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from raysearch.errors import StoreError
from raysearch.storage.digests_json import Digests, read_digests, sha256, write_digests
from raysearch.storage.folder import Folder
from raysearch.store.journal_codec import JournalEntry, Sealed
from raysearch.store.run_folder import RunFolder


class FileDigests:
    """Writes the files of a run that have digests.

    Args:
        known: digests in the journal, by file.
        parts: the parts that the journal names. If some have no digest yet (older versions wrote
            none), digests.json is only made when a replay has written the last of them.
        append: makes entries durable in the journal; raises if a later driver is there.
        check: raises if a later driver is there.
    """

    def __init__(
        self,
        run: RunFolder,
        known: Mapping[str, str],
        parts: Iterable[str],
        append: Callable[[Sequence[JournalEntry]], None],
        check: Callable[[], None],
    ) -> None:
        self._run = run
        self._files = dict(known)
        self._unsealed = set(parts) - known.keys()
        self._writing = _unfinished_files(run.folder, self._files)
        self._append = append
        self._check = check

    def publish(self) -> None:
        """Writes digests.json from the journal's digests, and says in run.json that it exists.

        Raises:
            StoreError: it cannot be written.
        """
        if not self._unsealed:
            write_digests(self._run.folder, Digests(self._files, self._writing))
            self._run.update(sealed=True)

    def seal(self, file: str, content: bytes) -> None:
        """Journals the digest of a file that exists already.

        Raises:
            StoreError: the store refuses.
            TakenOverError: a later driver is there.
        """
        self._files[file] = sha256(content)
        self._writing.pop(file, None)
        self._append([Sealed(file, self._files[file])])

    def write(
        self,
        folder: Folder,
        path: str,
        name: str,
        content: bytes,
        before: Sequence[JournalEntry] = (),
    ) -> None:
        """Writes a file of the run together with its digest.

        Args:
            path: place of `folder` in the run: "", or ends in "/".
            before: entries that are journalled together with the digest.

        Raises:
            StoreError: the store refuses.
            TakenOverError: a later driver is there.
        """
        file, digest = path + name, sha256(content)
        old = self._files.get(file)
        if old == digest and file not in self._writing:
            self._check()
            folder.write(name, content)
            return
        if old != digest:
            self._append([*before, Sealed(file, digest)])
            self._files[file] = digest
            self._writing[file] = old
            self.publish()
        else:
            self._check()
        folder.write(name, content)
        del self._writing[file]
        self._unsealed.discard(file)
        self.publish()


def _unfinished_files(run: Folder, known: Mapping[str, str]) -> dict[str, str | None]:
    """Returns the files that earlier drivers were writing when they died, with the digests before.

    They follow from digests.json, and from the journal where that is ahead.
    """
    try:
        found = read_digests(run)
    except StoreError:
        return {}  # lost or damaged; it is written again from the journal
    if found is None:
        return {}
    ahead = {
        file: found.files.get(file)
        for file, digest in known.items()
        if found.files.get(file) != digest
    }
    return {file: digest for file, digest in {**found.writing, **ahead}.items() if file in known}
