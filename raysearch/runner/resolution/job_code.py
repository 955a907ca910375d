"""Lists the code that a job runs, so that it is named before it runs.

Invariants: nothing is imported to name it; a ready problem or proposer of raysearch is no code of
the job's.
"""

from raysearch.engine.loading.factory_kind import NETWORK
from raysearch.job import Job
from raysearch.job.file_keys import MODEL, PROBLEM, PROPOSER
from raysearch.problems.load_problem import named_problem
from raysearch.proposers.registry import installed_proposers
from raysearch.runner.resolution.load_proposer import OWN
from raysearch.user_code import check, describe_code


def code_of(job: Job, with_problem: bool = True) -> list[str]:
    """Returns a line for each file or module whose code the job runs. `with_problem`: its problem's
    too, which a run that goes on needs no more.

    Raises: JobError for what may not be named; nothing has run then.
    """
    named = (
        [(MODEL, *_split(job.model.path), NETWORK)]
        if job.model.is_factory and not job.model.is_given
        else []
    )
    use = job.problem.use
    if with_problem and use is not None and not job.problem.is_given:
        place, name, kind = named_problem(use)
        named += [] if place in kind.ours else [(PROBLEM, place, name, kind)]
    use = job.propose.use
    if ":" in use:
        named.append((PROPOSER, *_split(use), OWN))
    for key, place, name, kind in named:
        check(place, name, key, kind)
    lines = [describe_code(key, place) for key, place, *_ in named]
    if (point := installed_proposers().get(use)) is not None:
        lines.append(describe_code(PROPOSER, point.module))
    if job.model.trust_remote_code:
        lines.append(
            f"runs code of: the .py files that lie with {job.model.path} (model.trust_remote_code)"
        )
    return lines


def _split(use: str) -> tuple[str, str]:
    place, _, name = use.rpartition(":")
    return place, name
