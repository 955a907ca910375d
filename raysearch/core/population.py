"""The population of a verdict: the pairs that its error bound and its interval hold for.

Invariants: the bound of a verdict holds for the population that its row names, and for no larger
one; a population has the same words wherever it is shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from raysearch.core.option_names import PairKinds

PopulationName = Literal[
    "sampler",
    "not_trained_on",
    "not_tested_before",
    "these_values",
    "new_values",
    "these_pairs",
    "test_part",
]
POPULATIONS: Mapping[PopulationName, str] = {
    "sampler": "all pairs of this sampler",
    "not_trained_on": "pairs of this sampler that were not trained on",
    "not_tested_before": "pairs of this sampler that were neither trained on nor tested on by an "
    "earlier run of the store",
    "these_values": "pairs of this sampler whose values are among those held out for the test",
    "new_values": "pairs of this sampler of any two new values, each as likely as any other (those "
    "held out for the test count as draws of such values)",
    "these_pairs": "the test pairs at hand (not others like them)",
    "test_part": "pairs of the part of this sampler's domain that was set apart for the test",
}
"""Each population in words, without the screen."""


@dataclass(frozen=True, slots=True)
class Population:
    """The pairs that verdicts of a run are about.

    Args:
        values: number of held-out values, for "these_values" and "new_values"; None if the domain
            is not declared.
        fixed: whether the test pairs are all pairs of a finite population, taken without
            replacement; otherwise they are independent draws.
    """

    name: PopulationName = "sampler"
    values: int | None = None
    fixed: bool = False

    @property
    def claim(self) -> str:
        """The job's word for it: "these_pairs", or "sampler" for all that is drawn."""
        return "these_pairs" if self.name == "these_pairs" else "sampler"


SAMPLER = Population()
THESE_PAIRS = Population("these_pairs", fixed=True)


def screen_words(kinds: PairKinds = "change", solved_only: bool = True) -> str:
    """Returns the screen that every pair of a population has passed, as a relative clause; empty if
    there is none.
    """
    clauses = ["that the model solves on both sides"] if solved_only else []
    clauses += [] if kinds == "unfiltered" else ["on which the variable changes the answer"]
    return " and ".join(clauses)


def about(
    name: PopulationName,
    size: int | None = None,
    disjoint: Sequence[str] = (),
    kinds: PairKinds = "change",
    solved_only: bool = True,
) -> str:
    """Returns a population in words, with its size where it is known, and its screen.

    Args:
        size: number of pairs, or of held-out values where the population is of values; None if it
            is not finite, or not the same for all that is spoken of.
    """
    words = POPULATIONS[name]
    if disjoint:
        of = f"values of {', '.join(disjoint)}"
        words = words.replace("values are among", f"{of} are among")
        words = words.replace("new values,", f"new {of},")
    if size is None:
        return " ".join(filter(None, (words, screen_words(kinds, solved_only))))
    if name in ("these_values", "new_values"):
        words, size_words = words.replace("those held out", f"the {size} held out"), ""
    else:
        size_words = f"({size} in all)"
    return " ".join(filter(None, (words, screen_words(kinds, solved_only), size_words)))
