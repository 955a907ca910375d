"""A file that a key of a job names, and which keys name files.

Invariants: hub ids and functions of installed modules are no files.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from raysearch.storage.uris import is_uri

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
    """The path that a key of a job names: a file or folder; for a sparse autoencoder one file for
    each layer, where `{layer}` is in `path`."""

    key: str
    path: str

    @property
    def is_code(self) -> bool:
        """Says whether it is Python, of which a function is named."""
        return self.path.endswith(".py")

    @property
    def is_remote(self) -> bool:
        """Says whether it lies in an object store."""
        return is_uri(self.path)


Away = Callable[[NamedFile], bool]
"""True if a file, its path as written, is on other machines, so that it is not looked for here."""


def none_away(_: NamedFile) -> bool:
    """Says that every file is here, as for whoever runs a job."""
    return False


def only_looked_at(file: NamedFile) -> bool:
    """Says which files may be elsewhere for whoever only looks at a run: the model and all code,
    since neither is needed then."""
    return file.key in (MODEL, PROBLEM, PAIRS, PROPOSER)


def is_beside(path: str) -> bool:
    """Says whether a path lies in the folder files/, where a run keeps the files of its job."""
    return Path(path).parts[:1] == (FILES,)
