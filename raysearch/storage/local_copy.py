"""Copies files of a folder to this machine, for code that reads local disks only."""

from collections.abc import Iterable
from pathlib import Path

from raysearch.storage.folder import Folder
from raysearch.storage.local import LocalFolder


def on_this_machine(folder: Folder, names: Iterable[str], scratch: Path) -> list[Path]:
    """Returns local paths of files: their own if the folder is on disk, else of copies below
    `scratch`.

    Raises:
        StoreError: a file cannot be read.
    """
    if isinstance(folder, LocalFolder):
        return [folder.check_plain(name) for name in names]
    copies = LocalFolder(scratch / folder.name)
    for name in (names := list(names)):
        copies.write(name, folder.read(name))
    return [copies.path / name for name in names]
