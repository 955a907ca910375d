"""Makes of a resolved job a pool of replicas: one in this process, or many on Ray.

Invariants: no worker sees the causal model or its values; a Ray that is not ours is left as it is.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

from raysearch import driver
from raysearch.causal import Pair
from raysearch.cluster.replica_spec import ReplicaSpec
from raysearch.core.events import Opened
from raysearch.core.records import Snapshot
from raysearch.core.runner_settings import RunnerSettings
from raysearch.errors import JobError
from raysearch.job import Job
from raysearch.job.job_files import kept_beside
from raysearch.runner.resolution.given_objects import NO_OBJECTS, GivenObjects
from raysearch.runner.resolution.resolved_job import ResolvedJob
from raysearch.runner.session.early_imports import import_early
from raysearch.runner.session.frontend import Frontend, RunOptions
from raysearch.runner.session.resources import shape_of


class RunPool(driver.Pool, Protocol):
    """A pool as a run needs it."""

    def open(self) -> Opened:
        """Loads the model and encodes the pairs."""
        ...

    def on_lost(self, say: Callable[[], None]) -> None:
        """Sets `say`, which is called where this process must be ended because Ray died in the
        middle of a call."""
        ...

    def on_step(self, show: Callable[[int, int, float], None]) -> None:
        """Sets `show`, which is called now and then while a task trains in this process: with the
        steps done, the number of fits, and their mean loss."""
        ...

    def show(self, run: str, snapshot: Snapshot) -> None:
        """Tells whoever watches the cluster where the search stands."""
        ...

    def close(self) -> None:
        """Lets the workers go."""
        ...


@contextmanager
def pool_of(
    resolved: ResolvedJob,
    where: RunOptions,
    frontend: Frontend,
    files: Path | None = None,
    send: bool = False,
    given: GivenObjects = NO_OBJECTS,
) -> Iterator[RunPool]:
    """Yields the pool that `where` names; closed at the end.

    `files`: the folder with the job's files beside which workers on other nodes stand; `send`: it
    must be brought to them first. `given`: the model, where it was given as an object. Raises:
    ClusterError, ResourcesError, JobError, ModelError.
    """
    if where.pool == "local" or where.address is None:
        files = None
    spec = spec_of(resolved, resolved.job if files is None else kept_beside(resolved.job, files))
    if where.pool == "local":
        yield from _local_pool(spec, resolved.job, frontend, given)
    else:
        yield from _ray_pool(spec, resolved.job, where, frontend, files if send else None)


def _local_pool(
    spec: ReplicaSpec, job: Job, frontend: Frontend, given: GivenObjects
) -> Iterator[RunPool]:
    from raysearch.cluster.local_pool import LocalPool, device_here

    resources = job.resources
    if resources.replicas not in ("auto", 1):
        raise JobError(
            f"resources.replicas: {resources.replicas} need Ray; --pool local has one replica"
        )
    if given.model is None:
        frontend.say(f"loading   {job.model.path}")
        yield LocalPool(spec, device_here(resources.gpus))
    else:
        with given.borrowed():
            yield LocalPool(spec, load=partial(given.loaded, job))


def _ray_pool(
    spec: ReplicaSpec, job: Job, where: RunOptions, frontend: Frontend, files: Path | None
) -> Iterator[RunPool]:
    """Returns a pool on Ray. `files`: a folder to bring to all nodes."""
    if job.model.is_given:
        raise JobError(
            f"pool: ray: {job.model.path} is an object of this process, and replicas on Ray read "
            "their own model; give pool='local', or save it (model.save_pretrained(folder), "
            "tokenizer too; of a torch module my_file.py:factory) and name that"
        )
    from raysearch.cluster.metrics import MeteredPool, Metrics
    from raysearch.cluster.pool_shape import first_replicas
    from raysearch.cluster.ray_pool import RayPool
    from raysearch.cluster.ray_session import check_fits, ray_session

    address = where.address
    frontend.say(f"ray       {'starting' if address is None else f'connecting to {address}'}")
    with ray_session(address, files=files) as session:
        if session.dashboard:
            frontend.say(f"dashboard {session.dashboard}")
        shape = shape_of(job, session.gpus, frontend.say)
        if session.embedded:
            check_fits(session, shape)
        replicas = first_replicas(session.nodes, shape)
        frontend.say(f"loading   {job.model.path}, {replicas} replica{'s' * (replicas > 1)}")
        name, metrics = f"raysearch-{job.name}-{os.getpid()}", Metrics()
        pool = MeteredPool(RayPool(spec, name, shape, metrics.usage, watch=session.watch), metrics)
        early = import_early(where.tracking_uri)
        try:
            yield pool
        finally:
            pool.close()
            early.join()


def spec_of(resolved: ResolvedJob, job: Job) -> ReplicaSpec:
    """Returns the spec of each replica. `job`: the resolved one, its paths as workers are to read
    them."""
    resources = job.resources
    memory = None if resources.memory == "auto" else int(resources.memory * 2**30)
    return ReplicaSpec(
        job.source,
        tuple(_bare(p) for p in resolved.pairs),
        resolved.positions,
        resolved.variables,
        resolved.components,
        RunnerSettings(
            resources.rows,
            memory,
            resources.cpus,
            recipe=job.fit,
            files=job.space.sae_paths,
            scores=job.answer.scores,
            layers=resolved.layers,
            tokens=resources.tokens,
        ),
    )


def _bare(pair: Pair) -> Pair:
    """Returns the pair without the causal model's values: they stay with the driver, and may be of
    types that no worker knows."""
    sources = {name: replace(source, values={}) for name, source in pair.sources.items()}
    return replace(pair, base=replace(pair.base, values={}), sources=sources)
