"""Finds which answer an output stands for when answers have several tokens, or aliases.

An output that begins with an answer, or with an alias of one, counts as that answer; if it begins
with several, as the longest. So an answer that is shorter than the decoded output is compared on
its own tokens, and " 12" is not taken for " 1" if both are answers of the run.

Invariants: a function of the encoded pairs alone; without aliases or answers of several tokens an
output stands for itself.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from raysearch.core.events import Encoded, Ids
from raysearch.errors import PairsError


@dataclass(frozen=True, slots=True)
class AnswerMatcher:
    """A table from possible outputs to answers; empty if every output stands for itself.

    Args:
        answer_of: answer by possible output.
        lengths: lengths of the possible outputs, longest first.
    """

    answer_of: Mapping[Ids, Ids] = field(default_factory=dict)
    lengths: tuple[int, ...] = ()

    def read(self, output: Ids) -> Ids:
        """Returns the answer that `output` stands for, or `output` itself if it begins with
        none.
        """
        for length in self.lengths:
            if (meant := self.answer_of.get(output[:length])) is not None:
                return meant
        return output


EXACT_MATCH = AnswerMatcher()


def answer_matcher(pairs: Iterable[Encoded]) -> AnswerMatcher:
    """Returns the matcher for the outputs of a run on `pairs`.

    Raises:
        PairsError: an alias is another answer too, by the compared tokens.
    """
    answer_of: dict[Ids, Ids] = {}
    for pair in pairs:
        answers = (*pair.answers.values(), *pair.counterfactual.values())
        for output, answer in (*((a, a) for a in answers), *pair.aliases):
            if answer_of.setdefault(output, answer) != answer:
                raise PairsError(
                    f"pair {pair.index}: an alias (answer.aliases) is another answer too, by the "
                    f"tokens that are compared ({list(output)}); "
                    "leave it out, or compare more of it (answer.compare: sequence)"
                )
    if all(output == answer and len(output) == 1 for output, answer in answer_of.items()):
        return EXACT_MATCH
    return AnswerMatcher(
        answer_of, tuple(sorted({len(output) for output in answer_of}, reverse=True))
    )


def matchers_of(pairs: Sequence[Encoded]) -> dict[int, AnswerMatcher]:
    """Returns the matcher for each continuation's pairs, by number (0: the first pairs): of all
    pairs up to it.

    Raises:
        PairsError: as `answer_matcher`.
    """
    return {
        last: answer_matcher(pair for pair in pairs if pair.added <= last)
        for last in sorted({pair.added for pair in pairs})
    }
