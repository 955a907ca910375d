"""The trackers there are: MLflow, and those of installed packages, by the scheme of their URIs.

Invariants: a package adds a tracker by an entry point of the group `raysearch.trackers`, whose name
is the scheme of its URIs (`name://...`) and whose value is a `TrackerKind`; MLflow takes every
other URI. `none` is no tracker.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from raysearch.errors import JobError
from raysearch.plugins import installed_plugins, load, package_of
from raysearch.tracking.mlflow import Mlflow
from raysearch.tracking.tracker import TrackedRun, Tracker, TrackerKind

GROUP = "raysearch.trackers"
READY: dict[str, TrackerKind] = {kind.name: kind for kind in (Mlflow(),)}
"""The trackers of raysearch, by the scheme of their URIs."""
DEFAULT = READY[Mlflow.name]
"""The tracker of all other URIs."""
_PARTS = ("name", "title", "example", "credentials", "open", "check")


def tracker_of(uri: str) -> TrackerKind:
    """Returns the tracker for a URI. Raises: JobError if its package cannot be imported."""
    scheme = uri.partition("://")[0]
    if scheme == uri or scheme in READY or scheme not in installed_plugins(GROUP):
        return READY.get(scheme, DEFAULT)
    kind: Any = load(GROUP, scheme, "--tracking-uri")
    missing = [part for part in _PARTS if not hasattr(kind, part)]
    if missing:
        raise JobError(
            f"--tracking-uri: {scheme} of {package_of(installed_plugins(GROUP)[scheme])} is no "
            f"tracker: it lacks {', '.join(missing)}"
        )
    return _Installed(kind)


def _not_shown(_: object) -> None:
    """Takes what a tracker does not show."""


_DEFAULTS = {"address": None, "describe": _not_shown, "show_best": _not_shown}
"""The members of a `Tracker` that a package's may lack."""


class _Installed:
    """The kind of an installed package, which need not derive from the protocols to have their
    defaults."""

    def __init__(self, kind: Any) -> None:
        self._kind = kind
        self.name: str = kind.name
        self.title: str = kind.title
        self.example: str = kind.example
        self.credentials: str = kind.credentials
        self.imports: Sequence[str] = getattr(kind, "imports", ())

    def open(self, run: TrackedRun) -> Tracker:
        tracker = self._kind.open(run)
        lacks = {name: what for name, what in _DEFAULTS.items() if not hasattr(tracker, name)}
        completed: Any = _Completed(tracker, lacks)
        made: Tracker = completed if lacks else tracker
        return made

    def check(self, uri: str) -> str:
        said: str = self._kind.check(uri)
        return said


class _Completed:
    """A tracker with what it lacks."""

    def __init__(self, tracker: Any, lacks: Mapping[str, Any]) -> None:
        self._tracker = tracker
        vars(self).update(lacks)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tracker, name)
