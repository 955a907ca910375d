"""Outputs of rows, as events hold them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from raysearch.core.events import Ids
from raysearch.engine.execution.answer_scores import AnswerLogits
from raysearch.engine.execution.predict import Prediction
from raysearch.engine.patching.rows import Indices


@dataclass(frozen=True, slots=True)
class Outputs:
    """The ids of each row; whether one of them was too close to call in a batch; what scores read
    at the first of them."""

    ids: Sequence[Ids]
    near: Sequence[bool]
    answer_logits: Sequence[AnswerLogits | None] | Float[NDArray[np.float64], "row value"]

    @classmethod
    def of(cls, rows: Sequence[Sequence[Prediction]], near_tie: float) -> "Outputs":
        """Returns the outputs of rows, given the predictions of each; gaps below `near_tie` are too
        close."""
        return cls(
            [tuple(d.id for d in row) for row in rows],
            [any(d.was_near_tie or d.gap < near_tie for d in row) for row in rows],
            [row[0].answer_logits for row in rows],
        )

    def part(self, start: int, stop: int) -> "Outputs":
        """Returns those of the rows start..stop-1."""
        return Outputs(self.ids[start:stop], self.near[start:stop], self.answer_logits[start:stop])


@dataclass(frozen=True, slots=True)
class SwapOutputs:
    """Outputs of swaps. Rows without one are `failed`.

    `near`: whether a token of a row was too close to call. `answer_logits`: what scores read at the
    first token, NaN where nothing is read yet; of no values if the job declares none.
    """

    ids: Int[Indices, "row token"]
    near: Bool[NDArray[np.bool_], "row"]
    failed: Bool[NDArray[np.bool_], "row"]
    answer_logits: Float[NDArray[np.float64], "row value"]

    @staticmethod
    def empty(rows: int, tokens: int, values: int) -> "SwapOutputs":
        """Returns room for so many rows. `values`: those that scores read of a row."""
        ids, no = np.zeros((rows, tokens), dtype=np.int64), np.zeros(rows, dtype=bool)
        return SwapOutputs(ids, no, no.copy(), np.full((rows, values), np.nan))

    def by_column(self, columns: int) -> list[Outputs | None]:
        """Returns the outputs of every `columns`-th row, from each of the first rows on; None if
        one of them has none."""
        found: list[Outputs | None] = []
        for column in range(columns):
            rows = slice(column, None, columns)
            ids = list(map(tuple, self.ids[rows].tolist()))
            outputs = Outputs(ids, self.near[rows].tolist(), self.answer_logits[rows])
            found.append(None if self.failed[rows].any() else outputs)
        return found

    def take(self, at: Indices) -> "SwapOutputs":
        """Returns those of the rows of these indices."""
        return SwapOutputs(self.ids[at], self.near[at], self.failed[at], self.answer_logits[at])

    def put(self, at: Indices, token: int, predictions: Sequence[Prediction]) -> None:
        """Writes predictions of a token that were made row by row."""
        self.ids[at, token] = [d.id for d in predictions]
        self.near[at] |= [d.was_near_tie for d in predictions]
        self.failed[at] |= [not d.finite for d in predictions]
        if self.answer_logits.shape[1] and not token:
            for row, prediction in zip(at, predictions, strict=True):
                assert prediction.answer_logits is not None, "a row on the base of a pair is read"
                self.answer_logits[row] = prediction.answer_logits

    def put_answer_logits(self, at: Indices, read: Float[NDArray[np.float64], "row value"]) -> None:
        """Writes what scores read of rows, but for those of which it was read before."""
        new = np.isnan(self.answer_logits[at, 0])
        self.answer_logits[at[new]] = read[new]
