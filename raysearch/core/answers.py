"""How outputs are read: which answer an output is, where answers have several tokens, or aliases.

An output that begins with an answer (or an alias of one) is that answer; with several, the longest.
So an answer that is shorter than what was decoded is held against as many tokens as it has, and "
12" is not taken for " 1" where both are answers of the run.

Invariants: a function of the encoded pairs alone; without aliases or answers of several tokens an
output is read as it is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from raysearch.core.events import Encoded, Ids
from raysearch.errors import PairsError


@dataclass(frozen=True, slots=True)
class AnswerMatcher:
    """`means`: of what may be said, the answer that it is; `lengths`: of what may be said, the
    longest first. Empty: as it is."""

    means: Mapping[Ids, Ids] = field(default_factory=dict)
    lengths: tuple[int, ...] = ()

    def read(self, output: Ids) -> Ids:
        """The answer that `output` is, or itself where it is none."""
        for length in self.lengths:
            if (meant := self.means.get(output[:length])) is not None:
                return meant
        return output


AS_SAID = AnswerMatcher()


def answer_matcher(pairs: Iterable[Encoded]) -> AnswerMatcher:
    """How the outputs of a run on `pairs` are read. Raises: PairsError for an alias that is another
    answer too, by the compared tokens."""
    means: dict[Ids, Ids] = {}
    for pair in pairs:
        answers = (*pair.answers.values(), *pair.counterfactual.values())
        for said, answer in (*((a, a) for a in answers), *pair.aliases):
            if means.setdefault(said, answer) != answer:
                raise PairsError(
                    f"pair {pair.index}: an alias (answer.aliases) is another answer too, by the "
                    f"tokens that are compared ({list(said)}); "
                    "leave it out, or compare more of it (answer.compare: sequence)"
                )
    if all(said == answer and len(said) == 1 for said, answer in means.items()):
        return AS_SAID
    return AnswerMatcher(means, tuple(sorted({len(said) for said in means}, reverse=True)))
