"""Sends batches, data sets, tables and child runs to MLflow, by its client.

Invariants: what is there already is neither sent twice nor lost.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from raysearch.tracking.mlflow_names import as_key, as_value
from raysearch.tracking.tracker import ChildRun, PairsInput

MAX_CHARS = 500
"""Characters of a param, a tag, or the name of a data set."""
_PARAMS_A_BATCH = 100
_METRICS_A_BATCH = 1000
_TYPES = {"int32": "integer", "int64": "long", "bool": "boolean", "double": "double"}
"""MLflow's types by Arrow type, for columns that are neither text nor lists."""
_HYPOTHESIS = "raysearch.hypothesis"


def log_params(client: Any, run_id: str | None, params: Mapping[str, str]) -> None:
    """Logs params that the run does not have."""
    from mlflow.entities import Param

    values = [Param(name, value) for name, value in params.items()]
    for start in range(0, len(values), _PARAMS_A_BATCH):
        client.log_batch(run_id, params=values[start : start + _PARAMS_A_BATCH])


def log_metrics(client: Any, run_id: str | None, metrics: Sequence[Any]) -> None:
    """Logs metrics, MLflow's own objects."""
    for start in range(0, len(metrics), _METRICS_A_BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + _METRICS_A_BATCH])


def log_pairs(client: Any, run_id: str | None, pairs: PairsInput) -> None:
    """Logs the pairs as a data set, which MLflow identifies by name and digest and keeps once."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    scheme = pairs.place.partition("://")[0] if "://" in pairs.place else "local"
    columns = [
        {"name": name, "type": _TYPES.get(kind, "string"), "required": True}
        for name, kind in pairs.columns.items()
    ]
    dataset = Dataset(
        name=as_value(pairs.name, MAX_CHARS),
        digest=pairs.digest,
        source_type=scheme,
        source=json.dumps({"uri": pairs.place}),
        schema=json.dumps({"mlflow_colspec": columns}),
        profile=json.dumps({"num_rows": sum(pairs.counts.values()), **pairs.counts}),
    )
    client.log_inputs(
        run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "interchange")])]
    )


def log_table(
    client: Any, run_id: str | None, name: str, columns: Mapping[str, Sequence[Any]]
) -> None:
    """Logs a table like client.log_table, but without pandas, and replacing rows of before."""
    file = f"{name}.json"
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    client.log_dict(run_id, {"columns": list(columns), "data": rows}, file)
    tags = client.get_run(run_id).data.tags
    listed = json.loads(tags.get("mlflow.loggedArtifacts", "[]"))
    entry = {"path": file, "type": "table"}
    if entry not in listed:
        client.set_tag(run_id, "mlflow.loggedArtifacts", json.dumps([*listed, entry]))


def log_children(
    client: Any,
    experiment: str,
    parent: str | None,
    children: Sequence[ChildRun],
    milliseconds: int,
) -> None:
    """Creates a run for each child, or updates the metrics of an existing one, found by its tag."""
    from mlflow.entities import Metric

    wanted = f"tags.mlflow.parentRunId = '{parent}'"
    known = client.search_runs([experiment], wanted, max_results=1000) if children else []
    there = {run.data.tags.get(_HYPOTHESIS): run for run in known}
    for child in children:
        metrics = [Metric(as_key(k), value, milliseconds, 0) for k, value in child.metrics.items()]
        if child.name in there:
            old = there[child.name]
            changed = [m for m in metrics if old.data.metrics.get(m.key) != m.value]
            log_metrics(client, old.info.run_id, changed)
            continue
        tags = {"mlflow.parentRunId": parent, _HYPOTHESIS: child.name}
        title = as_value(child.title, MAX_CHARS)
        new = client.create_run(experiment, start_time=milliseconds, run_name=title, tags=tags)
        made = new.info.run_id
        metrics += [Metric(as_key(k), value, milliseconds, step) for k, step, value in child.course]
        params = {as_key(k): as_value(value, MAX_CHARS) for k, value in child.params.items()}
        log_params(client, made, params)
        log_metrics(client, made, metrics)
        for path in child.artifacts:
            client.log_artifact(made, str(path))
        client.set_terminated(made, "FINISHED", milliseconds)
