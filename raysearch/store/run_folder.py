"""The folder of one run, on a disk or an object store: run.json, job.yaml, a lock, and folders of
data.

Its name is STORE/<name>-<UTC time>-<first 8 digits of the job hash>. Invariants: run.json is
replaced as a whole, never edited in place, and has a checksum of itself; it holds no credentials;
on a disk one driver at a time works on a run (flock, which the kernel releases when a driver dies);
on an object store the later one counts (journal.py).
"""

import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from raysearch._version import __version__
from raysearch.errors import StoreError
from raysearch.storage.digests_json import checksum, sha256
from raysearch.storage.folder import Folder
from raysearch.storage.local import LocalFolder
from raysearch.storage.open_folder import open_folder
from raysearch.storage.uris import is_uri, without_credentials
from raysearch.store.source_commit import source_commit

SCHEMA_VERSION = 1
"""Version of run.json, the journal and the tables."""
PACKAGES = ("raysearch", "torch", "transformers", "ray")
JOB_FILE = "job.yaml"
_INFO_FILE = "run.json"
_SUM = "sum"
_STAMP = "%Y%m%dT%H%M%SZ"
_ID = re.compile(r"[A-Za-z0-9._-]+")
"""A run's id is used in commands, file names and queries."""
_OLD_NAMES = {"mlflow_run_id": "tracking_run_id"}
"""Fields of run.json in runs before 2026-11-29, and their names now."""
_RUN_NAME = re.compile(r"-(\d{8}T\d{6}Z)-[0-9a-f]{8}$")
_LATEST = re.compile(r"latest(?:~(\d{1,9}))?")


@dataclass(frozen=True, slots=True)
class RunInfo:
    """The contents of run.json.

    Args:
        store_uri: absolute, without credentials, as `tracking_uri`.
        facts: what was known of the model, so that the search can be rebuilt without it.
        k: the most hypotheses that the proposer may propose (K); 0 if it is open-ended; None in
            runs before 2026-11-29.
        scale: scale of logit differences, if the test is on them (search/score_scale.py).
        job_sha256: SHA-256 of the bytes of job.yaml, in 64 hex digits; None in runs before
            2026-11-30.
        used_before: by run of the store that had tested on some of the test pairs when this one
            began, on how many, at which `k` and `false_accept`.
        continued: further pairs of each continuation, by its number, from "1".
        sealed: whether its files have digests (storage/digests_json.py); runs of older versions
            have none.
    """

    id: str
    name: str
    job_hash: str
    job_digest: str
    evidence_version: int
    created: str
    store_uri: str
    tracking_uri: str | None = None
    model_digest: str | None = None
    tracking_run_id: str | None = None
    facts: Mapping[str, Any] | None = None
    k: int | None = None
    scale: float | None = None
    job_sha256: str | None = None
    used_before: Mapping[str, Any] = field(default_factory=dict)
    continued: Mapping[str, Any] = field(default_factory=dict)
    sealed: bool = False
    versions: Mapping[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION


class RunFolder:
    """A run on disk or in an object store; make one with `create`, `open` or `find_run`.

    `place` is its path or URI, as shown and as `resume` takes it. Its folders are `journal`,
    `tables`, `interventions` and `heatmaps` (not all exist at first).
    """

    def __init__(self, folder: Folder, info: RunInfo) -> None:
        self.folder = folder
        self.place = folder.place
        self.info = info
        self.journal = folder.at("journal")
        self.tables = folder.at("tables")
        self.interventions = folder.at("interventions")
        self.heatmaps = folder.at("heatmaps")

    @property
    def path(self) -> Path:
        """Path of a run on local disk.

        Raises:
            StoreError: the run is on an object store.
        """
        if not isinstance(self.folder, LocalFolder):
            raise StoreError(f"{self.place}: is no folder of this machine; copy the run to one")
        return self.folder.path

    @classmethod
    def create(
        cls,
        store: str | Path | Folder,
        *,
        name: str,
        job_hash: str,
        job_digest: str,
        job_text: str,
        evidence_version: int,
        tracking_uri: str | None = None,
        now: Callable[[], datetime] | None = None,
        commit: Mapping[str, str] | None = None,
    ) -> "RunFolder":
        """Makes a new run folder with run.json and job.yaml.

        A second run in the same second takes the next free second. `commit`: as `source_commit`
        gives it; None: that of the working directory.

        Raises:
            StoreError: the store cannot be written.
        """
        root = open_folder(store)
        at = (now or _utc_now)()
        folder, at = _claim_free(root, re.sub(r"[^A-Za-z0-9._-]+", "-", name), job_hash, at)
        info = RunInfo(
            id=folder.name,
            name=name,
            job_hash=job_hash,
            job_digest=job_digest,
            evidence_version=evidence_version,
            created=at.isoformat(),
            store_uri=root.place,
            tracking_uri=without_credentials(tracking_uri) if tracking_uri else None,
            versions=installed_versions() | dict(source_commit() if commit is None else commit),
            job_sha256=sha256(job_text.encode()),
        )
        run = cls(folder, info)
        folder.write(JOB_FILE, job_text.encode())
        run._write_info(info)
        return run

    @classmethod
    def open(cls, place: str | Path | Folder) -> "RunFolder":
        """Opens the run at a path or URI.

        Raises:
            StoreError: there is no run; the text names what is missing.
        """
        folder = open_folder(place)
        missing = [needed for needed in (_INFO_FILE, JOB_FILE) if not folder.exists(needed)]
        if not missing:
            return cls(folder, _read_info(folder))
        if not folder.names() and not folder.folders():
            raise StoreError(
                f"{folder.place}: there is no such folder; `ls` the store for its runs"
            )
        raise StoreError(
            f"{folder.place}: this is no run folder, {missing[0]} is missing; give a folder "
            f"<name>-<time>-<hash> of the store"
        )

    @property
    def job_text(self) -> str:
        """The text of job.yaml.

        Raises:
            StoreError: it cannot be read, or has other bytes than when the run began.
        """
        content = self.folder.read(JOB_FILE)
        if self.info.job_sha256 not in (None, sha256(content)):
            raise StoreError(
                f"{self.folder.shown(JOB_FILE)}: was edited since the run began, or is damaged, so "
                f"its model and test may be others; put it back"
            )
        return content.decode("utf-8", errors="replace")

    def update(self, **changes: Any) -> None:
        """Replaces fields of run.json, e.g. `model_digest` or `tracking_run_id`.

        Raises:
            StoreError: it cannot be written.
        """
        info = replace(self.info, **changes)
        if info != self.info:
            self._write_info(info)
            self.info = info

    def lock(self) -> AbstractContextManager[None]:
        """Locks the run for this driver, on a disk.

        Raises:
            StoreError: another driver holds it.
        """
        return self.folder.lock(f"run {self.info.id}")

    def _write_info(self, info: RunInfo) -> None:
        plain = asdict(info)
        plain[_SUM] = checksum(plain)
        self.folder.write(_INFO_FILE, (json.dumps(plain, indent=2, sort_keys=True) + "\n").encode())


def find_run(store: str | Path | Folder, name_or_place: str | Path) -> RunFolder:
    """Returns the run at a path or URI, or the one of the store that `runs_named` finds.

    Raises:
        StoreError: there is none, and the text names the nearest; or there are several.
    """
    text = str(name_or_place)
    if is_uri(text) or (Path(text) / _INFO_FILE).is_file():
        return RunFolder.open(text)
    root = open_folder(store)
    names = run_names(root)
    found = runs_named(text, names)
    if len(found) == 1:
        return RunFolder.open(root.at(found[0]))
    if found:
        raise StoreError(
            f"{text!r}: {len(found)} runs of store {root.place} are called so, the newest "
            f"{', '.join(found[:-4:-1])}{', ...' * (len(found) > 3)}; give more of the name"
        )
    if Path(text).is_dir():
        return RunFolder.open(text)  # says what is missing
    raise StoreError(
        f"there is no run {text!r}, neither as a path nor in store {root.place}; "
        f"{_hint(text, names)}"
    )


def runs_named(text: str, names: Sequence[str]) -> Sequence[str]:
    """Returns those of a store's runs that `text` may stand for: a whole name; "latest", or
    "latest~2" for the one that is two older; the name of a job; or the beginning of a name.

    Args:
        names: as `run_names` returns them.
    """
    if text in names:
        return [text]
    if at := _LATEST.fullmatch(text):
        older = int(at[1] or 0)
        return names[-1 - older : len(names) - older] if older < len(names) else []
    of_job = [name for name in names if name.rsplit("-", 2)[0] == text]
    return of_job or [name for name in names if text and name.startswith(text)]


def _hint(text: str, names: Sequence[str]) -> str:
    """Suggests a similar run, or the newest."""
    if not names:
        return "that store holds no runs; is --store right?"
    by_job = {name.rsplit("-", 2)[0]: name for name in names}
    near = difflib.get_close_matches(text, by_job, n=1) or difflib.get_close_matches(
        text, names, n=1
    )
    if near:
        return f"did you mean {by_job.get(near[0], near[0])!r}?"
    older = f" and its oldest {names[0]!r}" * (bool(_LATEST.fullmatch(text)) and len(names) > 1)
    return f"its newest is {names[-1]!r}{older}"


def run_names(store: str | Path | Folder) -> list[str]:
    """Returns the names of the runs in a store, oldest first."""
    root = open_folder(store)
    found = sorted((m[1], name) for name in root.folders() if (m := _RUN_NAME.search(name)))
    while found and not root.at(found[-1][1]).exists(_INFO_FILE):
        # Just being made, or abandoned then. Older ones are not checked, at one request each.
        found.pop()
    return [name for _, name in found]


def installed_versions() -> dict[str, str]:
    """Returns the versions of raysearch, torch, transformers and ray, without importing them.

    "none" stands for a package that is not installed.
    """
    return {package: _version(package) for package in PACKAGES}


def _version(package: str) -> str:
    if package == "raysearch":
        return __version__
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _claim_free(root: Folder, name: str, job_hash: str, at: datetime) -> tuple[Folder, datetime]:
    while True:
        folder = root.claim(f"{name}-{at.strftime(_STAMP)}-{job_hash[:8]}")
        if folder is not None:
            return folder, at
        at += timedelta(seconds=1)


def _read_info(folder: Folder) -> RunInfo:
    path = folder.shown(_INFO_FILE)
    try:
        raw = json.loads(folder.read(_INFO_FILE))
        known = {f.name for f in fields(RunInfo)} | set(_OLD_NAMES)
        found = raw.get("schema_version")
        if found != SCHEMA_VERSION:
            raise StoreError(
                f"{path}: schema_version is {found!r}, this version reads {SCHEMA_VERSION}; use "
                f"the raysearch that made it"
            )
        _check_sum(raw, known, path)
        info = RunInfo(**{_OLD_NAMES.get(k, k): v for k, v in raw.items() if k in known})
        _check_types(info)
        if not _ID.fullmatch(info.id):
            raise ValueError(
                f"its id is {info.id[:100]!r}, and a run's has letters, digits, '.', '_' and '-'"
            )
        return info
    except (ValueError, TypeError, AttributeError, RecursionError) as e:
        raise StoreError(
            f"{path}: cannot be read ({e}); it is written by raysearch and holds one JSON object"
        ) from e


def _check_types(info: RunInfo) -> None:
    """Raises: TypeError for a value that is not of the field's type, ValueError for a time that is
    none.
    """
    for name, hint in get_type_hints(RunInfo).items():
        kinds = tuple(get_origin(kind) or kind for kind in get_args(hint) or (hint,))
        if get_origin(hint) is Mapping:
            kinds = (Mapping,)
        value = getattr(info, name)
        wrong = isinstance(value, bool) and bool not in kinds
        if wrong or not isinstance(value, (*kinds, int) if float in kinds else kinds):
            raise TypeError(f"{name} is {value!r:.60}")
    datetime.fromisoformat(info.created)


def _check_sum(raw: dict[str, Any], known: set[str], path: str) -> None:
    """Checks that run.json is what was written.

    Older versions wrote no checksum, and no key that is unknown here.

    Raises:
        StoreError: it was damaged or edited.
    """
    if raw[_SUM] != checksum(raw) if _SUM in raw else "sealed" in raw or not known.issuperset(raw):
        raise StoreError(
            f"{path}: is damaged or was edited, its checksum is another; restore it from a copy "
            f"(nothing else holds what it says)"
        )


def _utc_now() -> datetime:
    return datetime.now(UTC)
