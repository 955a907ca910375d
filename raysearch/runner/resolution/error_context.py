"""Adds context to errors: a mistake in a job gets the name of its file, one in a pair the file and
the line.

Invariants: what names a file already is left as it is; the class of an error, and so the exit code,
stays.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raysearch.errors import CausalModelError, JobError, ModelError, RaysearchError
from raysearch.job import Job
from raysearch.problems import place_of
from raysearch.storage.uris import is_uri

_PAIR = re.compile(r"pair (\d+): (.*)", re.DOTALL)


@contextmanager
def naming_file(file: Path, job: Job) -> Iterator[None]:
    """Names `file` in errors of the job that are raised within."""
    try:
        yield
    except (JobError, ModelError) as e:
        raise type(e)(_named(e, file, job)) from e


def _named(error: RaysearchError, file: Path, job: Job) -> str:
    text, pairs = str(error), job.problem.pairs
    of_pair = _PAIR.fullmatch(text)
    if (
        of_pair is not None and pairs is not None and not is_uri(pairs)
    ):  # a remote file is not fetched again for a line
        return f"{place_of(Path(pairs), int(of_pair[1]), job.pairs.seed)}: {of_pair[2]}"
    if isinstance(error, ModelError) and text.startswith(f"{job.model.path}:"):
        return f"{file}: model.path: {text}"
    if any(path is not None and text.startswith(str(path)) for path in (file, pairs)):
        return text
    return f"{file}: {'problem: ' * isinstance(error, CausalModelError)}{text}"
