"""Says of each pair on which an intervention was measured whether it is of a hypothesis's verdict,
and whether it is a match.

Invariants: the definitions are those of the search (`search/trial.py`); pairs of another part of
the test pairs, and pairs that were measured after the verdict, count for other hypotheses alone.
"""

import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from raysearch.core.control_kinds import control_kind
from raysearch.core.controls import labels_of
from raysearch.core.events import Ids
from raysearch.report.row_sequence import TableRow
from raysearch.search.pair_blocks import ExpectedAnswers

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Chars = npt.NDArray[np.str_]
MATCH, MISS, KEPT, LOST, AFTER = "+-kx."
"""One character a pair: a match; no match; a keep pair that is a match (its answer stayed, of an
ablation changed), or none; a pair that is none of the verdict's."""


class VerdictPairs:
    """Tells which observed pairs are those of a verdict, and which of them are matches.

    Args:
        pairs: expected answers by pair index.
        outputs: the different outputs that were observed.
        unfiltered: whether keep pairs count as evidence too.
    """

    def __init__(
        self, pairs: Mapping[int, ExpectedAnswers], outputs: Sequence[Ids], unfiltered: bool
    ) -> None:
        self._pairs, self._unfiltered = pairs, unfiltered
        self._numbers: dict[Ids, int] = {}
        matchers = {id(e.matcher): e.matcher for e in pairs.values()}  # one for each continuation
        places = {key: i for i, key in enumerate(matchers)}
        self._matcher = self._column(lambda e: places[id(e.matcher)])
        read = [[self._number(m.read(output)) for output in outputs] for m in matchers.values()]
        self._answers = np.array(read, dtype=np.int64).reshape(len(matchers), len(outputs))
        self._base = self._column(lambda e: self._number(e.base))
        self._wanted: dict[tuple[str, bool], Ints] = {}

    def of(
        self,
        row: TableRow,
        split: str,
        pairs: Ints,
        said: Ints,
        parts: Ints,
        wanted: str | None = None,
    ) -> Chars:
        """Returns a character for each pair on which a hypothesis's intervention was measured.

        Args:
            row: of `results`.
            pairs: their indices, in the order of their blocks.
            said: number of the output on each, among `outputs`.
            parts: the part of the test pairs that each is of.
            wanted: the variable whose counterfactual is a match; None for the row's own.
        """
        arbitrary, base = control_kind(row["control"]).arbitrary_labels, self._base[pairs]
        output = self._answers[self._matcher[pairs], said]
        own = self._expected(row["variable"], arbitrary)[pairs]
        asked = self._expected(wanted or row["variable"], arbitrary)[pairs]
        match = output != base if is_ablation(row) else output == asked
        counts = (own != base) | self._unfiltered
        found = np.where(counts, np.where(match, MATCH, MISS), np.where(match, KEPT, LOST))
        if split == "test":
            found[~_of_verdict(row, counts, parts)] = AFTER
        return found

    def _expected(self, variable: str, arbitrary: bool) -> Ints:
        key = variable, arbitrary
        if key not in self._wanted:
            labels = labels_of(self._pairs.values(), variable) if arbitrary else {}

            def label(e: ExpectedAnswers) -> int:
                own = e.counterfactual.get(variable, ())
                return self._number(labels.get(own, own))

            self._wanted[key] = self._column(label)
        return self._wanted[key]

    def _number(self, ids: Ids) -> int:
        return self._numbers.setdefault(ids, len(self._numbers))

    def _column(self, of: Callable[[ExpectedAnswers], int]) -> Ints:
        """Returns a number for each pair, by the pair's index."""
        column = np.full(max(self._pairs, default=-1) + 1, -1, dtype=np.int64)
        for index, pair in self._pairs.items():
            column[index] = of(pair)
        return column


def _of_verdict(row: TableRow, counts: Bools, parts: Ints) -> Bools:
    """Returns which pairs the verdict is of; without one, those of the last part so far. Runs of
    before do not say their parts: all is of part 0.
    """
    if row.get("verdict", "") is None:
        last: Bools = np.equal(parts, parts.max(initial=0))
        return last
    own: Bools = np.equal(parts, row.get("part") or 0)
    return own if row["n"] is None else own & np.less_equal(np.cumsum(counts & own), row["n"])


def is_ablation(row: TableRow) -> bool:
    """Says whether a row's hypothesis is of necessity."""
    units = row.get("units", "")
    return '"operation"' in units and any(u.get("operation") for u in json.loads(units))
