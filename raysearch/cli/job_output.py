"""Prints the jobs of raysearch on a Ray cluster: their logs, status and list.

Invariants: the log is data and goes to stdout, our own lines to stderr; the driver's exit code is
passed on.
"""

import shlex
from collections.abc import Callable

from raysearch.cli.flags import LOCAL_SERVER, completions
from raysearch.cli.json_output import emit, emit_value
from raysearch.cli.terminal import PlainTable, console, lead, say, tell
from raysearch.cluster.jobs import JobServer
from raysearch.errors import ClusterError
from raysearch.runner.session.interrupt import INTERRUPTED
from raysearch.runner.submission.ray_jobs import exit_code_of, job_facts, job_status, stop_job
from raysearch.visible_text import visible


def follow_submission(server: JobServer, id: str, wait: bool, output: str = "text") -> int:
    """Follows a job that was submitted, or prints its id; returns the exit code."""
    code = follow(server, id) if wait else 0
    if output == "json":
        emit_value(job_status(server, id))
    elif not wait:
        tell(id)
    if code != INTERRUPTED:
        lead(f"raysearch {'status' if wait else 'logs -f'} {id}{_at(server.address)}")
    return code


def follow(server: JobServer, id: str, show: Callable[[str], None] = tell) -> int:
    """Prints the driver's lines until it is over; returns its exit code. Ctrl-C leaves the job
    running."""
    try:
        for line in server.follow(id):
            show(line)
        job = server.wait(id)
        if job.status == "STOPPED":
            say(f"{id} was stopped")
        return exit_code_of(job)
    except KeyboardInterrupt:
        address = _at(server.address)
        say(f"{id} goes on; follow it with: raysearch logs -f {id}{address}")
        say(f"to stop it: raysearch stop {id}{address}")
        return INTERRUPTED


def _at(address: str) -> str:
    """Returns the flag of a job server that is not the one that is asked by default."""
    return "" if address == LOCAL_SERVER else f" --address {shlex.quote(address)}"


def show_log(
    address: str, text: str, to_its_end: bool, output: str = "text", quiet: bool = False
) -> int:
    """Prints the log of a job, so far or to its end; returns the exit code."""
    server = JobServer(address)
    job, code = server.find(text), 0

    def show(line: str) -> None:
        if output == "json":
            emit_value({"line": line}, indent=None)
        else:
            tell(line)

    if to_its_end:
        code = follow(server, job.id, show)
    else:
        for line in server.log(job.id):
            show(line)
    if code != INTERRUPTED:
        lead(f"raysearch status {job.id}{_at(address)}", quiet)
    return code


def show_status(address: str, text: str, output: str, quiet: bool = False) -> int:
    """Prints all that is known of a job."""
    facts = job_status(JobServer(address), text)
    if output == "json":
        emit_value(facts)
    else:
        for name, value in facts.items():
            if value is not None:
                print(f"{name:<9} {visible(value)}")
    follows = " -f" * (facts["status"] in ("PENDING", "RUNNING"))
    lead(f"raysearch logs{follows} {facts['id']}{_at(address)}", quiet)
    return 0


def show_jobs(address: str, output: str, no_color: bool, quiet: bool = False) -> int:
    """Prints all our jobs."""
    jobs = [job_facts(job) for job in JobServer(address).jobs()]
    last = f"status {jobs[0]['id']}{_at(address)}" if jobs else "example"
    if output == "json":
        emit_value(jobs)
        lead(f"raysearch {last}", quiet)
        return 0
    table = PlainTable()
    columns = ("id", "status", "began", "seconds", "exit_code")
    for column in columns:
        table.column(column, right=column in ("seconds", "exit_code"), no_wrap=True)
    for job in jobs:
        table.row("-" if job[c] is None else job[c] for c in columns)
    console(no_color).print(table)
    lead(f"raysearch {last}", quiet)
    return 0


def stop(address: str, text: str, output: str = "text") -> int:
    """Stops a job, and prints how to continue."""
    server, lines = JobServer(address), []
    id = server.find(text).id
    for line in stop_job(server, id):
        lines.append(line)
        say(line)
    if output == "json":
        emit("stop", **job_status(server, id), messages=lines)
    return 0


def job_ids(address: str, text: str) -> list[str]:
    """Returns ids that begin with `text`, for shell completion; none if the cluster does not
    answer."""
    try:
        return completions((job.id for job in JobServer(address).jobs()), text)
    except ClusterError:
        return []
