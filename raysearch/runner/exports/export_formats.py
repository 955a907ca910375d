"""`export --format mib` and `import`: the alignment of a run as a submission of MIB's
causal-variable track, and back; for pyvene too.

Invariants: what cannot be written is said in one line each, with the reason; the names of folders
come from flags, else from the job.
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from raysearch.core.option_names import ExportFormat
from raysearch.engine.loading.given_model import GivenModel
from raysearch.errors import JobError, ModelError
from raysearch.interventions.mib import read_mib, save_mib
from raysearch.interventions.pyvene import save_pyvene
from raysearch.interventions.saved_intervention import SavedIntervention, save_intervention
from raysearch.interventions.subspace_tensors import tensors_of_width
from raysearch.job import Job
from raysearch.report.results_table import results
from raysearch.runner.exports.export import export, found_intervention
from raysearch.runner.exports.export_tensors import tokens_at, width_at
from raysearch.runner.stored_run.find_hypothesis import find_hypothesis
from raysearch.runner.stored_run.stored_job import job_of
from raysearch.store.run_folder import RunFolder

_log = logging.getLogger(__name__)


def export_as(
    form: ExportFormat,
    run: RunFolder,
    hypothesis: str | None,
    to: Path,
    task: str | None = None,
    model_name: str | None = None,
    model: GivenModel | None = None,
) -> list[Path]:
    """Writes the hypothesis (its id, or the beginning of it; with mib None: the whole alignment) to
    the folder `to`; returns the folders that were written. `task`, `model_name`: as MIB calls them;
    `model`: as in `export`.

    Raises: JobError, ModelError, StoreError.
    """
    if form == "mib":
        return [to / unit for unit in export_mib(run, hypothesis, to, task, model_name)]
    if hypothesis is None:
        raise JobError(f"export: format {form!r} is of one hypothesis; give its id")
    if form == "pyvene":
        export_pyvene(run, hypothesis, to)
    elif form == "raysearch":
        export(run, hypothesis, to, model)
    else:
        raise JobError(
            f"export: {form!r} is no format; it may be {', '.join(get_args(ExportFormat))}"
        )
    return [to]


def export_mib(
    run: RunFolder, hypothesis: str | None, to: Path, task: str | None, model_name: str | None
) -> Sequence[str]:
    """Writes the accepted hypotheses of the run, or the one that is named, to `to`; the units that
    were written.

    Of several at one site the best on the holdout is written. Raises: JobError where nothing can
    be; StoreError.
    """
    job = job_of(run)
    rows = _accepted(run) if hypothesis is None else [find_hypothesis(run, hypothesis, {})]
    task = task or _task(job)
    model_name = model_name or re.sub(
        r"[^A-Za-z0-9.-]+", "-", job.model.path.rstrip("/").rpartition("/")[2]
    ).strip("-.")
    left_out: list[str] = []
    saved = list(_expressible(run, job, rows, left_out))
    written = save_mib(saved, to, task=task, model_name=model_name)
    for line in (*left_out, *written.left_out):
        _log.warning("left out: %s", line)
    if not written.units:
        raise JobError(
            f"run {run.info.id}: none of {len(rows)} hypotheses can be written as MIB has them, "
            f"for the reasons above"
        )
    return written.units


def export_pyvene(run: RunFolder, hypothesis: str, to: Path) -> None:
    """Writes the hypothesis to the folder `to` as pyvene loads it. Raises: JobError, ModelError
    where it cannot be; StoreError."""
    job = job_of(run)
    if job.model.is_factory:
        raise JobError(
            f"export: pyvene loads an intervention into a model with a config of transformers, and "
            f"{job.model.path} is a network of your own; export it with --format raysearch"
        )
    save_pyvene(_of_one_token(run, find_hypothesis(run, hypothesis, {}), job), to)


def import_mib(folder: Path, to: Path) -> Iterator[Path]:
    """Writes each unit of the submission to a folder of its own, TO/<its folder>/<unit>, and
    returns the folders. Raises: StoreError."""
    for name, saved in read_mib(folder).items():
        save_intervention(saved, to / name)
        yield to / name


def _accepted(run: RunFolder) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = results(run.folder, accepted=True).to_pylist()
    if not rows:
        raise JobError(
            f"run {run.info.id}: has accepted nothing, so there is no alignment; name a HYPOTHESIS "
            f"to export it all the same"
        )
    return sorted(rows, key=_best_first)


def _best_first(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return (
        -(row["holdout_iia"] or 0.0),
        -(row["iia"] or 0.0),
        row["features"] or 2**31,
        row["hypothesis"],
    )


def _expressible(
    run: RunFolder, job: Job, rows: Sequence[Mapping[str, Any]], left_out: list[str]
) -> Iterator[SavedIntervention]:
    """Returns what can be written; the rest goes to `left_out`."""
    for row in rows:
        try:
            saved = _of_one_token(run, row, job)
        except (ModelError, JobError) as e:
            left_out.append(f"{row['hypothesis']} ({row['variable']}): {e}")
            continue
        yield saved


def _of_one_token(run: RunFolder, row: Mapping[str, Any], job: Job) -> SavedIntervention:
    """Returns the row's intervention, checked to be of one token; one of plain coordinates gets the
    width of its vector. Raises: JobError, ModelError, StoreError."""
    saved = found_intervention(run, row, job)
    if len(saved.intervention.units) != 1:
        return saved
    (unit,) = saved.intervention.units
    if saved.tensors and (count := tokens_at(run, unit)) != 1:
        raise JobError(
            f"its subspace is of {count} tokens as one vector, and theirs are of one token each"
        )
    if unit.subspace.coordinates is not None and not saved.tensors:
        return replace(saved, tensors=tensors_of_width(width_at(run, job, unit)))
    return saved


def _task(job: Job) -> str:
    """Returns the problem's name, or the name of the file of pairs.

    Where that is a user's own object or function, a line says how the task is named otherwise.
    """
    use = job.problem.use
    if use is not None:
        name = re.sub(r"[^\w.-]+", "-", re.split(r"[.:/]", use.strip("<>"))[-1])
        if job.problem.is_given or ":" in use:
            _log.warning(
                "the task is called %s, after %s; --task NAME (in Python task=...) calls it as "
                "MIB does",
                *(name, use),
            )
        return name
    assert job.problem.pairs is not None, "a job names a problem or a file of pairs"
    return Path(job.problem.pairs).stem
