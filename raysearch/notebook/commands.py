"""A search from a notebook or a script: `plan`, `run` or `submit` a job, `resume` or `sync` a run.

    import raysearch as rs
    job = rs.Job.load("jobs/quickstart.yaml")
    run = rs.run(job)
    run.alignment
    rs.run(problem=problem, model=rs.Model(model, tokenizer), space={"layers": [1, 2]})

Invariants: a search is the same as by the command line: same run folder, same verdicts, and either
resumes what the other began.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from raysearch.causal import Problem
from raysearch.core.option_names import PoolName
from raysearch.errors import JobError
from raysearch.job import Job
from raysearch.notebook.job_arguments import file_of, given_of, job_and_objects
from raysearch.notebook.progress import follow
from raysearch.notebook.run import Run
from raysearch.runner.resolution.job_code import code_of
from raysearch.runner.session import run as running
from raysearch.runner.session.frontend import RunOptions, RunOutcome
from raysearch.store.locations import DEFAULT_STORE
from raysearch.store.run_folder import find_run
from raysearch.suggest import check_known
from raysearch.visible_text import visible

if TYPE_CHECKING:
    from raysearch.runner.health_checks import CheckResult
    from raysearch.runner.plans.plan_report import PlanReport

JobContent = Mapping[str, Any]
"""The keys of one section of a job, as docs/reference/job-file.md has them."""


def run(
    job: Job | Problem | Mapping[str, Any] | str | Path | None = None,
    store: str | Path = DEFAULT_STORE,
    pool: PoolName = "local",
    address: str | None = None,
    tracking_uri: str | None = None,
    quiet: bool = False,
    *,
    name: str | None = None,
    model: Any = None,
    problem: Problem | Mapping[str, Any] | str | Path | None = None,
    pairs: JobContent | None = None,
    answer: JobContent | None = None,
    space: JobContent | None = None,
    fit: JobContent | None = None,
    test: JobContent | None = None,
    propose: JobContent | None = None,
    controls: Sequence[str] | None = None,
    resources: JobContent | None = None,
    **unknown: Any,
) -> Run:
    """Searches a job to its end, and gives its run.

    `job`: the path of a job file, its text (YAML), a dict of its keys, an `rs.Job`, or an
    `rs.Problem`. The keywords from `name` on are the keys of a job, and go over those of `job`:
    `rs.run("job.yaml", space={"layers": [1, 2]})`; alone they are the job.

        rs.run(problem=problem, model=model, pairs={"test": 128},
               space={"layers": [1, 2], "positions": ["last"]})

    `problem`: an `rs.Problem`, or as in a job file ("drinks.py:problem", "pairs.jsonl"). `model`:
    an `rs.Model`, a model of transformers with its tokenizer, `(model, tokenizer)`, a torch module
    on tensors; or the path of a folder, a .gguf file, a hub id.

    `store`: the folder or URI that the run is kept in. `pool`: one replica in this process, or
    "ray": as many as fit, on the Ray at `address` or one of its own. `tracking_uri`: of a tracker;
    None keeps it out. Ctrl-C or a kernel's interrupt is granted after a turn, and leaves a run that
    `rs.resume` goes on with.

    Raises: RaysearchError in one line; KeyboardInterrupt.
    """
    keys = {
        "name": name,
        "model": model,
        "problem": problem,
        "pairs": pairs,
        "answer": answer,
        "space": space,
        "fit": fit,
        "test": test,
        "propose": propose,
        "controls": controls,
        "resources": resources,
    }
    _check_keys("rs.run", unknown, keys, ("store", "pool", "address", "tracking_uri", "quiet"))
    where = _where(store, pool, address, tracking_uri)
    job_file = file_of(job)
    job, given = job_and_objects(job, keys)
    with follow(quiet) as frontend:
        return _run(running.start_run(job, where, frontend, given=given, job_file=job_file))


def plan(
    job: Job | Problem | Mapping[str, Any] | str | Path | None = None,
    *,
    calibrate: bool = False,
    **keys: Any,
) -> "PlanReport":
    """Checks a job as far as it can be without running it, and says what it would do: hypotheses,
    expected pairs, chances of each verdict, memory. The plan prints as `raysearch plan` says it.

    `job`, `keys`: as of `rs.run`. `calibrate`: loads the model here and times a few tasks, so that
    the plan says how long the search takes.

    Raises: RaysearchError in one line.
    """
    from raysearch.runner.plans import plan as planning  # torch

    _check_keys("rs.plan", keys, Job.model_fields, ("calibrate",))
    found, given = job_and_objects(job, keys)
    for line in code_of(found):
        print(visible(line), file=sys.stderr)
    return planning.plan(found, given, calibrate)


def sync(
    run: "Run | str | Path" = "latest",
    tracking_uri: str | None = None,
    store: str | Path = DEFAULT_STORE,
    children: int = RunOptions.tracked_children,
) -> str:
    """Reports a run to its tracker once more, by its journal: where that was down, or was kept out.

    `run`, `store`: as of `rs.resume`. `tracking_uri`: of the tracker; None: the run's own.
    `children`: at most so many accepted hypotheses get a tracked run of their own. Nothing comes
    twice. Returns a line that says where the run is. Raises: RaysearchError in one line.
    """
    from raysearch.runner.session.sync import sync_run

    return str(sync_run(find_run(str(store), _place(run)), tracking_uri, children))


def submit(
    job: str | Path,
    address: str,
    store: str,
    tracking_uri: str | None = None,
    *,
    sets: Sequence[str] = (),
    include: Sequence[str | Path] = (),
    on_nodes: Sequence[str | Path] = (),
    runtime: str = "tree",
    env: Sequence[str] = (),
    python: str | None = None,
    quiet: bool = False,
) -> str:
    """Submits a job file to a Ray cluster, with what it names, and returns the id of the Ray job.

    `address`: of the cluster's job server, "http://HEAD:8265". `store`: a path that the cluster
    has, or a URI; `rs.Run` reads the run there. `sets`: keys of the job, "KEY=VALUE". The others
    are the flags of `raysearch submit`, which follows a job to its end.

    Raises: RaysearchError in one line.
    """
    from raysearch.runner.submission.submit import Submission, submit_job

    def say(line: str) -> None:
        print(visible(line), file=sys.stderr)

    sending = Submission(
        address,
        store,
        tracking_uri,
        quiet=quiet,
        runtime=runtime,
        env=tuple(env),
        python=python,
        say=say,
    )
    _, id = submit_job(
        Path(job),
        sets,
        [Path(path) for path in include],
        [Path(path) for path in on_nodes],
        sending,
    )
    return id


def doctor(
    job: str | Path | None = None,
    store: str | Path = DEFAULT_STORE,
    address: str | None = None,
    tracking_uri: str | None = None,
) -> "list[CheckResult]":
    """Tries what a search needs here, as `raysearch doctor` does, and returns what was found.

    `job`: one whose model is read. The others are as of `rs.run`.
    """
    from raysearch.runner.health_checks import health_checks

    return list(health_checks(address, job, store, tracking_uri or "none"))


def resume(
    run: "Run | str | Path" = "latest",
    store: str | Path = DEFAULT_STORE,
    pool: PoolName = "local",
    address: str | None = None,
    tracking_uri: str | None = None,
    quiet: bool = False,
    retry_failed: bool = False,
    *,
    problem: Problem | None = None,
    model: Any = None,
    more_pairs: int | None = None,
) -> Run:
    """Goes on where the journal of a run ends, and gives the run.

    `run`: one that was opened, its path or URI, its name in `store`, or "latest". `tracking_uri`:
    credentials for the run's own tracking server, which run.json does not keep. `retry_failed`:
    what failed is tried again. `model`: the one that the run began with, where it was an object and
    is in no file. `problem`: is not needed, for a run keeps its pairs; one that draws others is
    refused. `more_pairs`: of a run that is done, what is undecided is tested on up to so many
    further pairs; a problem that was given as an object draws them, so it is given again.

    Raises: RaysearchError in one line; KeyboardInterrupt.
    """
    where = _where(store, pool, address, tracking_uri)
    given = given_of(problem, model)
    with follow(quiet) as frontend:
        return _run(
            running.resume_run(_place(run), where, frontend, retry_failed, given, more_pairs)
        )


def _check_keys(
    function: str, given: Iterable[str], keys: Iterable[str], others: Iterable[str]
) -> None:
    """Raises: JobError for a keyword that is none."""
    for key in given:
        check_known(function, "keyword", key, (*keys, *others), function)


def _place(run: "Run | str | Path") -> str:
    return run.place if isinstance(run, Run) else str(run)


def _where(
    store: str | Path, pool: PoolName, address: str | None, tracking_uri: str | None
) -> RunOptions:
    if pool not in get_args(PoolName):
        raise JobError(
            f"pool: {pool!r} is none; give 'local' (one replica in this process) or 'ray'"
        )
    if pool == "local" and address is not None:
        raise JobError(
            f"address: {address} is a Ray's, and pool 'local' uses none; give pool='ray' with it"
        )
    return RunOptions(
        store=str(store), tracking_uri=tracking_uri or "none", pool=pool, address=address
    )


def _run(ended: RunOutcome) -> Run:
    if ended.status == "interrupted":
        raise KeyboardInterrupt(f"go on with: rs.resume({ended.run.place!r})")
    return Run(ended.run)
