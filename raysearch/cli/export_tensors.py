"""The tensors of an intervention that a run tested: what was fit, as the run kept it; what was drawn, drawn again.

Invariants: a content that is not the run's own, by its SHA-256, is refused; a drawn subspace is the one that replicas drew, for it is a
function of the intervention and of the width of its unit.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from raysearch.engine.featurized import PLAIN, drawn
from raysearch.engine.featurizers.make import from_bytes
from raysearch.engine.load import ModelSource, look
from raysearch.engine.saved_subspace import tensors_of
from raysearch.errors import JobError, ModelError, StoreError
from raysearch.folders.digests import read_checked
from raysearch.folders.parquet import from_parquet
from raysearch.job import Job
from raysearch.job.files import found_beside
from raysearch.running.kept import files_of
from raysearch.search.hypothesis import Intervention, Unit
from raysearch.store.fits import Fits
from raysearch.store.pairs_table import FILE
from raysearch.store.run_folder import RunFolder


def tensors(run: RunFolder, job: Job, intervention: Intervention) -> Mapping[str, Any]:
    """By name; none where all units are plain.

    Raises: StoreError where the run has not kept them; ModelError, JobError where the width of a drawn one cannot be told.
    """
    if intervention.fit is not None:
        return tensors_of(from_bytes(Fits(run.interventions).read(intervention.fit)))
    given = [unit for unit in intervention.units if unit.subspace.featurizer not in PLAIN]
    if not given:
        return {}
    if len(intervention.units) > 1:
        raise JobError(
            f"intervention {intervention.id}: has {len(intervention.units)} units, one with a {given[0].subspace.featurizer} subspace; "
            "only a single one can be exported"
        )
    with _found(run, job) as here:
        width = tokens_at(run, given[0]) * _width(here, given[0])
        return tensors_of(drawn(intervention, given[0], width, here.space.sae_paths))


def tokens_at(run: RunFolder, unit: Unit) -> int:
    """How many tokens the unit's position has in the run's pairs. Raises: StoreError where that is not one number."""
    name = unit.site.position
    try:
        column = from_parquet(read_checked(run.folder, FILE), ["base_positions"])["base_positions"].to_pylist()
    except (OSError, pa.ArrowException) as e:
        raise StoreError(
            f"{run.folder.shown(FILE)}: cannot be read ({str(e).splitlines()[0]}); restore it from a copy"
        ) from e
    counts = {len(p["tokens"]) for positions in column for p in positions or () if p["name"] == name}
    if len(counts) != 1:
        raise StoreError(
            f"{run.folder.shown(FILE)}: position {name!r} has {sorted(counts) or 'no'} tokens; it should have one number of them"
        )
    return counts.pop()


def width_at(run: RunFolder, job: Job, unit: Unit) -> int:
    """How many numbers one token has at the unit. Raises: ModelError where the model is not where the job has it."""
    with _found(run, job) as here:
        return _width(here, unit)


@contextmanager
def _found(run: RunFolder, job: Job) -> Iterator[Job]:
    """The job with the paths of what came along with it as they are here; while inside."""
    with files_of(run) as files:
        yield job if files is None else found_beside(job, files)


def _width(job: Job, unit: Unit) -> int:
    site = unit.site
    if job.model.is_factory:
        raise ModelError(
            f"{job.model.path}: is a function, and the width of {site.component} is not known without calling it"
        )
    looked = look(
        ModelSource(job.model.path, job.model.revision, job.model.dtype),  # never the code that a run's job.yaml names
        (site.component,),
    )
    width = looked.components[0].width_in(site.layer)
    return width if site.head is None else width // looked.components[0].heads
