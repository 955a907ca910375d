"""Outputs of rows, as events hold them."""

from collections.abc import Sequence
from dataclasses import dataclass

from raysearch.core.events import Ids
from raysearch.engine.execution.answer_scores import AnswerLogits
from raysearch.engine.execution.predict import Prediction


@dataclass(frozen=True, slots=True)
class Outputs:
    """The ids of each row; whether one of them was too close to call in a batch; what scores read
    at the first of them."""

    ids: Sequence[Ids]
    near: Sequence[bool]
    answer_logits: Sequence[AnswerLogits | None]

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
