"""Reads job.yaml of a run folder as plain data."""

from typing import Any

import yaml

from raysearch.errors import StoreError
from raysearch.storage.folder import Folder
from raysearch.store.run_folder import JOB_FILE, RunFolder


def read_job(folder: Folder) -> dict[str, Any]:
    """Returns the keys of a run's job, unchecked: those of an earlier version may be others. A
    folder with tables alone has no job, and no keys.

    Raises:
        StoreError: job.yaml or run.json is lost, or has other bytes than when the run began.
    """
    if not folder.exists(JOB_FILE):
        return {}
    run = RunFolder.open(folder)
    try:
        job = yaml.safe_load(run.job_text) or {}
        if not isinstance(job, dict):
            raise TypeError(f"it is a {type(job).__name__}, and must be a mapping")
    except (ValueError, TypeError, yaml.YAMLError, RecursionError) as e:
        raise StoreError(
            f"{folder.shown(JOB_FILE)}: cannot be read ({str(e).splitlines()[0]}); it is written "
            f"by raysearch"
        ) from e
    return job
