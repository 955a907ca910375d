"""Reads from a run folder what is needed to build its search again: the job, the pairs, the facts
of the model.

Invariants: only a run of this evidence version and of an untouched job is taken, else its verdicts
would not be those that it had.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from raysearch.core.codec import from_json_values
from raysearch.core.model_facts import ModelFacts
from raysearch.errors import ResumeError
from raysearch.job import Job
from raysearch.job.file_keys import only_looked_at
from raysearch.runner.resolution.resolved_job import ResolvedJob
from raysearch.runner.stored_run.resume_checks import check_version, files_of, stored_job
from raysearch.store.pairs_table import PairsTable, read_pairs
from raysearch.store.run_folder import RunFolder


@contextmanager
def reopened_job(run: RunFolder) -> Iterator[tuple[PairsTable, ResolvedJob]]:
    """Yields the pairs that the run keeps, and its resolved job, while the job's files are at hand;
    model and code may be elsewhere.

    Raises: ResumeError where another version began it, or its job was edited.
    """
    check_version(run)
    stored = read_pairs(run.folder)
    with files_of(run) as files:
        yield (
            stored,
            as_stored(stored_job(run, files, only_looked_at), stored),
        )


def as_stored(job: Job, stored: PairsTable) -> ResolvedJob:
    """Returns the job with the pairs that its run keeps."""
    continued = stored.continued > 0
    return ResolvedJob(job, stored.pairs, stored.left_out, stored.population, continued)


def stored_facts(run: RunFolder) -> ModelFacts:
    """Returns the facts of the model from when the run was last driven. Raises: ResumeError where
    run.json does not say it."""
    plain = run.info.facts
    if plain is None:
        raise ResumeError(
            f"run {run.info.id}: its run.json says nothing of the model (an earlier version wrote "
            "it); `raysearch resume` it once, which adds that"
        )
    return from_json_values(ModelFacts, plain, f"run {run.info.id}: the facts of its run.json")
