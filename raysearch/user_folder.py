"""The folder of a user's file, which that file may import from: `import helper` finds the helper.py
beside it.

Invariants: it is looked in after all that is installed, so that a `random.py` in it takes the place
of nothing; of two files in two folders each finds the helper beside itself; one that is run again
finds its helper as that is now.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_folders: list[str] = []
"""Where we have let modules be looked for: the last file's folder."""
_ran: set[Path] = set()
"""The files in it that were run."""
_came: set[str] = set()
"""Modules that were imported while they ran."""


@contextmanager
def beside(file: Path) -> Iterator[None]:
    """While inside, `file` (absolute) is run; what it imports later, in a function of its own, is
    found too."""
    before = set(sys.modules)
    _look_in(file)
    try:
        yield
    finally:
        _came.update(set(sys.modules) - before)


def _look_in(file: Path) -> None:
    folder = str(file.parent)
    if folder not in _folders or file in _ran:
        for name in [name for name in _came if _is_in(name, _folders)]:
            del sys.modules[name]
        _came.clear()
        _ran.clear()
    _ran.add(file)
    if _folders and sys.path[-1] == _folders[0]:  # where we put it
        sys.path.pop()
    _folders[:] = [folder]
    if folder not in sys.path:
        sys.path.append(folder)


def _is_in(name: str, folders: Sequence[str]) -> bool:
    """Whether a module lies in one of `folders`, or in a package that does."""
    top = sys.modules.get(name.partition(".")[0])
    file = Path(getattr(top, "__file__", None) or "/")
    found = file.parent if file.name == "__init__.py" else file
    return name in sys.modules and str(found.parent) in folders
