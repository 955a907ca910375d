"""The answers that fits train towards, as arrays, and the rows whose outputs they are.

Invariants: equal rows are kept once; a row after tokens of an answer begins with the tokens that
are wanted, so greedy decoding outputs the answer exactly if each of its tokens is the arg max.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from raysearch.core.events import Ids
from raysearch.engine.patching.rows import Row
from raysearch.engine.training.captured_unit import CapturedUnit

NONE = -1
"""The row of a token that an answer does not have, or that is not run."""

Numbers = Int[NDArray[np.int64], "pair token"]


@dataclass(frozen=True, slots=True, eq=False)
class AnswerTable:
    """The answers that a fit trains towards, by pair and token. `rows`: the number of the row whose
    output it is; the wanted id, and the base's own (as in `losses_of`)."""

    rows: Numbers
    wanted: Numbers
    own: Numbers


@dataclass(slots=True)
class RowTable:
    """The rows of many fits, each with its number."""

    rows: list[Row] = field(default_factory=list)
    _first: dict[int, int] = field(default_factory=dict)
    _begun: dict[Row, int] = field(default_factory=dict)

    def answers(self, unit: CapturedUnit, wanted: Sequence[Ids], own: Sequence[Ids]) -> AnswerTable:
        """Returns the answers of a fit of `unit`, whose pairs have these tokens."""
        tokens = max(map(len, wanted))
        rows, ids, owns = (np.full((len(wanted), tokens), NONE) for _ in range(3))
        rows[:, 0] = self._of(unit) + np.arange(len(wanted))
        for at in range(tokens):
            has = [pair for pair, answer in enumerate(wanted) if len(answer) > at]
            ids[has, at] = [wanted[pair][at] for pair in has]
            owns[has, at] = [(own[p] if at < len(own[p]) else wanted[p])[at] for p in has]
            if at:
                rows[has, at] = [self._after(int(rows[p, at - 1]), wanted[p][at - 1]) for p in has]
        return AnswerTable(rows, ids, owns)

    def _of(self, unit: CapturedUnit) -> int:
        """Returns the number of the unit's first row; the others follow it."""
        if id(unit) not in self._first:
            self._first[id(unit)] = len(self.rows)
            self.rows += unit.rows
        return self._first[id(unit)]

    def _after(self, number: int, token: int) -> int:
        row = self.rows[number].after(token)
        if row not in self._begun:
            self._begun[row] = len(self.rows)
            self.rows.append(row)
        return self._begun[row]
