"""Prints the jobs of raysearch on a Ray cluster: their logs, status and list.

Invariants: the log is data and goes to stdout, our own lines to stderr; the driver's exit code is
passed on.
"""

import json
import shlex

from raysearch.cli.flags import completions
from raysearch.cli.terminal import PlainTable, console, say, tell
from raysearch.cluster.jobs import JobServer
from raysearch.errors import ClusterError
from raysearch.runner.interrupt import INTERRUPTED
from raysearch.runner.ray_jobs import exit_code_of, job_facts, job_status, stop_job
from raysearch.visible_text import visible


def submitted(server: JobServer, id: str, wait: bool) -> int:
    """Follows a job that was submitted, or prints its id; returns the exit code."""
    if wait:
        return follow(server, id)
    tell(id)
    return 0


def follow(server: JobServer, id: str) -> int:
    """Prints the driver's lines until it is over; returns its exit code. Ctrl-C leaves the job
    running."""
    try:
        for line in server.follow(id):
            tell(line)
        job = server.wait(id)
        if job.status == "STOPPED":
            say(f"{id} was stopped")
        return exit_code_of(job)
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
    facts = job_status(JobServer(address), text)
    if output == "json":
        print(json.dumps(facts, indent=2))
        return 0
    for name, value in facts.items():
        if value is not None:
            print(f"{name:<9} {visible(value)}")
    return 0


def show_jobs(address: str, output: str, no_color: bool) -> int:
    """Prints all our jobs."""
    jobs = [job_facts(job) for job in JobServer(address).jobs()]
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


def stop(address: str, text: str) -> int:
    """Stops a job, and prints how to continue."""
    for line in stop_job(JobServer(address), text):
        say(line)
    return 0


def job_ids(address: str, text: str) -> list[str]:
    """Returns ids that begin with `text`, for shell completion; none if the cluster does not
    answer."""
    try:
        return completions((job.id for job in JobServer(address).jobs()), text)
    except ClusterError:
        return []
