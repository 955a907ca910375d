"""Computes the template values from a job and a launcher's options, by a function `for_NAME` each.

Invariants: nothing here is secret; a file of the job that the cluster could not reach is refused in
one line, before anything is written.
"""

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from raysearch.deploy.launchers import ClusterOptions, Compose, Kuberay, RayUp, Slurm
from raysearch.errors import JobError
from raysearch.job import Job
from raysearch.job.file_keys import PAIRS, PROBLEM
from raysearch.job.job_files import named_files

CONFIG_MAP_LIMIT = 2**20
"""Maximum bytes in a ConfigMap of Kubernetes."""


FILES_FOLDER = "base/files/"
"""Folder for the job's files, below the target's folder."""


@dataclass(frozen=True)
class DeploySettings:
    """The template values of one job on one cluster.

    `job`: path of the job file there; `options`: arguments after it; `mounts`: folder here to
    folder there; `files`: files to add, by path.
    """

    name: str
    slug: str
    job: str
    options: tuple[str, ...]
    workers: int
    cpus: int
    gpus: int
    cluster: ClusterOptions
    mounts: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


def for_slurm(job_file: Path, cluster: Slurm, to: Path | None = None) -> DeploySettings:
    """Computes the values for Slurm, whose nodes share the job file's file system."""
    return _settings(Job.load(job_file, cluster.sets), str(job_file), cluster)


def for_kuberay(job_file: Path, cluster: Kuberay, to: Path | None = None) -> DeploySettings:
    """Computes the values for KubeRay: job file and its text files travel in a ConfigMap.

    Raises: JobError for files that cannot travel.
    """
    job = Job.load(job_file, cluster.sets)
    if os.path.exists(job.model.path) and cluster.model_path is None:
        raise JobError(
            f"{job_file}: model.path: pods have no {job.model.path}; put the model into the image "
            f"or on a volume and say where it lies "
            "there with --model-path, or name a model of the hub"
        )
    folder = job_file.resolve().parent
    contents = {}
    for path in [job_file.resolve(), *_named_files(job)]:
        if not path.is_relative_to(folder):
            raise JobError(
                f"{job_file}: {path} does not lie in the job's folder {folder}; move it there"
            )
        contents[path.relative_to(folder).as_posix()] = _text(path, job_file)
    if (size := sum(len(t.encode()) for t in contents.values())) > CONFIG_MAP_LIMIT:
        raise JobError(
            f"{job_file}: the job's files have {size} bytes, a ConfigMap holds {CONFIG_MAP_LIMIT}; "
            f"`raysearch submit --address` takes more"
        )
    files = {FILES_FOLDER + name: text for name, text in contents.items()}
    return _settings(job, f"/etc/raysearch/{job_file.name}", cluster, files=files)


def for_compose(job_file: Path, cluster: Compose, to: Path | None = None) -> DeploySettings:
    """Computes the values for Docker Compose, which mounts the job's folder and its model.

    Args: to: the folder to write, to whose compose/ mounted paths are relative; None: absolute
    paths.
    """
    job = Job.load(job_file, cluster.sets)
    folder = job_file.resolve().parent
    mounts = {_relative_to(to, folder): "/job"}
    model = Path(job.model.path)
    if model.exists() and cluster.model_path is None:
        mounts[_relative_to(to, model.resolve())] = "/model"
    for path in _named_files(job):
        if not path.is_relative_to(folder):
            raise JobError(
                f"{job_file}: {path} does not lie in the job's folder {folder}; move it there"
            )
    on_nodes = cluster.model_path or ("/model" if model.exists() else None)
    return _settings(job, f"/job/{job_file.name}", cluster, mounts=mounts, model_path=on_nodes)


def for_ray(job_file: Path, cluster: RayUp, to: Path | None = None) -> DeploySettings:
    """Computes the values for `ray up`, sized for the job, which is submitted once the cluster
    runs."""
    return _settings(Job.load(job_file, cluster.sets), str(job_file), cluster)


def _settings(
    job: Job,
    name: str,
    cluster: ClusterOptions,
    mounts: Mapping[str, str] | None = None,
    files: Mapping[str, str] | None = None,
    model_path: str | None = None,
) -> DeploySettings:
    _check_unquoted(name, cluster)
    resources = job.resources
    gpus_each = 1.0 if resources.gpus == "auto" else resources.gpus
    gpus = math.ceil(gpus_each) if cluster.gpus is None else cluster.gpus
    replicas_per_node = (
        max(1, int(gpus // gpus_each)) if gpus_each else max(1, cluster.cpus // resources.cpus)
    )
    nodes = 2 if resources.replicas == "auto" else math.ceil(resources.replicas / replicas_per_node)
    sets = list(cluster.sets)
    if model_path or cluster.model_path:
        sets.append(f"model.path={model_path or cluster.model_path}")
    return DeploySettings(
        name=job.name,
        slug=re.sub(r"[^a-z0-9]+", "-", job.name.lower()).strip("-")[:40].strip("-"),
        job=name,
        options=tuple(word for s in sets for word in ("--set", s)),
        workers=cluster.workers or nodes,
        cpus=max(cluster.cpus, resources.cpus + 1),
        gpus=gpus,
        cluster=cluster,
        mounts=mounts or {},
        files=files or {},
    )


def _check_unquoted(job_file: str, cluster: ClusterOptions) -> None:
    """Raises JobError for texts that the files contain unquoted and that could break out of their
    line."""
    if not job_file.isprintable():
        raise JobError(
            f"{job_file}: its path holds a character that cannot be seen, or a line end; rename it"
        )
    for key in ("partition", "account", "time"):
        if not re.fullmatch(r"[\w.:,+-]*", getattr(cluster, key, "")):
            raise JobError(
                f"--{key} {getattr(cluster, key)!r}: is to be one word of letters, digits and "
                ". : , + -"
            )


def _named_files(job: Job) -> Sequence[Path]:
    """Returns the files that the driver reads: a user's problem and a file of pairs."""
    return [Path(f.path) for f in named_files(job) if f.key in (PAIRS, PROBLEM) and not f.is_remote]


def _text(path: Path, job_file: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise JobError(
            f"{job_file}: {path} is no text that a ConfigMap could hold ({e}); give pairs as JSONL"
        ) from e


def _relative_to(to: Path | None, path: Path) -> str:
    return str(path) if to is None else os.path.relpath(path, to.resolve() / "compose")
