"""The folder of one run: STORE/<name>-<UTC time>-<job hash 8>/, its run.json, job.yaml and lock.

Invariants: run.json is replaced whole, never edited in place; it holds no credentials; one driver at a time works on a
run (flock, which the kernel lets go of when a driver dies, however it dies).
"""

import difflib
import fcntl
import json
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from raysearch.errors import StoreError
from raysearch.store.places import store_path, without_credentials
from raysearch.whole_file import make_folder, write_text_whole

SCHEMA_VERSION = 1
"""Of run.json, the journal and the tables."""
PACKAGES = ("raysearch", "torch", "transformers", "ray")
_STAMP = "%Y%m%dT%H%M%SZ"
_RUN_NAME = re.compile(r"-(\d{8}T\d{6}Z)-[0-9a-f]{8}$")


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What run.json says. `store_uri` and `tracking_uri` are absolute and without credentials."""

    id: str
    name: str
    job_hash: str
    job_digest: str
    evidence_version: int
    created: str
    store_uri: str
    tracking_uri: str | None = None
    model_digest: str | None = None
    mlflow_run_id: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION


class RunFolder:
    """A run on local disk. Make one with `create`, `open` or `find_run`.

    Places in it: `journal`, `pairs`, `tables`, `job_file`, `heatmaps` (paths; not all exist at first).
    """

    def __init__(self, path: Path, info: RunInfo) -> None:
        self.path = path
        self.info = info
        self.journal = path / "journal"
        self.pairs = path / "pairs.parquet"
        self.tables = path / "tables"
        self.interventions = path / "interventions"
        self.job_file = path / "job.yaml"
        self.heatmaps = path / "heatmaps"

    @classmethod
    def create(
        cls,
        store: str | Path,
        *,
        name: str,
        job_hash: str,
        job_digest: str,
        job_text: str,
        evidence_version: int,
        tracking_uri: str | None = None,
        now: Callable[[], datetime] | None = None,
    ) -> "RunFolder":
        """A new run folder with run.json and job.yaml. A second run in the same second takes the next free second.

        Raises: StoreError if the store cannot be written; NotYetError for object stores.
        """
        root = store_path(store)
        at = (now or _utc_now)()
        try:
            root.mkdir(parents=True, exist_ok=True)
            path, at = _make_free_folder(root, re.sub(r"[^A-Za-z0-9._-]+", "-", name), job_hash, at)
            make_folder(path / "tables")
        except OSError as e:
            raise StoreError(
                f"store {root}: cannot be written ({e.strerror or e}); give --store a folder that you may write"
            ) from e
        info = RunInfo(
            id=path.name,
            name=name,
            job_hash=job_hash,
            job_digest=job_digest,
            evidence_version=evidence_version,
            created=at.isoformat(),
            store_uri=str(root),
            tracking_uri=without_credentials(tracking_uri) if tracking_uri else None,
            versions=installed_versions(),
        )
        run = cls(path, info)
        write_text_whole(run.job_file, job_text)
        run._write_info(info)
        return run

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """The run at `path`. Raises: StoreError if it is none, naming what is missing."""
        path = Path(path).absolute()
        if not path.is_dir():
            raise StoreError(f"{path}: there is no such folder; `ls` the store for its runs")
        for needed in ("run.json", "job.yaml"):
            if not (path / needed).is_file():
                raise StoreError(
                    f"{path}: this is no run folder, {needed} is missing; give a folder <name>-<time>-<hash> of the store"
                )
        return cls(path, _read_info(path / "run.json"))

    def update(self, **changes: Any) -> None:
        """Replaces fields of run.json, e.g. `model_digest`, `mlflow_run_id`. Raises: StoreError if it cannot be written."""
        info = replace(self.info, **changes)
        if info != self.info:
            self._write_info(info)
            self.info = info

    @contextmanager
    def lock(self) -> Iterator[None]:
        """This driver alone works on the run while inside. Raises: StoreError if another one does."""
        path = self.path / "lock"
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as e:
            raise StoreError(
                f"{path}: cannot be opened ({e.strerror or e}); a driver must be able to write the run folder"
            ) from e
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as e:
                holder = os.read(handle, 200).decode(errors="replace").strip() or "another driver"
                raise StoreError(
                    f"run {self.info.id}: {holder} works on it now; wait for its end or stop it, then `resume`"
                ) from e
            except OSError as e:
                raise StoreError(
                    f"{path}: this file system cannot lock ({e.strerror or e}); give --store a local folder"
                ) from e
            os.ftruncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
            yield
        finally:
            os.close(handle)

    def _write_info(self, info: RunInfo) -> None:
        write_text_whole(self.path / "run.json", json.dumps(asdict(info), indent=2, sort_keys=True) + "\n")


def find_run(store: str | Path, name_or_path: str | Path) -> RunFolder:
    """The run at a path; else the one of that name in the store; else, for "latest", the newest of the store.

    Raises: StoreError if there is none, naming the nearest.
    """
    text = str(name_or_path)
    if Path(text).is_dir():
        return RunFolder.open(text)
    root = store_path(store)
    names = run_names(root)
    if text == "latest" and names:
        return RunFolder.open(root / names[-1])
    if text in names:
        return RunFolder.open(root / text)
    near = difflib.get_close_matches(text, names, n=1, cutoff=0.4) or names[-1:]
    hint = f"did you mean {near[0]!r}?" if near else "that store holds no runs; is --store right?"
    raise StoreError(f"there is no run {text!r}, neither as a path nor in store {root}; {hint}")


def run_names(store: str | Path) -> list[str]:
    """The names of the runs in a store, oldest first."""
    root = store_path(store)
    found = [(m[1], p.name) for p in root.glob("*/run.json") for p in [p.parent] if (m := _RUN_NAME.search(p.name))]
    return [name for _, name in sorted(found)]


def installed_versions() -> dict[str, str]:
    """The versions of raysearch, torch, transformers and ray; "none" where one is not installed. Imports none of them."""
    return {package: _version(package) for package in PACKAGES}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        if package == "raysearch":
            from raysearch import __version__

            return __version__
        return "none"


def _make_free_folder(root: Path, name: str, job_hash: str, at: datetime) -> tuple[Path, datetime]:
    while True:
        path = root / f"{name}-{at.strftime(_STAMP)}-{job_hash[:8]}"
        try:
            make_folder(path)
        except FileExistsError:
            at += timedelta(seconds=1)
        else:
            return path, at


def _read_info(path: Path) -> RunInfo:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        known = {f.name for f in fields(RunInfo)}
        found = raw.get("schema_version")
        if found != SCHEMA_VERSION:
            raise StoreError(
                f"{path}: schema_version is {found!r}, this version reads {SCHEMA_VERSION}; use the raysearch that made it"
            )
        return RunInfo(**{k: v for k, v in raw.items() if k in known})
    except (OSError, ValueError, TypeError, AttributeError) as e:
        raise StoreError(f"{path}: cannot be read ({e}); it is written by raysearch and holds one JSON object") from e


def _utc_now() -> datetime:
    return datetime.now(UTC)
