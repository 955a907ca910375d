"""Fitted tensors as files named by their content: interventions/<SHA-256>.safetensors.

Invariants: a file is complete before the event that names it is journalled; what is read is what
was written, or an error.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from raysearch.errors import StoreError
from raysearch.storage.digests_json import sha256
from raysearch.storage.folder import Folder
from raysearch.storage.open_folder import open_folder

_SUFFIX = ".safetensors"


class FitStore:
    """The folder of a run's fitted subspaces and training states."""

    def __init__(self, folder: Folder | Path) -> None:
        self._folder = open_folder(folder)

    def write(self, tensors: Mapping[str, bytes]) -> None:
        """Makes each content durable before it returns.

        Raises:
            StoreError: the store refuses.
        """
        for digest, content in tensors.items():
            assert sha256(content) == digest, "a content goes by its own digest"
            if not self._folder.exists(digest + _SUFFIX):
                self._folder.write(digest + _SUFFIX, content)

    def read(self, digest: str) -> bytes:
        """Returns the stored bytes that have a digest.

        Raises:
            StoreError: the file is missing or damaged.
        """
        try:
            content = self._folder.read(digest + _SUFFIX)
        except StoreError as e:
            raise StoreError(
                f"{e}, and the journal says that it was fit; restore it from a copy"
            ) from e
        if sha256(content) != digest:
            raise StoreError(
                f"{self._folder.shown(digest + _SUFFIX)}: is not what was written (its name is its "
                f"SHA-256); restore it from a copy"
            )
        return content

    def delete_others(self, digests: Iterable[str]) -> None:
        """Deletes all contents but these, such as training states once training is over.

        Raises:
            StoreError: the store refuses.
        """
        kept_names = {digest + _SUFFIX for digest in digests}
        for name in self._folder.names():
            if name.endswith(_SUFFIX) and name not in kept_names:
                self._folder.delete(name)
