"""What was fit, as files named by their content: interventions/<SHA-256>.safetensors.

Invariants: a file is written whole, before the event that names it is journalled; what is read is what was written, or an error.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from raysearch.errors import StoreError
from raysearch.whole_file import make_folder, write_bytes_whole


class Fits:
    """The folder of a run's fitted subspaces, and of where their training stood."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, tensors: Mapping[str, bytes]) -> None:
        """Each content is on disk when this returns. Raises: StoreError if the disk refuses."""
        for digest, content in tensors.items():
            assert hashlib.sha256(content).hexdigest() == digest, "a content goes by its own digest"
            path = self._path(digest)
            if path.exists():
                continue
            if not self._folder.exists():
                try:
                    make_folder(self._folder)
                except OSError as e:
                    raise StoreError(
                        f"{self._folder}: cannot be made ({e.strerror or e}); free the disk, then `resume`"
                    ) from e
            write_bytes_whole(path, content)

    def read(self, digest: str) -> bytes:
        """The content. Raises: StoreError where the file is missing, or is not what was written."""
        path = self._path(digest)
        try:
            content = path.read_bytes()
        except OSError as e:
            raise StoreError(
                f"{path}: cannot be read ({e.strerror or e}), and the journal says that it was fit; restore it from a copy"
            ) from e
        if hashlib.sha256(content).hexdigest() != digest:
            raise StoreError(f"{path}: is not what was written (its name is its SHA-256); restore it from a copy")
        return content

    def keep_only(self, digests: Iterable[str]) -> None:
        """Lets go of all others: where training stood, once it is over. Raises: StoreError if the disk refuses."""
        kept = {self._path(digest) for digest in digests}
        for path in self._folder.glob("*.safetensors") if self._folder.is_dir() else ():
            if path not in kept:
                try:
                    path.unlink()
                except OSError as e:
                    raise StoreError(
                        f"{path}: cannot be removed ({e.strerror or e}); the driver must be able to write there"
                    ) from e

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}.safetensors"
