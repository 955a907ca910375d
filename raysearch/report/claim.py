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


def error_words(test: Mapping[str, Any]) -> str:
    """Says what `test.false_accept` of a job bounds, and at which value."""
    level = f"{test['false_accept']:g}"
    if test.get("control") == "fdr":
        return (
            f"the expected share of false accepts among all accepts (false discovery rate) is at "
            f"most {level}, which bounds no single accept"
        )
    return f"the chance of any false accept is at most {level}"


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
        f"{population}; {error_words(test)}, {family}. It does not say that the variable lives there and nowhere else, nor anything of "
        "other texts. A mean at a stopping time is biased: go by the interval and the holdout. Intervals "
        "from low to high hold for each hypothesis by itself at 95 %; of those from fcr_low to "
        "fcr_high, corrected for the selection of what was accepted, at most 5 % are expected to miss."
    )


def read_claim(run: FolderLike) -> str:
    """Returns the claim of a run as its folder has it. Raises: StoreError."""
    job = read_job(open_folder(run))
    controls = read_table(run, "hypotheses")["control"]
    population = population_words(job, read_table(run, "verdicts"))
    return claim_words(job, population, controls.null_count)
