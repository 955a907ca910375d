"""Saves an intervention of a run, found by its hypothesis, as a folder that
`raysearch.load_intervention` reads.

Invariants: what is exported is what the run tested: the id is that of the run's tables, what was
fit is the content that the run kept.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from raysearch.core.codec import from_json_values
from raysearch.core.hypothesis import Intervention
from raysearch.engine.loading.given_model import GivenModel
from raysearch.errors import StoreError
from raysearch.interventions.card import Finding, ModelOrigin
from raysearch.interventions.saved_intervention import (
    SavedIntervention,
    push_intervention,
    save_intervention,
)
from raysearch.job import Job
from raysearch.job.file_keys import is_beside
from raysearch.report.population_text import population_words
from raysearch.report.warnings import warning_words
from raysearch.runner.exports.export_constants import constants
from raysearch.runner.exports.export_tensors import tensors
from raysearch.runner.stored_run.find_hypothesis import find_hypothesis
from raysearch.runner.stored_run.stored_job import job_of
from raysearch.store.run_folder import RunFolder


def export(
    run: RunFolder, hypothesis: str, to: Path, model: GivenModel | None = None
) -> SavedIntervention:
    """Writes the intervention of the hypothesis (its id, or the beginning of it) to the folder
    `to`.

    `model`: the run's network, for the constant of a mean ablation, where no file has it.

    Raises: JobError where no hypothesis, or several, begin so; StoreError where the run cannot be
    read or the folder not be written; ModelError where the model is needed, for the width of a
    drawn subspace or the constant of a mean ablation, and is not there or another one.
    """
    job = job_of(run)
    found = found_intervention(run, find_hypothesis(run, hypothesis, {}), job)
    if found.intervention.kind == "mean":
        found = replace(found, tensors=constants(run, job, found.intervention, model))
    return save_intervention(found, to)


def found_intervention(run: RunFolder, row: Mapping[str, Any], job: Job) -> SavedIntervention:
    """Returns the intervention of a row of the run's results, with its tensors and figures. Raises:
    as `export`."""
    intervention = _intervention(row, run)
    path = (
        f"./{job.model.path}" if is_beside(job.model.path) else job.model.path
    )  # of the run's folder: no hub id
    revision = (run.info.facts or {}).get("commit") or job.model.revision
    model = ModelOrigin(path, revision, run.info.model_digest, job.model.dtype)
    kept = (
        "hypothesis",
        "verdict",
        "n",
        "matches",
        "iia",
        "low",
        "high",
        "fcr_low",
        "fcr_high",
        "selected",
        "holdout_n",
        "holdout_iia",
        "holdout_low",
        "holdout_high",
        "claim",
        "distinct",
        "level",
    )
    finding = Finding(
        run=run.info.id,
        threshold=job.test.threshold,
        false_accept=job.test.false_accept,
        control=job.test.control,
        k=run.info.k,
        population=population_words(job.model_dump(mode="json"), pa.Table.from_pylist([row])),
        score=None if job.test.score == "matches" else job.test.score,
        warnings=tuple(warning_words(code) for code in (row["warnings"] or "").split(", ") if code),
        **{name: _finite(row[name]) for name in kept},
    )
    return SavedIntervention(
        intervention, tensors(run, job, intervention), model, row["variable"], finding
    )


def push(folder: Path, hub_id: str, private: bool | None) -> str:
    """Puts what was exported to `folder` on the hub; the commit's id. Raises: HubError."""
    return push_intervention(folder, hub_id, private=private)


def _intervention(row: Mapping[str, Any], run: RunFolder) -> Intervention:
    """Returns the intervention of a row; each unit says its operation, where that is an
    ablation."""
    where = f"{run.place}: hypothesis {row['hypothesis']}"
    units = json.loads(row["units"])
    kinds = [unit.pop("operation", "interchange") for unit in units]
    plain = {"units": units, "kind": kinds[0], "control": row["control"]}
    intervention = from_json_values(Intervention, plain, where)
    if intervention.is_fitted:
        intervention = replace(intervention, variable=row["variable"], fit=row["fit"])
    if intervention.id != row["intervention"]:
        raise StoreError(
            f"{where}: its units are of another intervention than {row['intervention']}; "
            f"export it with the raysearch that made the run "
            f"({run.info.versions.get('raysearch', 'see run.json')})"
        )
    if intervention.is_fitted and intervention.fit is None:
        why = f": {row['reason']}" if row["reason"] else ""
        raise StoreError(
            f"{where}: nothing was fit for it ({row['verdict'] or 'not decided yet'}{why}); export "
            f"another one"
        )
    return intervention


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
