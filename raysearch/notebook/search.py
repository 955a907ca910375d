"""A search from a notebook or a script: `run` a job, `resume` a run.

    import raysearch as rs
    job = rs.Job.load("jobs/quickstart.yaml")
    run = rs.run(job)
    run.alignment

Invariants: a search is the same as by the command line: same run folder, same verdicts, and either resumes what the other began.
"""

from pathlib import Path
from typing import Literal

from raysearch.errors import JobError
from raysearch.job import Job
from raysearch.notebook.progress import follow
from raysearch.notebook.run import Run
from raysearch.running import run as running
from raysearch.running.front import Ended, Where
from raysearch.store.places import DEFAULT_STORE

PoolName = Literal["local", "ray"]


def run(
    job: Job | str | Path,
    store: str | Path = DEFAULT_STORE,
    pool: PoolName = "local",
    address: str | None = None,
    tracking_uri: str | None = None,
    quiet: bool = False,
) -> Run:
    """The run of a job (or of a job file), searched to its end.

    `pool`: one replica in this process, or "ray": as many as fit, on the Ray at `address` or one of its own. `tracking_uri`: of MLflow;
    None keeps it out. Ctrl-C or a kernel's interrupt is granted after a turn, and leaves a run that `resume` goes on with.

    Raises: RaysearchError in one line; KeyboardInterrupt.
    """
    asked = job if isinstance(job, Job) else Job.load(job)
    where = _where(store, pool, address, tracking_uri)
    with follow(quiet) as front:
        return _run(running.begin(asked, where, front))


def resume(
    run: "Run | str | Path" = "latest",
    store: str | Path = DEFAULT_STORE,
    pool: PoolName = "local",
    address: str | None = None,
    tracking_uri: str | None = None,
    quiet: bool = False,
    retry_failed: bool = False,
) -> Run:
    """Goes on where the journal of a run ends: one that was opened, its path or URI, its name in `store`, or "latest".

    `tracking_uri`: credentials for the run's own tracking server, which run.json does not keep. `retry_failed`: what failed is tried again.

    Raises: RaysearchError in one line; KeyboardInterrupt.
    """
    name = run.place if isinstance(run, Run) else str(run)
    where = _where(store, pool, address, tracking_uri)
    with follow(quiet) as front:
        return _run(running.go_on(name, where, front, retry_failed))


def _where(store: str | Path, pool: PoolName, address: str | None, tracking_uri: str | None) -> Where:
    if pool not in ("local", "ray"):
        raise JobError(f"pool: {pool!r} is none; give 'local' (one replica in this process) or 'ray'")
    if pool == "local" and address is not None:
        raise JobError(f"address: {address} is a Ray's, and pool 'local' uses none; give pool='ray' with it")
    return Where(store=str(store), tracking_uri=tracking_uri or "none", pool=pool, address=address)


def _run(ended: Ended) -> Run:
    if ended.status == "interrupted":
        raise KeyboardInterrupt(f"go on with: rs.resume({ended.run.place!r})")
    return Run(ended.run)
