"""Arranges how MLflow's own pages show runs: the kind of their experiment, a view of its list of
runs with their best IIA and counts as columns, and the address of a run.

Invariants: a kind that somebody chose stays; columns are added to the view, never taken away.
"""

import json
import time
from collections.abc import Iterable
from typing import Any

from raysearch.storage.uris import without_credentials

_KIND = "mlflow.experimentKind"
_TRAINING = "custom_model_development"
"""The kind whose runs open in the view of model training, not in that of generative AI."""
VIEW = "raysearch"
"""The key of the view, in the address of a list of runs."""
_VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
_COLUMNS = "selectedColumns"
_WORKFLOW = "workflowType=machine_learning"
"""Chooses the view of model training where the pages go by a switch, not by the kind (3.9 on)."""
_TAGS = ("model", "proposer", "status")
_COUNTS = ("accepted", "rejected", "undecided", "pairs")


def arrange(client: Any, experiment_id: str, metrics: Iterable[str]) -> None:
    """Writes the tags of an experiment that its pages go by; `metrics`: columns besides counts."""
    tags = client.get_experiment(experiment_id).tags
    if _KIND not in tags:
        client.set_experiment_tag(experiment_id, _KIND, _TRAINING)
    wanted = [f"tags.`raysearch.{name}`" for name in _TAGS]
    wanted += [f"metrics.`{name}`" for name in (*metrics, *_COUNTS)]
    shown = _columns(tags.get(_VIEW_TAG))
    if not set(wanted) <= set(shown):
        columns = [*shown, *(name for name in wanted if name not in shown)]
        client.set_experiment_tag(experiment_id, _VIEW_TAG, _view(columns))


def address(uri: str, experiment_id: str, run_id: str) -> str | None:
    """Returns the address of a run's page; None where `uri` is no server's."""
    if not uri.startswith(("http://", "https://")):
        return None
    shown = without_credentials(uri).rstrip("/")
    return f"{shown}/#/experiments/{experiment_id}/runs/{run_id}?{_WORKFLOW}"


def _columns(view: str | None) -> list[str]:
    """Returns the columns of a stored view; none of one that cannot be read."""
    try:
        found = json.loads(json.loads(view or "")["state"])[_COLUMNS]
    except (ValueError, TypeError, KeyError):
        return []
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def _view(columns: list[str]) -> str:
    """Returns a view as the pages store one that somebody saves."""
    now = int(time.time() * 1000)
    state = json.dumps({_COLUMNS: columns})
    return json.dumps(
        {"name": "Best IIA and counts", "createdAt": now, "updatedAt": now, "state": state}
    )
