"""Computes the constants of a mean ablation for an export, from the run's pairs and its network.

Invariants: the network has the digest that the run began with; no code of the job runs: a network
that code makes must be given.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from raysearch.core.hypothesis import Intervention
from raysearch.engine.loading.factory import LoadedModule, module_digest
from raysearch.engine.loading.given_model import GivenModel
from raysearch.engine.loading.inspect_model import best_device
from raysearch.engine.loading.load import load
from raysearch.engine.loading.loaded_model import LoadedModel
from raysearch.errors import ModelError, PairsError
from raysearch.interventions.constants import mean_constants
from raysearch.job import Job
from raysearch.runner.exports.export_tensors import job_here
from raysearch.runner.resolution.given_objects import GivenObjects
from raysearch.store.pairs_table import read_pairs
from raysearch.store.run_folder import RunFolder

_log = logging.getLogger(__name__)


def constants(
    run: RunFolder, job: Job, intervention: Intervention, given: GivenModel | None
) -> Mapping[str, Any]:
    """Returns the constants of a mean ablation by name; none, with a warning that says why, where
    they cannot be told.

    `given`: the network, where no file has it. Raises: ModelError where that is another network
    than the run's.
    """
    stored = read_pairs(run.folder)
    if given is None and (job.model.is_factory or job.model.is_given):
        how = "was given as an object" if job.model.is_given else "is made by a function"
        _log.warning(
            "the constant of %s, a mean, is not exported: it is of the run's network, and %s %s; "
            "give it, in Python: run.export(..., model=model)",
            *(intervention.id, job.model.path, how),
        )
        return {}
    try:
        with _loaded(run, job, given) as loaded:
            network, _ = loaded.open(stored.pairs)
            return mean_constants(network, stored.encoded or (), intervention)
    except (PairsError, ModelError) as e:
        if given is not None and isinstance(e, ModelError):
            raise  # what was given is at hand, and another one
        _log.warning("the constant of a mean ablation is not exported: %s", e)
        return {}


@contextmanager
def _loaded(
    run: RunFolder, job: Job, given: GivenModel | None
) -> Iterator[LoadedModel | LoadedModule]:
    """Yields the run's network. Raises: ModelError for another one."""
    with job_here(run, job) as here:
        if given is None:
            source = replace(here.source, trust_remote_code=False)  # it may be somebody else's job
            loaded: LoadedModel | LoadedModule = load(source, best_device())
            _check(run, job, loaded.digest)
            yield loaded
            return
        loaded = GivenObjects(model=given).loaded(job)
        is_made = job.model.is_factory and not job.model.is_given
        _check(run, job, _factory_digest(here, given) if is_made else loaded.digest)
        with given.borrowed():
            yield loaded


def _factory_digest(job: Job, given: GivenModel) -> str:
    """Returns the digest that a replica takes of what the job's function makes."""
    place = job.source.path.rpartition(":")[0]
    return module_digest(given.module, Path(place) if place.endswith(".py") else None)


def _check(run: RunFolder, job: Job, digest: str) -> None:
    if digest != run.info.model_digest:
        raise ModelError(
            f"{job.model.path}: has digest {digest[:12]}, and run {run.info.id} was of "
            f"{(run.info.model_digest or 'none')[:12]}: the mean would be another; put the old "
            f"model back"
        )
