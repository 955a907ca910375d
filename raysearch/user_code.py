"""Code of the user's that a job names: "package.module:name" or "/path/file.py:name".

Invariants: whatever is wrong with it is one line that names the key of the job; the user's own exception stays chained.
"""

import importlib
import importlib.util
import re
import sys
import warnings
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
    try:
        with (
            warnings.catch_warnings()
        ):  # whose file it is should hear of older import paths (old_paths.py), though it is no __main__
            warnings.filterwarnings("default", category=DeprecationWarning, module=re.escape(spec.name))
            spec.loader.exec_module(module)
    except Exception as e:
        raise JobError(f"{key}: {path} cannot be run: {type(e).__name__}: {e}") from e
    return module
