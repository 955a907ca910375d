"""Follows which hypothesis is a variable's best while verdicts come, and may change.

Invariants: an accepted one is before an undecided one, and that before all others; among equals the
lower end of the interval decides, since means at stopping times are not comparable.
"""

from dataclasses import dataclass, field

Rank = tuple[int, float, float]
"""Rank of the verdict, lower end of the interval, mean; the largest is the best."""
_RANKS = {"accept": 2, "undecided": 1}


def rank_of(verdict: str | None, low: float | None, iia: float) -> Rank:
    """Returns the standing of a hypothesis that was measured."""
    return _RANKS.get(verdict or "", 0), -1.0 if low is None else low, iia


@dataclass(slots=True)
class BestSite:
    """The best of some hypotheses. Undecided ones may get another verdict, others keep theirs.

    Args:
        settled: the best of those that have a final verdict.
        undecided: the others, by their ids.
    """

    settled: Rank | None = None
    undecided: dict[str, Rank] = field(default_factory=dict)

    def take(self, hypothesis: str, verdict: str, found: Rank | None) -> None:
        """Takes a verdict. `found`: None where it is of no measurement, such as a failure."""
        self.undecided.pop(hypothesis, None)
        if found is None:
            return
        if verdict == "undecided":
            self.undecided[hypothesis] = found
        elif self.settled is None or found > self.settled:
            self.settled = found

    @property
    def mean(self) -> float | None:
        """The mean of the best; None without any."""
        found = [*self.undecided.values(), *([] if self.settled is None else [self.settled])]
        return max(found)[2] if found else None
