"""Finds the tensors of an intervention that a run tested: fitted ones are stored with the run,
random ones are drawn again from its seed.

Invariants: a content that is not the run's own, by its SHA-256, is refused; a drawn subspace is the
one that replicas drew, for it is a function of the intervention and of the width of its unit.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pyarrow as pa

from raysearch.core.hypothesis import Intervention, Unit
from raysearch.engine.featurizers.construction import from_bytes
from raysearch.engine.loading.inspect_model import inspect_model
from raysearch.engine.patching.subspace_operations import PLAIN, draw_featurizer
from raysearch.errors import JobError, ModelError, StoreError, check_memory
from raysearch.interventions.subspace_tensors import tensors_of
from raysearch.job import Job
from raysearch.job.job_files import found_beside
from raysearch.runner.stored_run.reopen import stored_facts
from raysearch.runner.stored_run.resume_checks import files_of
from raysearch.storage.digests_json import read_checked
from raysearch.storage.parquet import from_parquet
from raysearch.store.fit_store import FitStore
from raysearch.store.pairs_table import FILE
from raysearch.store.run_folder import RunFolder


def tensors(run: RunFolder, job: Job, intervention: Intervention) -> Mapping[str, Any]:
    """Returns the fitted tensors of an intervention by name; none where all units are plain.

    Raises: StoreError where the run has not kept them; ModelError, JobError where the width of a
    drawn one cannot be told.
    """
    if intervention.fit is not None:
        return tensors_of(from_bytes(FitStore(run.interventions).read(intervention.fit)))
    given = [unit for unit in intervention.units if unit.subspace.featurizer not in PLAIN]
    if not given:
        return {}
    if len(intervention.units) > 1:
        raise JobError(
            f"intervention {intervention.id}: has {len(intervention.units)} units, one with a "
            f"{given[0].subspace.featurizer} subspace; only a single one can be exported"
        )
    with job_here(run, job) as here:
        width = tokens_at(run, given[0]) * _width(run, here, given[0])
        return tensors_of(draw_featurizer(intervention, given[0], width, here.space.sae_paths))


def tokens_at(run: RunFolder, unit: Unit) -> int:
    """Returns the number of tokens that the unit's position has in the run's pairs. Raises:
    StoreError where that is not one number."""
    name = unit.site.position
    try:
        column = from_parquet(read_checked(run.folder, FILE), ["base_positions"])[
            "base_positions"
        ].to_pylist()
    except (OSError, pa.ArrowException) as e:
        check_memory(e, f"reading {run.folder.shown(FILE)}")
        raise StoreError(
            f"{run.folder.shown(FILE)}: cannot be read ({str(e).splitlines()[0]}); restore it from "
            f"a copy"
        ) from e
    counts = {
        len(p["tokens"]) for positions in column for p in positions or () if p["name"] == name
    }
    if len(counts) != 1:
        raise StoreError(
            f"{run.folder.shown(FILE)}: position {name!r} has {sorted(counts) or 'no'} tokens; it "
            f"should have one number of them"
        )
    return counts.pop()


def width_at(run: RunFolder, job: Job, unit: Unit) -> int:
    """Returns the number of features that one token has at the unit. Raises: ModelError where the
    run does not say it, and the model is not where the job has it."""
    with job_here(run, job) as here:
        return _width(run, here, unit)


@contextmanager
def job_here(run: RunFolder, job: Job) -> Iterator[Job]:
    """Yields the job with the paths of its files as they are on this machine."""
    with files_of(run) as files:
        yield job if files is None else found_beside(job, files)


def _width(run: RunFolder, job: Job, unit: Unit) -> int:
    """Returns the width as the run's replicas saw it, else as the model's files say."""
    return _stored_width(run, unit) or _inspected_width(job, unit)


def _stored_width(run: RunFolder, unit: Unit) -> int:
    """Returns the width by the facts of the run; 0 where these do not say it."""
    site = unit.site
    if run.info.facts is None:
        return 0
    named = {facts.name: facts for facts in stored_facts(run).components}
    found = named.get(site.component)
    if found is None or site.layer not in found.layers:
        return 0
    width = found.width_in(site.layer)
    return width if site.head is None else width // max(found.heads, 1)


def _inspected_width(job: Job, unit: Unit) -> int:
    site = unit.site
    if job.model.is_factory:
        raise ModelError(
            f"{job.model.path}: is a function, and the width of {site.component} is not known "
            f"without calling it"
        )
    if job.model.is_given:
        raise ModelError(
            f"{job.model.path}: was given as an object, and the width of {site.component} is not "
            f"known without it"
        )
    summary = inspect_model(
        replace(job.source, trust_remote_code=False),  # job.yaml may be somebody else's
        (site.component,),
    )
    width = summary.components[0].width_in(site.layer)
    return width if site.head is None else width // summary.components[0].heads
