"""Tells a driver which Ray job it runs in. Light: imports no ray.

Invariants: Ray or `submit` provides everything here; none of it changes a result.
"""

import json
import os
from dataclasses import dataclass

ADDRESS_KEY = "raysearch.address"
"""Key in a job's metadata for the address of the job server that received it."""


@dataclass(frozen=True, slots=True)
class JobEnvironment:
    """The Ray job of this process; `address` is its job server's, None when unknown."""

    submission_id: str
    address: str | None


def job_environment() -> JobEnvironment | None:
    """Returns the Ray job that this process drives, or None outside of one."""
    text = os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR")  # Ray sets it for the driver alone
    metadata = json.loads(text).get("metadata", {}) if text else {}
    submission_id = metadata.get("job_submission_id")
    return (
        None if submission_id is None else JobEnvironment(submission_id, metadata.get(ADDRESS_KEY))
    )
