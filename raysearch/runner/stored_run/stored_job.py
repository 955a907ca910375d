"""Reads the job of a run from its folder.

Invariants: no model, problem or other file of the job is looked for.
"""

from pydantic import ValidationError

from raysearch.errors import StoreError
from raysearch.job import Job
from raysearch.job.file_keys import only_looked_at
from raysearch.store.job_file import read_job
from raysearch.store.run_folder import JOB_FILE, RunFolder


def job_of(run: RunFolder) -> Job:
    """Returns the job of a run, whose files may be elsewhere by now.

    Raises: StoreError where it cannot be read, or was edited.
    """
    try:
        job = Job.model_validate(read_job(run.folder), context=only_looked_at)
    except (ValueError, ValidationError) as e:
        raise StoreError(
            f"{run.folder.shown(JOB_FILE)}: cannot be read ({str(e).splitlines()[0]}); it is "
            f"written by raysearch"
        ) from e
    if job.digest() != run.info.job_digest:
        raise StoreError(
            f"{run.folder.shown(JOB_FILE)}: was edited since the run began, so its model and test "
            f"may be others; put it back"
        )
    return job
