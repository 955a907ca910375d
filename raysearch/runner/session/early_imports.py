"""Imports what the end of a run needs while the run waits for its replicas to load.

Invariants: an import that fails is reported where the module is used, and nowhere else.
"""

import logging
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from threading import Thread

from raysearch.errors import RaysearchError
from raysearch.tracking.registry import tracker_of
from raysearch.tracking.uris import tracking_uri

_AT_THE_END = ("raysearch.report.heatmap", "raysearch.viewer.page")
_log = logging.getLogger(__name__)


def import_early(uri: str) -> Thread:
    """Starts to import what pictures, the page and the tracker of `uri` need; returns the
    thread."""
    names = list(_AT_THE_END)
    with suppress(RaysearchError):  # reported when the tracker is opened
        where = tracking_uri(uri)
        names += () if where is None else tracker_of(where).imports
    thread = Thread(target=_import, args=(names,), name="early-imports")
    thread.start()
    return thread


def _import(names: Iterable[str]) -> None:
    for name in names:
        try:
            import_module(name)
        except Exception:  # noqa: BLE001  (whoever uses it imports it again, and reports it)
            _log.debug("%s is not imported early", name, exc_info=True)
