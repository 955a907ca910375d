"""Reads the facts around a heat map: run, model, threshold, and each variable's change pairs.

Invariants: a fact missing from the run folder is None and omitted from the picture, never guessed.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from raysearch.core.population import PopulationName
from raysearch.report.labels import MATCHES, ScoreLabel, score_label
from raysearch.report.population_text import population_name, population_words
from raysearch.report.results_table import read_table
from raysearch.storage.digests_json import read_checked
from raysearch.storage.folder import Folder
from raysearch.storage.open_folder import FolderLike, open_folder
from raysearch.storage.parquet import from_parquet
from raysearch.store.job_file import read_job


@dataclass(frozen=True, slots=True)
class ChartFacts:
    """Facts of a run. `pairs`: change pairs in test blocks, by variable; `fixed`: every hypothesis
    used all of them; `job`: its keys; `hypotheses`: how many were proposed, controls apart;
    `continued`: as in `RunInfo`."""

    run: str
    model: str | None = None
    threshold: float | None = None
    population: str | None = None
    fixed: bool = False
    score: ScoreLabel = MATCHES
    pairs: Mapping[str, int] = field(default_factory=dict)
    job: Mapping[str, Any] = field(default_factory=dict)
    hypotheses: int = 0
    continued: Mapping[str, int] = field(default_factory=dict)
    population_name: PopulationName = "sampler"


def chart_facts(run: FolderLike) -> ChartFacts:
    """Reads the facts of a run folder. Raises: StoreError, ValueError or pyarrow's for a damaged
    file."""
    folder = open_folder(run)
    info = json.loads(_text(folder, "run.json") or "{}")
    job = read_job(folder)
    model, test = job.get("model") or {}, job.get("test") or {}
    found = read_table(folder, "verdicts", ("population", "population_size"))
    controls = read_table(folder, "hypotheses", ("control",))["control"]
    return ChartFacts(
        run=str(info.get("id") or folder.name),
        model=model.get("path") if isinstance(model, dict) else str(model),
        threshold=test.get("threshold"),
        population=population_words(job, found) if test else None,
        fixed=test.get("use") == "fixed",
        score=score_label(job),
        pairs=_change_pairs(folder),
        job=job,
        hypotheses=controls.null_count,
        continued=info.get("continued") or {},
        population_name=population_name(job, found),
    )


def _change_pairs(run: Folder) -> dict[str, int]:
    """Counts change pairs by variable: those whose counterfactual ids differ from the base's
    answer."""
    counts: Counter[str] = Counter()
    if not run.exists("pairs.parquet"):
        return counts
    columns = ["split", "block", "base_answer_ids", "counterfactual"]
    for row in from_parquet(read_checked(run, "pairs.parquet"), columns).to_pylist():
        if row["split"] == "test" and row["block"] is not None:
            counts.update(c["variable"] for c in row["counterfactual"] if _differs(c, row))
    return dict(counts)


def _differs(counterfactual: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    return bool(counterfactual["ids"] != row["base_answer_ids"])


def _text(run: Folder, name: str) -> str | None:
    return run.read(name).decode() if run.exists(name) else None
