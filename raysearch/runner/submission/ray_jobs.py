"""The facts of raysearch's jobs on a Ray cluster, and how one is stopped.

Invariants: a job's log is data, its driver's exit code its own.
"""

import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from raysearch.cluster.jobs import HASH_KEY, NAME_KEY, RUN_KEY, STORE_KEY, JobServer, RayJob
from raysearch.errors import ClusterError
from raysearch.runner.session.interrupt import INTERRUPTED

_RUN_KEY = "run"
_RUN = re.compile(r"run       (\S.*)")
_RESUME = re.compile(r"raysearch: (?:interrupted|failed); go on with: (.*)")


def job_facts(job: RayJob) -> dict[str, Any]:
    """Returns what Ray knows of a job, under the names that `jobs -o json` gives it."""
    began = (
        None
        if job.began is None
        else datetime.fromtimestamp(job.began, UTC).isoformat(timespec="seconds")
    )
    return {
        "id": job.id,
        "name": job.metadata.get(NAME_KEY),
        "status": job.status,
        "exit_code": job.exit_code,
        "began": began,
        "seconds": None if job.seconds is None else round(job.seconds, 1),
        "job": job.metadata.get(HASH_KEY),
        "store": job.metadata.get(STORE_KEY),
        _RUN_KEY: job.metadata.get(RUN_KEY),
    }


def job_status(server: JobServer, text: str) -> dict[str, Any]:
    """Returns all that is known of the job `text` (an id, a part of one, or "latest"): its run and
    its last line too."""
    job = server.find(text)
    lines = [] if job.status == "PENDING" else list(server.log(job.id))
    facts = {
        **job_facts(job),
        _RUN_KEY: job.metadata.get(RUN_KEY) or _last(_RUN, lines),
        "says": lines[-1] if lines else None,
    }
    if job.status == "FAILED" and job.exit_code is None:
        facts["says"] = _first_line(job.message)
    return facts


def stop_job(server: JobServer, text: str) -> Iterator[str]:
    """Stops a job, waits until its journal is closed, and yields lines that say how to continue."""
    job = server.find(text)
    if job.is_over:
        yield f"{job.id} is over already ({job.status})"
        return
    server.stop(job.id)
    yield f"{job.id} is told to stop; it closes its books first"
    job = server.wait(job.id)
    lines = list(server.log(job.id))
    hint, run = _last(_RESUME, lines), _last(_RUN, lines)
    if job.status != "STOPPED":
        yield f"{job.id} came to its end before ({job.status})"
    elif hint:
        yield f"{job.id} is stopped; go on with: {hint}"
    elif run:
        yield (
            f"{job.id} was killed before its books were closed; its journal holds: raysearch "
            f"resume {shlex.quote(run)}"
        )
    else:
        yield f"{job.id} is stopped; it had begun no run yet: submit it again"


def exit_code_of(job: RayJob) -> int:
    """Returns the exit code of a job that is over, as a shell reports it.

    Raises: ClusterError if its driver never began.
    """
    if job.status == "SUCCEEDED":
        return 0
    if job.status == "STOPPED":
        return INTERRUPTED
    if job.exit_code is None:
        raise ClusterError(f"{job.id} did not begin: {_first_line(job.message)}")
    return job.exit_code if job.exit_code >= 0 else 128 - job.exit_code  # killed by a signal


def _last(pattern: re.Pattern[str], lines: list[str]) -> str | None:
    found: Iterator[re.Match[str] | None] = map(pattern.fullmatch, reversed(lines))
    return next((m[1] for m in found if m), None)


def _first_line(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[0][:300] if lines else "Ray does not say why"
