"""Files of a folder for those who can only read this machine's disk."""

from collections.abc import Iterable
from pathlib import Path

from raysearch.storage.folder import Folder
from raysearch.storage.local import LocalFolder


def on_this_machine(folder: Folder, names: Iterable[str], scratch: Path) -> list[Path]:
    """The paths of files: themselves where the folder is on disk, else copies below `scratch`.
    Raises: StoreError."""
    if isinstance(folder, LocalFolder):
        return [folder.check_plain(name) for name in names]
    copies = LocalFolder(scratch / folder.name)
    for name in (names := list(names)):
        copies.write(name, folder.read(name))
    return [copies.path / name for name in names]
