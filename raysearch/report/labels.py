"""Names a test's score and the verdicts, for charts, pages and terminals.

Invariants: the score's short name replaces "IIA" everywhere; older runs whose job.yaml names no
score were tested on matches.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ScoreLabel:
    """The name of a score. `description`: its definition; `counted`: whether it is a share of
    matches."""

    name: str
    description: str
    counted: bool = False


MATCHES = ScoreLabel("IIA", "share of pairs whose output is the counterfactual", counted=True)
_ON = {
    "matches": MATCHES,
    "probability": ScoreLabel("mean probability", "mean probability of the counterfactual"),
    "logit_difference": ScoreLabel(
        "mean logit difference", "mean logit difference, scaled to 0 (as without intervention) to 1"
    ),
}


def score_label(job: Mapping[str, Any]) -> ScoreLabel:
    """Returns the score that a job tests."""
    return _ON[(job.get("test") or {}).get("score", "matches")]


VERDICT_WORDS = {
    "accept": "accepted",
    "reject": "rejected",
    "undecided": "undecided",
    "failed": "failed",
    None: "not decided yet",
}
"""The verdicts in words, in the order in which charts and tables list them."""
