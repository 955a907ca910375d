"""Chooses which pairs decide, where a job leaves that open.

Where an answer is one of two, whatever changes it makes it the counterfactual: so any intervention
that does something scores high on change pairs, and pairs that the variable leaves alone must tell
it from one that acts on the variable.

Invariants: a function of the job and of what its pairs expect, so that it is known before anything
runs.
"""

from collections.abc import Sequence

from raysearch.causal import Pair
from raysearch.core.option_names import PairKinds
from raysearch.job import Job

LEAST_KEPT = 0.25
"""Share of test pairs that every variable must leave alone for them to decide: 128 of the default
512, on which an IIA of .95 is accepted with a chance of .95 at K = 12 and of .7 at K = 500
(threshold .8; `stats/power.py`); fewer would leave most of what is true undecided."""


def kinds_of(job: Job, variables: Sequence[str], pairs: Sequence[Pair]) -> PairKinds:
    """Returns the pairs that decide: the job's own choice, or for `auto` "both" where answers are
    two and enough pairs keep theirs.
    """
    if job.pairs.kinds != "auto":
        return job.pairs.kinds
    if job.test.keep_threshold is not None:
        return "both"
    if job.test.score == "logit_difference" or job.space.ablations:
        return "change"
    test = [p for p in pairs if p.split == "test"]
    kept = [sum(p.counterfactual[v] == p.answers["base"] for p in test) for v in variables]
    enough = min(kept, default=0) >= LEAST_KEPT * len(test)
    return "both" if enough and answers_are_two(job, test) else "change"


def answers_are_two(job: Job, pairs: Sequence[Pair]) -> bool:
    """Says whether every answer is one of two: the same two in all pairs, or of each pair's
    choices."""
    if job.answer.compare == "choices":
        return all(len(p.choices) == 2 for p in pairs)
    answers = {a for p in pairs for a in (*p.answers.values(), *p.counterfactual.values())}
    return len(answers) == 2
