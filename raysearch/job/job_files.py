"""The files that a job names, listed; and a job whose files lie beside it, in a folder that can be
moved."""

from pathlib import Path

from raysearch.job.file_keys import FILES, NamedFile, is_beside
from raysearch.job.job import Job


def named_files(job: Job) -> tuple[NamedFile, ...]:
    """Returns all files that the job names, in the order of its keys; a model's hub id among them,
    which only a look at the disk tells from a folder."""
    found: list[NamedFile] = []

    def keep(file: NamedFile) -> str:
        found.append(file)
        return file.path

    job.with_paths(keep)
    return tuple(found)


def kept_beside(job: Job, folder: Path) -> Job:
    """Returns the job with the paths of what lies in `folder`/files written from `folder`, so that
    both can be moved together."""

    folder = folder.resolve()

    def place(file: NamedFile) -> str:
        path = Path(file.path)
        return str(path.relative_to(folder)) if path.is_relative_to(folder / FILES) else file.path

    return job.with_paths(place)


def found_beside(job: Job, folder: Path) -> Job:
    """Returns the job with the paths that are written from a folder with files/ put into `folder`:
    the reverse of `kept_beside`."""

    def place(file: NamedFile) -> str:
        return str(folder / file.path) if is_beside(file.path) else file.path

    return job.with_paths(place)
