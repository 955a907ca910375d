"""The outcomes of a run's pairs, as characters in a text, for the viewer."""

from collections.abc import Sequence

from raysearch.core.answers import matchers_of
from raysearch.core.events import Encoded, Ids
from raysearch.report import pair_outcomes
from raysearch.report.pair_outcomes import AFTER, KEPT, LOST, MATCH, MISS, is_ablation
from raysearch.report.rows import Row
from raysearch.search.pair_blocks import expected_answers
from raysearch.viewer.observed import Seen

__all__ = ["AFTER", "KEPT", "LOST", "MATCH", "MISS", "PairOutcomes", "is_ablation"]


class PairOutcomes:
    """The outcomes of a run's pairs.

    Args:
        encoded: the pairs as the model sees them.
        outputs: the different outputs that were observed.
        unfiltered: whether keep pairs count as evidence too.
    """

    def __init__(
        self, encoded: Sequence[Encoded], outputs: Sequence[Ids], unfiltered: bool
    ) -> None:
        matchers = matchers_of(encoded)
        pairs = {
            e.index: expected_answers(e, "test", matcher=matchers[e.added], added=e.added)
            for e in encoded
        }
        self._of = pair_outcomes.PairOutcomes(pairs, outputs, unfiltered)

    def of(self, row: Row, seen: Seen, split: str) -> str:
        """Returns a character for each pair that was seen. `row`: of `results`."""
        return "".join(self._of.of(row, split, seen.pairs, seen.said, seen.parts).tolist())
