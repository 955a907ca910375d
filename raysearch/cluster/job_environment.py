"""The Ray job that this process is the driver of, if it is. This file is light: no ray.

Invariants: what is told here was put there by Ray or by `submit`; none of it changes an answer.
"""

import json
import os
from dataclasses import dataclass

ADDRESS_KEY = "raysearch.address"
"""Of a job's metadata: the job server that it was sent to."""


@dataclass(frozen=True, slots=True)
class JobEnvironment:
    """A Ray job from within. `address`: of the job server that it was sent to, where that is known."""

    submission_id: str
    address: str | None


def job_environment() -> JobEnvironment | None:
    """The job that this process runs in."""
    text = os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR")  # Ray sets it for the driver alone
    metadata = json.loads(text).get("metadata", {}) if text else {}
    submission_id = metadata.get("job_submission_id")
    return (
        None if submission_id is None else JobEnvironment(submission_id, metadata.get(ADDRESS_KEY))
    )
