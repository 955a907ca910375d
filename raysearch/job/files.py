"""The files that a job names: one place that lists them, whatever is done with them (made absolute, digested, sent, kept).

Invariants: a key of the job that names a file is known here and nowhere else; hub ids and functions of installed modules are no files.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from raysearch.folders.where import is_uri
from raysearch.job.space import SpaceKeys, SubspaceChoice, SubspaceKeys

if TYPE_CHECKING:
    from raysearch.job.job import Job

MODEL = "model.path"
PROBLEM = "problem.use"
PAIRS = "problem.pairs"
PROPOSER = "propose.use"
FILES = "files"
"""The folder beside a job.yaml that was sent or kept with its files."""
LAYER = "{layer}"
"""Stands in the path of a sparse autoencoder for the layer."""


@dataclass(frozen=True, slots=True)
class NamedFile:
    """What a key of a job names: a file or folder; for a sparse autoencoder one file for each layer, where `{layer}` is in `path`."""

    key: str
    path: str

    @property
    def is_code(self) -> bool:
        """Whether it is Python, of which a function is named."""
        return self.path.endswith(".py")

    @property
    def is_remote(self) -> bool:
        """Whether it lies in an object store."""
        return is_uri(self.path)


Away = Callable[[NamedFile], bool]
"""Whether a file, its path as written, is on other machines, so that it is not looked for here."""


def none_away(_: NamedFile) -> bool:
    """Whoever runs a job has all that it names."""
    return False


def only_looked_at(file: NamedFile) -> bool:
    """Whoever only looks at a run needs no model and runs no code, and may stand where there is none."""
    return file.key in (MODEL, PROBLEM, PAIRS, PROPOSER)


def placed(job: "Job", place: Callable[[NamedFile], str]) -> "Job":
    """The job with each path that it names put where `place` says; the name of a function stays behind its file."""
    model, problem = job.model, job.problem
    if model.factory_file is not None:
        model = model.model_copy(update={"path": _function(MODEL, model.path, place)})
    elif not model.is_factory:
        model = model.model_copy(update={"path": place(NamedFile(MODEL, model.path))})
    if problem.pairs is not None:
        problem = problem.model_copy(update={"pairs": place(NamedFile(PAIRS, problem.pairs))})
    elif problem.use is not None and ".py:" in problem.use:
        problem = problem.model_copy(update={"use": _function(PROBLEM, problem.use, place)})
    propose, space = job.propose, _space(job.space, place)
    if propose.file is not None:
        propose = propose.model_copy(update={"use": _function(PROPOSER, propose.use, place)})
    return job.model_copy(update={"model": model, "problem": problem, "space": space, "propose": propose})


def named_files(job: "Job") -> tuple[NamedFile, ...]:
    """All that the job names, in the order of its keys; a model's hub id among them, which only a look at the disk tells from a folder."""
    found: list[NamedFile] = []

    def keep(file: NamedFile) -> str:
        found.append(file)
        return file.path

    placed(job, keep)
    return tuple(found)


def kept_beside(job: "Job", folder: Path) -> "Job":
    """The job with the paths of what lies in `folder`/files written from `folder`, so that both can be moved together."""

    folder = folder.resolve()

    def place(file: NamedFile) -> str:
        path = Path(file.path)
        return str(path.relative_to(folder)) if path.is_relative_to(folder / FILES) else file.path

    return placed(job, place)


def found_beside(job: "Job", folder: Path) -> "Job":
    """The same the other way round: what is written from a folder with files/ has its place in `folder`."""

    def place(file: NamedFile) -> str:
        return str(folder / file.path) if is_beside(file.path) else file.path

    return placed(job, place)


def is_beside(path: str) -> bool:
    """Whether a path is written from a folder with files/."""
    return Path(path).parts[:1] == (FILES,)


def _function(key: str, named: str, place: Callable[[NamedFile], str]) -> str:
    file, _, name = named.rpartition(":")
    return f"{place(NamedFile(key, file))}:{name}"


def _space(space: SpaceKeys, place: Callable[[NamedFile], str]) -> SpaceKeys:
    def subspace(i: int, keys: SubspaceKeys) -> SubspaceKeys:
        if not isinstance(keys, SubspaceChoice) or keys.sae is None:
            return keys
        path = place(NamedFile(f"space.subspaces.{i}.sae.path", keys.sae.path))
        return keys.model_copy(update={"sae": keys.sae.model_copy(update={"path": path})})

    return space.model_copy(update={"subspaces": tuple(subspace(i, keys) for i, keys in enumerate(space.subspaces))})
