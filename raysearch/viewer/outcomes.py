"""Says of each pair that a hypothesis saw whether it counts, and whether it is a match.

Invariants: the definitions are those of the search (`search/trial.py`); pairs that were measured
after the verdict, for another hypothesis of the same intervention, do not count.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from raysearch.core.answers import answer_matcher
from raysearch.core.controls import arbitrary_labels
from raysearch.core.events import Encoded, Ids
from raysearch.viewer.observed import Ints, Seen

Row = Mapping[str, Any]
MATCH, MISS, KEPT, LOST, AFTER = "+-kx."
"""One character a pair: a match; no match; a keep pair whose answer stayed, or did not; a pair of
after the verdict."""


class PairOutcomes:
    """The expected answers of a run's pairs, as numbers.

    Args:
        encoded: the pairs as the model sees them.
        outputs: the different outputs that were observed.
        unfiltered: whether keep pairs count as evidence too.
    """

    def __init__(
        self, encoded: Sequence[Encoded], outputs: Sequence[Ids], unfiltered: bool
    ) -> None:
        matcher = answer_matcher(encoded)
        self._numbers: dict[Ids, int] = {}
        self._unfiltered = unfiltered
        self._means = np.array([self._number(matcher.read(o)) for o in outputs], dtype=np.int64)
        self._base = self._column(encoded, lambda e: e.answers.get("base", ()))
        self._wanted, self._labels = {}, {}
        for v in encoded[0].counterfactual if encoded else ():
            self._wanted[v] = self._column(encoded, lambda e, v=v: e.counterfactual.get(v, ()))
            labels = arbitrary_labels(e.counterfactual[v] for e in encoded if v in e.counterfactual)
            self._labels[v] = {self._number(a): self._number(b) for a, b in labels.items()}

    def of(self, row: Row, seen: Seen, split: str) -> str:
        """Returns a character for each pair that was seen. `row`: of `results`."""
        base, output = self._base[seen.pairs], self._means[seen.said]
        wanted = self._expected(row)[seen.pairs]
        match = output != base if is_ablation(row) else output == wanted
        counts = (wanted != base) | self._unfiltered
        found = np.where(counts, np.where(match, MATCH, MISS), np.where(match, KEPT, LOST))
        if split == "test" and row["verdict"] is not None and row["n"] is not None:
            found[np.cumsum(counts) > row["n"]] = AFTER
        return "".join(found.tolist())

    def _expected(self, row: Row) -> Ints:
        wanted = self._wanted[row["variable"]]
        if row["control"] != "arbitrary_labels":
            return wanted
        labels = self._labels[row["variable"]]
        return np.array([labels.get(int(number), number) for number in wanted], dtype=np.int64)

    def _number(self, ids: Ids) -> int:
        return self._numbers.setdefault(ids, len(self._numbers))

    def _column(self, encoded: Sequence[Encoded], of: Any) -> Ints:
        """Returns the number of an answer for each pair, by the pair's index."""
        column = np.full(max((e.index for e in encoded), default=-1) + 1, -1, dtype=np.int64)
        for e in encoded:
            column[e.index] = self._number(of(e))
        return column


def is_ablation(row: Row) -> bool:
    """Whether a row's hypothesis is of necessity."""
    return '"operation"' in row["units"] and any(
        u.get("operation") for u in json.loads(row["units"])
    )
