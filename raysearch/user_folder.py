"""Lets a user's file import from its own folder: `import helper` finds the helper.py beside it.

Invariants: the folder is searched after all installed packages, so that a `random.py` in it
replaces nothing; two files in two folders each find the helper beside themselves; a file that is
run again finds the current version of its helper.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_folders: list[str] = []
"""The folder of the last file that was run, which we added to `sys.path`."""
_executed: set[Path] = set()
"""Files in that folder that were run."""
_imported: set[str] = set()
"""Modules that were imported while they ran."""


@contextmanager
def local_imports(file: Path) -> Iterator[None]:
    """Lets `file` (absolute) import from its folder while it is run, and later in its functions."""
    before = set(sys.modules)
    _use_folder_of(file)
    try:
        yield
    finally:
        _imported.update(set(sys.modules) - before)


def _use_folder_of(file: Path) -> None:
    folder = str(file.parent)
    if folder not in _folders or file in _executed:
        for name in [name for name in _imported if _is_in(name, _folders)]:
            del sys.modules[name]
        _imported.clear()
        _executed.clear()
    _executed.add(file)
    if _folders and sys.path[-1] == _folders[0]:  # where it was added below
        sys.path.pop()
    _folders[:] = [folder]
    if folder not in sys.path:
        sys.path.append(folder)


def _is_in(name: str, folders: Sequence[str]) -> bool:
    """Says whether a module is in one of `folders`, or in a package that is."""
    top = sys.modules.get(name.partition(".")[0])
    file = Path(getattr(top, "__file__", None) or "/")
    found = file.parent if file.name == "__init__.py" else file
    return name in sys.modules and str(found.parent) in folders
