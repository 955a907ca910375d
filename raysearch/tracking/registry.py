"""The trackers there are: MLflow, and those of installed packages, by the scheme of their URIs.

Invariants: a package adds a tracker by an entry point of the group `raysearch.trackers`, whose name
is the scheme of its URIs (`name://...`) and whose value is a `TrackerKind`; MLflow takes every
other URI. `none` is no tracker.
"""

from raysearch.errors import JobError
from raysearch.plugins import installed, load, package_of
from raysearch.tracking.mlflow import Mlflow
from raysearch.tracking.tracker import TrackerKind

GROUP = "raysearch.trackers"
READY: dict[str, TrackerKind] = {kind.name: kind for kind in (Mlflow(),)}
"""The trackers of raysearch, by the scheme of their URIs."""
DEFAULT = READY[Mlflow.name]
"""The tracker of all other URIs."""
_PARTS = ("name", "title", "example", "credentials", "open", "check")


def tracker_of(uri: str) -> TrackerKind:
    """Returns the tracker for a URI. Raises: JobError if its package cannot be imported."""
    scheme = uri.partition("://")[0]
    if scheme == uri or scheme in READY or scheme not in installed(GROUP):
        return READY.get(scheme, DEFAULT)
    kind: TrackerKind = load(GROUP, scheme, "--tracking-uri")
    missing = [part for part in _PARTS if not hasattr(kind, part)]
    if missing:
        raise JobError(
            f"--tracking-uri: {scheme} of {package_of(installed(GROUP)[scheme])} is no tracker: it "
            f"lacks {', '.join(missing)}"
        )
    return kind
