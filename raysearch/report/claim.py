"""The claim of a run in a few sentences, as the command line, a notebook and a tracker show it.

Invariants: population, threshold, error level and K stand in each; what was not shown does too.
"""

from collections.abc import Mapping
from typing import Any

from raysearch.proposers.registry import family_words
from raysearch.report.labels import score_label
from raysearch.report.population import population_words
from raysearch.report.results_table import read_table
from raysearch.storage.open import FolderLike, open_folder
from raysearch.store.job_file import read_job


def claim_words(job: Mapping[str, Any], population: str, hypotheses: int) -> str:
    """Returns what an accept says, at which level, and what it does not say.

    Args:
        job: the keys of the job.
        population: what the verdicts are about, in words.
        hypotheses: how many were proposed, controls apart; 0 before that is known.
    """
    test = job["test"]
    tau = test["threshold"] - (test.get("indifference") or 0.0)
    family = "over all hypotheses that it may propose"
    if hypotheses:
        family = family_words((job.get("propose") or {}).get("use"), hypotheses)
    return (
        f"Accepted: sufficient under interchange, {score_label(job).name} above {tau:g} on "
        f"{population}; the chance of any false accept is at most {test['false_accept']:g}, "
        f"{family}. It does not say that the variable lives there and nowhere else, nor anything of "
        "other texts. A mean at a stopping time is biased: go by the interval and the holdout."
    )


def read_claim(run: FolderLike) -> str:
    """Returns the claim of a run as its folder has it. Raises: StoreError."""
    job = read_job(open_folder(run))
    controls = read_table(run, "hypotheses")["control"]
    population = population_words(job, read_table(run, "verdicts"))
    return claim_words(job, population, controls.null_count)
