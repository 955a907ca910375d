"""Translates a job's resources into the pool's terms, and says their effect here."""

from collections.abc import Callable
from pathlib import Path

from raysearch.cluster.pool_shape import PoolShape, bytes_on_cpu
from raysearch.job import Job


def shape_of(job: Job, gpus_there: float, say: Callable[[str], None]) -> PoolShape:
    """Returns the shape of a pool on a Ray whose largest node has `gpus_there` GPUs."""
    resources = job.resources
    gpus = min(1.0, gpus_there) if resources.gpus == "auto" else resources.gpus
    if resources.gpus == "auto" and not gpus:
        say("gpus      none here: replicas run on CPUs (resources.gpus: 1 asks for one)")
    if gpus > 1 and job.model.device_map is None:
        say(
            f"gpus      {gpus:g} for each replica, which uses one of them: model.device_map: auto "
            f"spreads it over all"
        )
    given = {"start_seconds": resources.wait, "deadline_seconds": resources.deadline}
    return PoolShape(
        resources.replicas,
        resources.cpus,
        gpus,
        max_replicas=resources.max_replicas,
        labels=resources.labels,
        custom=resources.custom,
        bytes=bytes_on_cpu(_size(job.model.path)),
        or_cpu=resources.gpus == "auto",
        **{name: seconds for name, seconds in given.items() if seconds != "auto"},
    )


def _size(model: str) -> int:
    """Returns the bytes of those files of a model that are here."""
    path = Path(model)
    files = path.glob("*") if path.is_dir() else [path] if path.is_file() else []
    return sum(f.stat().st_size for f in files if f.suffix in (".safetensors", ".bin", ".gguf"))
