"""Follows, shows and stops raysearch's jobs on a Ray cluster.

Invariants: the log is data and goes to stdout, our own lines to stderr; the driver's exit code is
passed on.
"""

import json
import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from raysearch.cli.flags import completions
from raysearch.cli.terminal import PlainTable, console, say, tell
from raysearch.cluster.jobs import NAME_KEY, JobServer, RayJob
from raysearch.errors import ClusterError
from raysearch.runner.interrupt import INTERRUPTED
from raysearch.visible_text import visible

HASH_KEY, RUN_KEY, STORE_KEY = "raysearch.job", "raysearch.run", "raysearch.store"
"""Keys in a job's metadata: digest of the job, the run that is resumed, the store."""
_WHERE = "run"
_RUN = re.compile(r"run       (\S.*)")
_RESUME = re.compile(r"raysearch: (?:interrupted|failed); go on with: (.*)")


def follow(server: JobServer, id: str) -> int:
    """Prints the driver's lines until it is over; returns its exit code. Ctrl-C leaves the job
    running."""
    try:
        for line in server.follow(id):
            tell(line)
        return _exit_code(server.wait(id))
    except KeyboardInterrupt:
        address = (
            ""
            if server.address == "http://127.0.0.1:8265"
            else f" --address {shlex.quote(server.address)}"
        )
        say(
            f"{id} goes on; follow it with: raysearch logs -f {id}{address}; stop it with: "
            f"raysearch stop {id}{address}"
        )
        return INTERRUPTED


def show_log(address: str, text: str, to_its_end: bool) -> int:
    """Prints the log of a job, so far or to its end; returns the exit code."""
    server = JobServer(address)
    job = server.find(text)
    if to_its_end:
        return follow(server, job.id)
    for line in server.log(job.id):
        tell(line)
    return 0


def show_status(address: str, text: str, output: str) -> int:
    """Prints all that is known of a job."""
    server = JobServer(address)
    job = server.find(text)
    lines = [] if job.status == "PENDING" else list(server.log(job.id))
    told = {
        **_told(job),
        _WHERE: job.metadata.get(RUN_KEY) or _last(_RUN, lines),
        "says": lines[-1] if lines else None,
    }
    if job.status == "FAILED" and job.exit_code is None:
        told["says"] = _first_line(job.message)
    if output == "json":
        print(json.dumps(told, indent=2))
        return 0
    for name, value in told.items():
        if value is not None:
            print(f"{name:<9} {visible(value)}")
    return 0


def show_jobs(address: str, output: str, no_color: bool) -> int:
    """Prints all our jobs."""
    jobs = [_told(job) for job in JobServer(address).jobs()]
    if output == "json":
        print(json.dumps(jobs, indent=2))
        return 0
    table = PlainTable()
    columns = ("id", "status", "began", "seconds", "exit_code")
    for column in columns:
        table.column(column, right=column in ("seconds", "exit_code"), no_wrap=True)
    for job in jobs:
        table.row("-" if job[c] is None else job[c] for c in columns)
    console(no_color).print(table)
    return 0


def stop_job(address: str, text: str) -> int:
    """Stops a job, waits until its journal is closed, and says how to continue."""
    server = JobServer(address)
    job = server.find(text)
    if job.is_over:
        say(f"{job.id} is over already ({job.status})")
        return 0
    server.stop(job.id)
    say(f"{job.id} is told to stop; it closes its books first")
    job = server.wait(job.id)
    lines = list(server.log(job.id))
    hint, run = _last(_RESUME, lines), _last(_RUN, lines)
    if job.status != "STOPPED":
        say(f"{job.id} came to its end before ({job.status})")
    elif hint:
        say(f"{job.id} is stopped; go on with: {hint}")
    elif run:
        say(
            f"{job.id} was killed before its books were closed; its journal holds: raysearch "
            f"resume {shlex.quote(run)}"
        )
    else:
        say(f"{job.id} is stopped; it had begun no run yet: submit it again")
    return 0


def job_ids(address: str, text: str) -> list[str]:
    """Returns ids that begin with `text`, for shell completion; none if the cluster does not
    answer."""
    try:
        return completions((job.id for job in JobServer(address).jobs()), text)
    except ClusterError:
        return []


def _told(job: RayJob) -> dict[str, Any]:
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
        _WHERE: job.metadata.get(RUN_KEY),
    }


def _exit_code(job: RayJob) -> int:
    if job.status == "SUCCEEDED":
        return 0
    if job.status == "STOPPED":
        say(f"{job.id} was stopped")
        return INTERRUPTED
    if job.exit_code is None:  # the driver never began
        raise ClusterError(f"{job.id} did not begin: {_first_line(job.message)}")
    return (
        job.exit_code if job.exit_code >= 0 else 128 - job.exit_code
    )  # killed by a signal, as shells report it


def _last(pattern: re.Pattern[str], lines: list[str]) -> str | None:
    found: Iterator[re.Match[str] | None] = map(pattern.fullmatch, reversed(lines))
    return next((m[1] for m in found if m), None)


def _first_line(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[0][:300] if lines else "Ray does not say why"
