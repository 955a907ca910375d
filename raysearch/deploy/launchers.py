"""Lists the launchers for jobs, each with the options of its command.

To add one: a dataclass of options here, an entry in `LAUNCHERS`, a folder of templates of the same
name, and a function `for_NAME` in settings.py.

Invariants: each default is written once, in a dataclass; this file is light, since the command line
imports it to show its help.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from raysearch._version import __version__

_SET = "Set a key of the job, typed as YAML. Repeatable."
_TRACKING = 'MLflow tracking URI; "none" keeps MLflow out.'
_IMAGE = "The image of Ray's nodes and of the MLflow server (deploy/docker/Dockerfile)."


def _option(default: Any, words: str, **more: Any) -> Any:
    """Returns a field with a default and its flag's help.

    Args: more: `flag`, its name if different; `least`, the minimum; `metavar`.
    """
    return field(default=default, metadata={"help": words, **more})


@dataclass(frozen=True)
class ClusterOptions:
    """Options of every cluster. `model_path`: the model's path on the nodes."""

    sets: tuple[str, ...] = _option((), _SET, flag="set", metavar="KEY=VALUE")
    model_path: str | None = _option(
        None, "Where the model lies there, if not where the job says.", metavar="PATH"
    )
    workers: int | None = _option(None, "Nodes or pods. Default: what the job asks, or 2.", least=1)
    cpus: int = _option(8, "CPUs of each.", least=1)
    gpus: int | None = _option(None, "GPUs of each. Default: those of one replica.", least=0)


@dataclass(frozen=True)
class Slurm(ClusterOptions):
    """A Slurm allocation. `patience`: seconds to wait for nodes."""

    store: str = _option("./runs", "A folder that all nodes share.", metavar="URI")
    tracking_uri: str = _option("sqlite:///mlflow.db", _TRACKING, metavar="URI")
    time: str = _option("08:00:00", "The time limit of an allocation.")
    grace: int = _option(120, "Seconds before that at which to stop.", least=30)
    patience: int = 120
    partition: str = _option("", "The partition to run in.")
    account: str = _option("", "The account to charge.")
    setup: tuple[str, ...] = _option(
        (), "A line of shell to begin with. Repeatable.", metavar="LINE"
    )


@dataclass(frozen=True)
class Kuberay(ClusterOptions):
    """A Kubernetes namespace with the KubeRay operator."""

    store: str = _option("s3://raysearch/runs", "An object store.", metavar="URI")
    tracking_uri: str = _option("http://raysearch-mlflow:5000", _TRACKING, metavar="URI")
    image: str = _option(f"raysearch:{__version__}", _IMAGE)
    memory: int = _option(16, "GiB of each pod of Ray.", least=1)
    endpoint: str = _option("", "Of an S3 store that is not Amazon's.", metavar="URL")
    region: str = _option("us-east-1", "Of the S3 store.")


@dataclass(frozen=True)
class Compose(ClusterOptions):
    """One machine with Docker; requests GPUs if `gpus` is above 0."""

    store: str = _option("/runs", "A folder in the containers, a volume.", metavar="URI")
    tracking_uri: str = _option("http://mlflow:5000", _TRACKING, metavar="URI")
    image: str = _option(f"raysearch:{__version__}", _IMAGE)


@dataclass(frozen=True)
class RayUp(ClusterOptions):
    """Machines reached by ssh."""

    head: str = _option("head.example", "The machine of the head.", metavar="HOST")
    hosts: tuple[str, ...] = _option(
        ("worker-1.example", "worker-2.example"),
        "The machine of a worker. Repeatable.",
        flag="host",
        metavar="HOST",
    )
    user: str = _option("raysearch", "Who logs in by ssh.")


@dataclass(frozen=True)
class Launcher:
    """A way to launch jobs.

    `help`: of its command; `next`: the command that uses what was written to `folder`; `why`: what
    it needs before; `shared`: additional folders of templates; `wheel`: whether its machines
    install raysearch from a wheel of this code, rather than have it already.
    """

    options: type[ClusterOptions]
    help: str
    next: str
    why: str = ""
    shared: tuple[str, ...] = ()
    wheel: bool = False


LAUNCHERS: Mapping[str, Launcher] = {
    "slurm": Launcher(
        Slurm,
        "A script for sbatch, which is requeued at its time limit and goes on.",
        "sbatch {folder}/raysearch.sbatch",
    ),
    "kuberay": Launcher(
        Kuberay,
        "Kustomizations for KubeRay: the job, or a cluster that stays, with MLflow on PostgreSQL.",
        "kubectl apply -k {folder}/overlays/gpu/job",
        why="with its secrets there (deploy/README.md; cpu and spot lie beside gpu)",
    ),
    "compose": Launcher(
        Compose,
        "Docker compose: Ray, MLflow on PostgreSQL, Prometheus, Grafana.",
        "cd {folder} && (umask 077; ./secrets.sh > .env) && docker compose up -d",
        shared=("prometheus", "grafana"),
    ),
    "ray": Launcher(
        RayUp,
        "A cluster file for `ray up`, on machines of one's own.",
        "ray up {folder}/cluster.yaml",
        wheel=True,
    ),
}
"""Launchers by the name of their command and folder of templates."""
