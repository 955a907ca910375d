"""Tries everything that a search needs here, and says in one line each what is wrong and how to
mend it.

Invariants: a check ends within seconds, whatever is down; a failed check does not stop the others;
no secret is shown; nothing heavy is imported before its check.
"""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from raysearch.errors import RaysearchError
from raysearch.old_paths import OldName
from raysearch.store.locations import DEFAULT_STORE
from raysearch.tracking.uris import NO_TRACKER
from raysearch.visible_text import one_line

SHARED_MEMORY = 2**30
"""Bytes of /dev/shm below which Ray's object store uses the disk; Docker gives 64 MiB."""
ROOM = 2 * 2**30
"""Bytes of free disk below which the logs of Ray and a run soon do not fit."""
FULL = 0.95
"""Share of a disk above which Ray creates no objects on it (its local_fs_capacity_threshold)."""

SHOWN_PACKAGES = ("torch", "transformers", "ray", "pyarrow")
"""Packages whose versions are always shown."""


@dataclass(frozen=True)
class CheckResult:
    """The result of one check. `message`: what was found, with the remedy if it is not ok."""

    check: str
    ok: bool
    message: str
    said = OldName("message")


def health_checks(
    address: str | None = None,
    job: str | Path | None = None,
    store: str | Path = DEFAULT_STORE,
    tracking_uri: str = NO_TRACKER,
) -> Iterator[CheckResult]:
    """Yields the result of each check, in order; none stops the others.

    Args:
        address: the Ray cluster that a run would join.
        job: a job file whose model is read.
        store, tracking_uri: as of a run.
    """
    checks: list[tuple[str, Callable[[], str]]] = [
        ("python", _python),
        ("packages", _packages),
        ("raysearch", _raysearch),
        ("devices", _devices),
        ("memory", _memory),
        ("/dev/shm", _shared_memory),
        ("disk", _disk),
        ("cache", _cache),
        ("store", lambda: _store(str(store))),
        ("ray", lambda: _cluster(address)),
        ("ray token", _token),
        ("ray jobs", _job_server),
        (_tracker_name(tracking_uri), lambda: _tracking(tracking_uri)),
    ]
    if job is not None:
        checks.append(("model", lambda: _model(Path(job))))
    for name, check in checks:
        yield _tried(name, check)


def _tracker_name(uri: str) -> str:
    try:
        from raysearch.tracking.registry import tracker_of

        return tracker_of(uri).name
    except (ImportError, RaysearchError):  # the check itself says what is wrong
        return "tracker"


def _tried(check: str, run: Callable[[], str]) -> CheckResult:
    try:
        return CheckResult(check, True, run())
    except RaysearchError as e:
        return CheckResult(check, False, str(e))
    except ImportError as e:
        return CheckResult(check, False, f"cannot be tried ({e}); install it anew from its sources")
    except Exception as e:  # noqa: BLE001  reported: an environment can be broken in any way
        return CheckResult(check, False, f"cannot be tried ({type(e).__name__}: {one_line(e)})")


def _python() -> str:
    from packaging.specifiers import SpecifierSet

    here = platform.python_version()
    wanted = SpecifierSet(_metadata().metadata["Requires-Python"])
    if not wanted.contains(here, prereleases=True):
        raise RaysearchError(
            f"{here}, and raysearch needs {wanted}; make an environment of such a Python"
        )
    return f"{here} in {sys.prefix}"


def _packages() -> str:
    from packaging.requirements import Requirement

    needed = [Requirement(text) for text in _metadata().requires or ()]
    needed = [r for r in needed if r.marker is None or r.marker.evaluate()]
    found = {r.name: _version(r.name) for r in needed}
    wrong = [
        f"{r.name} is {found[r.name] or 'missing'}, needed is {r.specifier or 'any version'}"
        for r in needed
        if found[r.name] is None or not r.specifier.contains(found[r.name] or "", prereleases=True)
    ]
    if wrong:
        raise RaysearchError(f"{', '.join(wrong)}; pip install -U -e . where the sources are")
    from raysearch.tracking.registry import DEFAULT

    shown = ", ".join(f"{name} {_version(name)}" for name in (*SHOWN_PACKAGES, DEFAULT.name))
    return f"{shown}; all {len(needed)} that are needed are new enough"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _metadata() -> Any:
    from raysearch.deploy.wheel import own_distribution

    return own_distribution()


def _raysearch() -> str:
    import raysearch
    from raysearch.deploy.wheel import DISTRIBUTION, find_name_conflict

    if (conflict := find_name_conflict()) is not None:
        raise RaysearchError(conflict)
    return f"{DISTRIBUTION} {raysearch.__version__}, from {Path(raysearch.__file__).parent}"


def _devices() -> str:
    from raysearch.engine.execution.devices import gpus

    return gpus()


def _memory() -> str:
    from raysearch.engine.execution.devices import memory

    return memory()


def _shared_memory() -> str:
    path = Path("/dev/shm")
    if not path.is_dir():
        return "this system has none, and Ray needs none on it"
    total = shutil.disk_usage(path).total
    if total < SHARED_MEMORY:
        raise RaysearchError(
            f"{total / 2**30:.2f} GiB, too little for Ray's objects; in a container: "
            f"--shm-size=2g, or an emptyDir of medium Memory"
        )
    return f"{total / 2**30:.1f} GiB"


def _disk() -> str:
    rooms = []
    for path in dict.fromkeys(
        (os.environ.get("RAY_TMPDIR") or tempfile.gettempdir(), str(Path.cwd()))
    ):
        if not Path(path).is_dir():
            raise RaysearchError(f"{path}: there is no such folder; RAY_TMPDIR must name one")
        usage = shutil.disk_usage(path)
        if usage.free < ROOM or 1 - usage.free / usage.total > FULL:
            raise RaysearchError(
                f"{path}: {usage.free / 2**30:.1f} GiB free of {usage.total / 2**30:.0f}; free "
                f"some, or name another (RAY_TMPDIR, --store)"
            )
        rooms.append(f"{path}: {usage.free / 2**30:.0f} GiB free")
    return ", ".join(rooms)


def _cache() -> str:
    from raysearch.user_cache import VARIABLE, cache_folder

    folder = cache_folder()
    if folder is None:
        return f"nothing is remembered between runs ({VARIABLE}=off)"
    return f"{folder}: what may be deleted at any time; {VARIABLE} names another folder, or off"


def _store(uri: str) -> str:
    from raysearch.store.locations import writable_store

    return f"{writable_store(uri).place} can be written"


def _cluster(address: str | None) -> str:
    from raysearch.cluster.connection_checks import check_cluster

    return check_cluster(address or os.environ.get("RAY_ADDRESS"))


def _token() -> str:
    from raysearch.cluster.connection_checks import check_token

    return check_token()


def _job_server() -> str:
    from raysearch.cluster.connection_checks import check_job_server

    return check_job_server(os.environ.get("RAY_API_SERVER_ADDRESS"))


def _tracking(uri: str) -> str:
    from raysearch.tracking.registry import tracker_of
    from raysearch.tracking.uris import tracking_uri

    absolute = tracking_uri(uri)
    if absolute is None:
        return "kept out (--tracking-uri none)"
    return tracker_of(absolute).check(absolute)


def _model(job: Path) -> str:
    """Reads the model's files; runs neither the problem's code nor the model's."""
    from raysearch.engine.loading.inspect_model import inspect_model
    from raysearch.job import Job

    source = Job.load(job).source
    if source.is_factory or source.trust_remote_code:
        return (
            f"{source.path}: is made by code, which doctor does not run; `raysearch plan {job}` "
            "does"
        )
    summary = inspect_model(source)
    return (
        f"{source.path}: {summary.layers} layers, {summary.weight_bytes / 2**30:.2f} GiB of weights"
    )
