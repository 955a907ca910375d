"""What the templates are filled in with: what a job says, and the options of the place where it is
to run. Each launcher has a function `for_NAME` here.

Invariants: nothing in here is a secret; a file of the
job that would not be there on the cluster is refused, in one line, before anything is written.
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
from raysearch.job.job_files import named_files
from raysearch.job.named_files import PAIRS, PROBLEM

CONFIG_MAP_LIMIT = 2**20
"""Bytes that Kubernetes takes in one ConfigMap."""


BESIDE = "base/files/"
"""Where files of the job go, below the target's folder."""


@dataclass(frozen=True)
class DeploySettings:
    """One job in one place. `job`: the job file as it is called there; `options`: what is put
    behind it; `beside`: files to add."""

    name: str
    slug: str
    job: str
    options: tuple[str, ...]
    workers: int
    cpus: int
    gpus: int
    place: ClusterOptions
    mounts: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, str] = field(default_factory=dict)


def for_slurm(job_file: Path, place: Slurm, to: Path | None = None) -> DeploySettings:
    """`job_file` stays where it is: the nodes share a file system with the machine that submits."""
    return _settings(Job.load(job_file, place.sets), str(job_file), place)


def for_kuberay(job_file: Path, place: Kuberay, to: Path | None = None) -> DeploySettings:
    """The job file, and text files that it names in its folder, travel in a ConfigMap. Raises:
    JobError for what cannot travel."""
    job = Job.load(job_file, place.sets)
    if os.path.exists(job.model.path) and place.model_path is None:
        raise JobError(
            f"{job_file}: model.path: pods have no {job.model.path}; put the model into the image "
            f"or on a volume and say where it lies "
            "there with --model-path, or name a model of the hub"
        )
    folder = job_file.resolve().parent
    beside = {}
    for path in [job_file.resolve(), *_named_files(job)]:
        if not path.is_relative_to(folder):
            raise JobError(
                f"{job_file}: {path} does not lie in the job's folder {folder}; move it there"
            )
        beside[path.relative_to(folder).as_posix()] = _text(path, job_file)
    if (size := sum(len(t.encode()) for t in beside.values())) > CONFIG_MAP_LIMIT:
        raise JobError(
            f"{job_file}: the job's files have {size} bytes, a ConfigMap holds {CONFIG_MAP_LIMIT}; "
            f"`raysearch submit --address` takes more"
        )
    files = {BESIDE + name: text for name, text in beside.items()}
    return _settings(job, f"/etc/raysearch/{job_file.name}", place, beside=files)


def for_compose(job_file: Path, place: Compose, to: Path | None = None) -> DeploySettings:
    """The job's folder and its model are mounted; their paths are relative to `to`/compose where
    that is given."""
    job = Job.load(job_file, place.sets)
    folder = job_file.resolve().parent
    mounts = {_seen_from(to, folder): "/job"}
    model = Path(job.model.path)
    if model.exists() and place.model_path is None:
        mounts[_seen_from(to, model.resolve())] = "/model"
    for path in _named_files(job):
        if not path.is_relative_to(folder):
            raise JobError(
                f"{job_file}: {path} does not lie in the job's folder {folder}; move it there"
            )
    on_nodes = place.model_path or ("/model" if model.exists() else None)
    return _settings(job, f"/job/{job_file.name}", place, mounts=mounts, model_path=on_nodes)


def for_ray(job_file: Path, place: RayUp, to: Path | None = None) -> DeploySettings:
    """Of the job only its size counts: it is submitted to the cluster when that is up."""
    return _settings(Job.load(job_file, place.sets), str(job_file), place)


def _settings(
    job: Job,
    name: str,
    place: ClusterOptions,
    mounts: Mapping[str, str] | None = None,
    beside: Mapping[str, str] | None = None,
    model_path: str | None = None,
) -> DeploySettings:
    _check_texts(name, place)
    resources = job.resources
    each = 1.0 if resources.gpus == "auto" else resources.gpus
    gpus = math.ceil(each) if place.gpus is None else place.gpus
    on_a_node = max(1, int(gpus // each)) if each else max(1, place.cpus // resources.cpus)
    asked = 2 if resources.replicas == "auto" else math.ceil(resources.replicas / on_a_node)
    sets = list(place.sets)
    if model_path or place.model_path:
        sets.append(f"model.path={model_path or place.model_path}")
    return DeploySettings(
        name=job.name,
        slug=re.sub(r"[^a-z0-9]+", "-", job.name.lower()).strip("-")[:40].strip("-"),
        job=name,
        options=tuple(word for s in sets for word in ("--set", s)),
        workers=place.workers or asked,
        cpus=max(place.cpus, resources.cpus + 1),
        gpus=gpus,
        place=place,
        mounts=mounts or {},
        beside=beside or {},
    )


def _check_texts(job_file: str, place: ClusterOptions) -> None:
    """Raises: JobError for what stands unquoted in a file, in a comment or in a line of Slurm's
    own, and would be more than that."""
    if not job_file.isprintable():
        raise JobError(
            f"{job_file}: its path holds a character that cannot be seen, or a line end; rename it"
        )
    for key in ("partition", "account", "time"):
        if not re.fullmatch(r"[\w.:,+-]*", getattr(place, key, "")):
            raise JobError(
                f"--{key} {getattr(place, key)!r}: is to be one word of letters, digits and . : , "
                f"+ -"
            )


def _named_files(job: Job) -> Sequence[Path]:
    """The files that the driver reads: a problem of the user's own, a file of pairs."""
    return [Path(f.path) for f in named_files(job) if f.key in (PAIRS, PROBLEM) and not f.is_remote]


def _text(path: Path, job_file: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise JobError(
            f"{job_file}: {path} is no text that a ConfigMap could hold ({e}); give pairs as JSONL"
        ) from e


def _seen_from(to: Path | None, path: Path) -> str:
    return str(path) if to is None else os.path.relpath(path, to.resolve() / "compose")
