"""The scale on which a test reads its score: from a job's score to numbers in [0, 1].

`core/option_names.py` says what each score is. A test uses `probability` unchanged, or the logit
difference d on one scale for the whole job, clipped to [0, 1]:

    (d + scale) / (2 scale)

where scale is the mean of -d without intervention, over the fit pairs that the model solves and the
variables that change them. So 0 means as far towards the base's answer as the model goes by itself,
1 as far towards the counterfactual, and 1/2 undecided between them.

Invariants: the journal has the engine's numbers; the scale follows from the screening in the
journal, so that a resumed run has the same.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from raysearch.core.events import Measured
from raysearch.core.option_names import TestedScore
from raysearch.errors import PairsError
from raysearch.search.pair_blocks import ExpectedAnswers
from raysearch.search.screening import Screening


@dataclass(frozen=True, slots=True)
class ScoreScale:
    """The score that a test is on, and its scale: the divisor of a logit difference, more than
    0.
    """

    name: TestedScore
    scale: float | None = None

    def of(self, seen: Measured, variable: str) -> tuple[float, ...]:
        """Returns the scaled score in [0, 1] of each pair of an observation."""
        assert seen.scores is not None, (
            f"the test is on {self.name}, and {seen.intervention} was measured without"
        )
        values = seen.scores[self.name][variable]
        if self.scale is None:
            return values
        return tuple(min(max((d + self.scale) / (2 * self.scale), 0.0), 1.0) for d in values)


def score_scale(
    tested: TestedScore, screening: Screening, pairs: Mapping[int, ExpectedAnswers]
) -> ScoreScale | None:
    """Returns the score that a job's test is on once screening is over; None for matches.

    Raises:
        PairsError: the logit difference has no scale.
    """
    if tested == "matches":
        return None
    return ScoreScale(tested, _scale(screening, pairs) if tested == "logit_difference" else None)


def _scale(screening: Screening, pairs: Mapping[int, ExpectedAnswers]) -> float:
    leads = [
        -difference
        for pair in screening.usable("fit")
        for variable, difference in screening.differences(pair).items()
        if pairs[pair].changes(variable)
    ]
    if not leads:
        raise PairsError(
            "test.score: logit_difference takes its scale from fit pairs that a variable changes, "
            "and there are none that the model "
            "solves; raise pairs.fit, or test the probability"
        )
    scale = math.fsum(leads) / len(leads)
    if scale <= 0:
        raise PairsError(
            f"test.score: logit_difference has no scale: on the fit pairs the model prefers the "
            f"counterfactual by {-scale:.3g} without any "
            "intervention; test the probability, or set pairs.solved_only: true"
        )
    return scale
