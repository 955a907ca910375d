"""Verdicts and scores in words.

Invariants: said once, whoever draws or prints it; a run of an earlier version, whose job.yaml does
not say it, was on matches.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ScoreLabel:
    """`name`: of the figure; `of`: what the figure is; `counted`: whether it is a share of matches."""

    name: str
    of: str
    counted: bool = False


MATCHES = ScoreLabel("IIA", "share of pairs whose output is the counterfactual", counted=True)
_ON = {
    "matches": MATCHES,
    "probability": ScoreLabel("mean probability", "mean probability of the counterfactual"),
    "logit_difference": ScoreLabel(
        "mean logit difference", "mean logit difference, scaled to 0 (as without intervention) to 1"
    ),
}


def judged_of(job: Mapping[str, Any]) -> ScoreLabel:
    """What the test of a job is on, by its mapping."""
    return _ON[(job.get("test") or {}).get("score", "matches")]


SAYS = {
    "accept": "accepted",
    "reject": "rejected",
    "undecided": "undecided",
    "failed": "failed",
    None: "not decided yet",
}
"""Each verdict in the words of people, in the order in which they are reported."""
