"""Writes the outcomes of a run's pairs (`report/verdict_pairs.py`) as text, for the viewer."""

from collections.abc import Sequence

from raysearch.core.answers import matchers_of
from raysearch.core.events import Encoded, Ids
from raysearch.report import verdict_pairs
from raysearch.report.row_sequence import TableRow
from raysearch.report.verdict_pairs import MATCH, MISS
from raysearch.search.pair_blocks import expected_answers
from raysearch.viewer.observations import SplitObservations

__all__ = ["MATCH", "MISS", "PairOutcomes"]


class PairOutcomes:
    """Writes the outcomes of a run's pairs as text, one character each.

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
        self._of = verdict_pairs.VerdictPairs(pairs, outputs, unfiltered)

    def of(self, row: TableRow, seen: SplitObservations, split: str) -> str:
        """Returns a character for each pair that was seen. `row`: of `results`."""
        return "".join(self._of.of(row, split, seen.pairs, seen.said, seen.parts).tolist())
