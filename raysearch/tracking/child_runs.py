"""Collects each accepted hypothesis's figures, controls and training, which a tracker shows as its
own run.

Invariants: read from the tables alone, so that a replay shows the same.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raysearch.report.results_table import read_table
from raysearch.report.run_results import RunResults, compare_controls
from raysearch.report.unit_text import words
from raysearch.storage.open_folder import FolderLike, open_folder

_PARAMS = (
    "variable",
    "layer",
    "component",
    "head",
    "position",
    "featurizer",
    "features",
    "units",
    "claim",
    "population",
    "warnings",
    "fdr_verdict",
    "fit",
)
_METRICS = (
    "iia",
    "low",
    "high",
    "fcr_level",
    "fcr_low",
    "fcr_high",
    "n",
    "matches",
    "holdout_iia",
    "holdout_low",
    "holdout_high",
    "holdout_n",
    "keep_iia",
    "evidence",
)


@dataclass(frozen=True, slots=True)
class AcceptedHypothesis:
    """An accepted hypothesis.

    `course`: (metric, step, value) of each trained seed; `files`: its tensors, in `interventions`.
    """

    hypothesis: str
    title: str
    params: Mapping[str, object]
    metrics: Mapping[str, float]
    course: tuple[tuple[str, int, float], ...]
    files: tuple[str, ...]


def first_accepted(run: FolderLike, results: RunResults, most: int) -> list[AcceptedHypothesis]:
    """Returns the first `most` accepted hypotheses of a run, in the order of its results.

    Raises: StoreError for a damaged table.
    """
    fits = read_table(run, "fits").to_pylist()
    interventions = open_folder(run).at("interventions")
    found = []
    for b in compare_controls(results, results.accepted[:most]):
        row = b.row
        figures = {name: row[name] for name in _METRICS} | {
            f"control/{name}": iia for name, iia in b.iia.items()
        }
        params = {name: row[name] for name in _PARAMS if row[name] not in (None, "")}
        file = f"{row['fit']}.safetensors"
        found.append(
            AcceptedHypothesis(
                row["hypothesis"],
                f"{row['variable']} ~ {words(row['units'])}",
                params,
                {
                    name: float(v)
                    for name, v in figures.items()
                    if v is not None and math.isfinite(v)
                },
                _course([f for f in fits if f["intervention"] == row["intervention"]]),
                (file,) if row["fit"] and interventions.exists(file) else (),
            )
        )
    return found


def _course(fits: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, int, float], ...]:
    return tuple(
        (f"{name}/seed_{fit['seed']}", fit["step"], fit[name])
        for fit in fits
        if fit["status"] is None
        for name in ("loss", "validation_iia")
        if fit[name] is not None
    )
