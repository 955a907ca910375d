"""The trackers there are: MLflow, and those of installed packages, by the scheme of their URIs.

Invariants: a package adds a tracker by an entry point of the group `raysearch.trackers`, whose name
is the scheme of its URIs (`name://...`) and whose value is a `TrackerKind`; MLflow takes every
other URI. `none` is no tracker.
"""

from raysearch.plugins import installed, load
from raysearch.tracking.mlflow import Mlflow
from raysearch.tracking.tracker import TrackerKind

GROUP = "raysearch.trackers"
DEFAULT: TrackerKind = Mlflow()


def tracker_of(uri: str) -> TrackerKind:
    """Returns the tracker that a tracking URI is for. Raises: JobError where the package of one
    cannot be imported."""
    scheme = uri.partition("://")[0]
    if scheme == uri or scheme not in installed(GROUP):
        return DEFAULT
    kind: TrackerKind = load(GROUP, scheme, "--tracking-uri")
    return kind
