"""Code of the user's that a job names: "package.module:name" or "/path/file.py:name".

Invariants: whatever is wrong with it is one line that names the key of the job; the user's own exception stays chained; a file finds the
modules beside it (`import helper`), and nobody else does: they come after all that is installed, so that a `random.py` there takes the
place of nothing.
"""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from raysearch.errors import JobError


def module_of(place: str, key: str, would_do: str) -> ModuleType:
    """The module "package.module" or "/path/file.py", run if it was not yet (a file: run anew).

    `key`: of the job, such as "problem.use"; `would_do`: what to give instead. Raises: JobError.
    """
    return _from_file(Path(place), key) if place.endswith(".py") else _from_package(place, key, would_do)


def _from_package(name: str, key: str, would_do: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as e:
        raise JobError(f"{key}: there is no module {name!r} ({e}); give {would_do}") from e
    except Exception as e:
        raise JobError(f"{key}: {name} cannot be imported: {type(e).__name__}: {e}") from e


def _from_file(path: Path, key: str) -> ModuleType:
    if not path.is_file():
        raise JobError(f"{key}: there is no file {path}")
    spec = importlib.util.spec_from_file_location(f"raysearch_user_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    before = set(sys.modules)
    _stand_beside(path.resolve())
    try:
        spec.loader.exec_module(module)
    except Exception as e:
        raise JobError(f"{key}: {path} cannot be run: {type(e).__name__}: {e}") from e
    finally:
        _beside.update(set(sys.modules) - before)
    return module


_folders: list[str] = []
"""Of users' files, that we have put at the end of sys.path."""
_ran: set[Path] = set()
"""The files in it that were run."""
_beside: set[str] = set()
"""Modules that came with them."""


def _stand_beside(file: Path) -> None:
    """The folder of `file` is where modules are looked for last.

    Those that came from the folder before it are forgotten, and those from its own where the file is run again: a `helper` is that of the
    file that asks for it, as it is now.
    """
    folder = str(file.parent)
    if folder not in _folders or file in _ran:
        for name in [name for name in _beside if _is_in(name, _folders)]:
            del sys.modules[name]
        _beside.clear()
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
