"""`raysearch deploy render`: the files that run a job on Slurm, KubeRay, Docker compose or machines
of one's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

F = Callable[..., Any]


@click.group()
def deploy() -> None:
    """Run on a real cluster."""


@deploy.group()
def render() -> None:
    """Write the files that run a job on a cluster. They hold no secret; the README in deploy/ says
    where those go."""


_job = click.argument("job", type=click.Path(path_type=Path))
_to = click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder to write, in a folder named for the place. Default: standard output, each "
    "file behind its name.",
)


def _place(function: F) -> F:
    for flag in reversed(
        [
            click.option(
                "--set",
                "sets",
                multiple=True,
                allow_from_autoenv=False,
                metavar="KEY=VALUE",
                help="Set a key of the job, typed as YAML. Repeatable.",
            ),
            click.option(
                "--model-path",
                metavar="PATH",
                help="Where the model lies there, if not where the job says.",
            ),
            click.option(
                "--workers",
                type=click.IntRange(min=1),
                help="Nodes or pods. Default: what the job asks, or 2.",
            ),
            click.option("--cpus", type=click.IntRange(min=1), help="CPUs of each. Default: 8."),
            click.option(
                "--gpus",
                type=click.IntRange(min=0),
                help="GPUs of each. Default: those of one replica.",
            ),
            _to,
        ]
    ):
        function = flag(function)
    return function


def _kept(help_text: str) -> F:
    return click.option("--store", metavar="URI", help=help_text)


_tracking = click.option(
    "--tracking-uri", metavar="URI", help='MLflow tracking URI; "none" keeps MLflow out.'
)
_image = click.option(
    "--image", help="The image of Ray's nodes and of the MLflow server (deploy/docker/Dockerfile)."
)


@render.command()
@_job
@_place
@_kept("A folder that all nodes share. Default: ./runs.")
@_tracking
@click.option("--time", help="The time limit of an allocation. Default: 08:00:00.")
@click.option(
    "--grace",
    type=click.IntRange(min=30),
    help="Seconds before that at which to stop. Default: 120.",
)
@click.option("--partition", help="The partition to run in.")
@click.option("--account", help="The account to charge.")
@click.option(
    "--setup", multiple=True, metavar="LINE", help="A line of shell to begin with. Repeatable."
)
def slurm(job: Path, to: Path | None, **flags: Any) -> int:
    """A script for sbatch, which is requeued at its time limit and goes on."""
    from raysearch.deploy.settings import Slurm, for_slurm

    return _give(for_slurm(job, Slurm(**_given(flags))), "slurm", to)


@render.command()
@_job
@_place
@_kept("An object store. Default: s3://raysearch/runs.")
@_tracking
@_image
@click.option("--memory", type=click.IntRange(min=1), help="GiB of each pod of Ray. Default: 16.")
@click.option("--endpoint", metavar="URL", help="Of an S3 store that is not Amazon's.")
@click.option("--region", help="Of the S3 store. Default: us-east-1.")
def kuberay(job: Path, to: Path | None, **flags: Any) -> int:
    """Kustomizations for KubeRay: the job, or a cluster that stays, with MLflow on PostgreSQL."""
    from raysearch.deploy.settings import Kuberay, for_kuberay

    return _give(for_kuberay(job, Kuberay(**_given(flags))), "kuberay", to)


@render.command()
@_job
@_place
@_kept("A folder in the containers. Default: /runs, a volume.")
@_tracking
@_image
def compose(job: Path, to: Path | None, **flags: Any) -> int:
    """Docker compose: Ray, MLflow on PostgreSQL, Prometheus, Grafana."""
    from raysearch.deploy.settings import Compose, for_compose

    return _give(for_compose(job, Compose(**_given(flags)), to), "compose", to)


@render.command()
@_job
@_place
@click.option("--head", metavar="HOST", help="The machine of the head.")
@click.option(
    "--host", "hosts", multiple=True, metavar="HOST", help="A machine of a worker. Repeatable."
)
@click.option("--user", help="Who logs in by ssh.")
def ray(job: Path, to: Path | None, **flags: Any) -> int:
    """A cluster file for `ray up`, on machines of one's own."""
    from raysearch.deploy.settings import RayUp, for_ray

    return _give(for_ray(job, RayUp(**_given(flags))), "ray", to)


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    """Returns the flags that were given; the dataclasses have the defaults."""
    return {name: value for name, value in flags.items() if value not in (None, ())}


def _give(settings: Any, target: str, to: Path | None) -> int:
    from raysearch.cli.terminal import tell
    from raysearch.deploy.render import render as rendered
    from raysearch.deploy.render import write

    files = rendered(settings, target)
    if to is not None:
        for path in [*write(files, to), *_wheel(to / target, target)]:
            tell(str(path))
        return 0
    files = {name: text for name, text in files.items() if "/wheels/" not in name}
    if len(files) == 1:
        click.echo(next(iter(files.values())), nl=False)
    else:
        for name, text in files.items():
            click.echo(f"# ---- {name}\n{text}")
    return 0


def _wheel(to: Path, target: str) -> list[Path]:
    """Writes a wheel of the running code for `ray up`; other targets have it in their image."""
    if target != "ray":
        return []
    from raysearch.deploy.wheel import write_wheel

    return [write_wheel(to / "wheels")]
