"""What a run folder has of its question: the job, the pairs, what was known of the model; so that its search can be made again.

Invariants: only a run of this evidence version and of an untouched job is taken, else its verdicts would not be those that it had.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from raysearch.cli.question import Question
from raysearch.errors import ResumeError
from raysearch.job import Job
from raysearch.search.events import ComponentFacts, ModelFacts
from raysearch.search.search import EVIDENCE_VERSION
from raysearch.store.pairs_table import KeptPairs, read_pairs
from raysearch.store.run_folder import JOB_FILE, RunFolder


def kept_question(run: RunFolder) -> tuple[KeptPairs, Question]:
    """The pairs that the run keeps, and its question. Raises: ResumeError where another version began it, or its job was edited."""
    if run.info.evidence_version != EVIDENCE_VERSION:
        raise ResumeError(
            f"run {run.info.id} has evidence version {run.info.evidence_version}, this raysearch has {EVIDENCE_VERSION}: their "
            "verdicts do not mix; resume it with the raysearch that began it, or submit the job again"
        )
    kept = read_pairs(run.folder)
    return kept, Question(_kept_job(run), kept.pairs)


def plain_facts(facts: ModelFacts) -> Mapping[str, Any]:
    """The facts as run.json keeps them."""
    plain = asdict(facts)
    return {**plain, "components": [{k: _listed(v) for k, v in c.items()} for c in plain["components"]]}


def kept_facts(run: RunFolder) -> ModelFacts:
    """What was known of the model when the run was last driven. Raises: ResumeError where run.json does not say it."""
    plain = run.info.facts
    if plain is None:
        raise ResumeError(
            f"run {run.info.id}: its run.json says nothing of the model (an earlier version wrote it); `raysearch resume` it once, "
            "which adds that"
        )
    components = tuple(ComponentFacts(**{k: _tupled(v) for k, v in c.items()}) for c in plain["components"])
    return ModelFacts(**{**plain, "components": components})


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _kept_job(run: RunFolder) -> Job:
    """The job that the run began with. Raises: ResumeError where job.yaml was edited since, in what changes an answer."""
    where = run.folder.shown(JOB_FILE)
    job = Job.read(run.job_text, where)
    if job.digest() != run.info.job_digest:
        raise ResumeError(
            f"{where}: was edited since the run began, and its verdicts would not mix with those to come; put it back "
            "(only name and resources may change), or submit it as a new job"
        )
    return job
