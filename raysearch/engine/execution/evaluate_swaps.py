"""Outputs of swaps, in waves, without Python for each row.

Invariants: outputs are those of the same rows in `evaluate`; a row without a sound output has none
here, and is for the caller to run by itself, which says why.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.answer_scores import AnswerLogits, read_logits
from raysearch.engine.execution.cached_runs import Indices
from raysearch.engine.execution.evaluate import Evaluator
from raysearch.engine.execution.executors import NextToken, ReplayExecutor
from raysearch.engine.execution.memory import RowLimit, halving
from raysearch.engine.execution.outputs import Outputs
from raysearch.engine.execution.predict import (
    NEAR_TIE,
    Prediction,
    choices_of,
    gap_error,
    only,
    predict,
    predictions_of,
)
from raysearch.engine.patching.swaps import Swaps, distinct

log = logging.getLogger(__name__)

TRIED = 8
"""Rows of the first wave whose second token is also computed anew."""


@dataclass(frozen=True, slots=True)
class SwapOutputs:
    """Outputs of swaps. Rows without one are `failed`.

    `near`: whether a token of a row was too close to call. `answer_logits`: what scores read at the
    first token; empty if the job declares none.
    """

    ids: Int[Indices, "row token"]
    near: Bool[NDArray[np.bool_], "row"]
    failed: Bool[NDArray[np.bool_], "row"]
    answer_logits: list[AnswerLogits | None]

    @staticmethod
    def empty(rows: int, tokens: int, scored: bool) -> "SwapOutputs":
        """Returns room for so many rows."""
        ids, no = np.zeros((rows, tokens), dtype=np.int64), np.zeros(rows, dtype=bool)
        return SwapOutputs(ids, no, no.copy(), [None] * rows if scored else [])

    def by_column(self, columns: int) -> list[Outputs | None]:
        """Returns the outputs of every `columns`-th row, from each of the first rows on; None if
        one of them has none."""
        found: list[Outputs | None] = []
        for column in range(columns):
            rows = slice(column, None, columns)
            ids = list(map(tuple, self.ids[rows].tolist()))
            scores = self.answer_logits[rows] or [None] * len(ids)
            outputs = Outputs(ids, self.near[rows].tolist(), scores)
            found.append(None if self.failed[rows].any() else outputs)
        return found

    def take(self, at: Indices) -> "SwapOutputs":
        """Returns those of the rows of these indices."""
        scores = [self.answer_logits[row] for row in at] if self.answer_logits else []
        return SwapOutputs(self.ids[at], self.near[at], self.failed[at], scores)

    def put(self, at: Indices, token: int, predictions: Sequence[Prediction]) -> None:
        """Writes predictions of a token that were made row by row."""
        self.ids[at, token] = [d.id for d in predictions]
        self.near[at] |= [d.was_near_tie for d in predictions]
        self.failed[at] |= [not d.finite for d in predictions]
        if self.answer_logits and not token:
            for row, prediction in zip(at, predictions, strict=True):
                self.answer_logits[row] = prediction.answer_logits


class SwapEvaluator:
    """Runs swaps by `executor`, and what a wave cannot decide by `evaluator`; halves waves that do
    not fit into memory. `tolerance` (logits): a row with a smaller gap is a near-tie."""

    def __init__(
        self,
        evaluator: Evaluator,
        executor: ReplayExecutor,
        cache: ActivationCache,
        limit: RowLimit,
        tolerance: float,
    ) -> None:
        self._evaluator = evaluator
        self._executor = executor
        self._cache = cache
        self._limit = limit
        self._tolerance = tolerance
        self._goes_on = executor.goes_on
        self._is_tried = False

    def measure(self, every: Swaps, tokens: int = 1) -> SwapOutputs:
        """Returns the outputs, of so many tokens. Equal rows are run once."""
        first, which = every.distinct()
        swaps = every.take(first)
        outputs = SwapOutputs.empty(len(swaps), tokens, bool(self._cache.scoring.names))
        unchanged = swaps.unchanged()
        self._copy(swaps, np.flatnonzero(unchanged), outputs)
        moving = np.flatnonzero(~unchanged)
        for wave in self._executor.swap_waves(swaps.take(moving)) if len(moving) else ():
            self._run(swaps, moving[wave], outputs)
        return outputs.take(which)

    def _copy(self, swaps: Swaps, at: Indices, outputs: SwapOutputs) -> None:
        """Writes the outputs of rows that equal their base's run up to rounding."""
        now = swaps.take(at)
        for token in range(outputs.ids.shape[1] if len(at) else 0):
            if token:
                now = now.after(outputs.ids[at, token - 1])
            first, which = distinct(np.column_stack((now.base, now.choice)))
            rows = [now.row(row).unpatched for row in first]
            try:
                found = self._cache.predictions(rows)
            except Exception as error:  # noqa: BLE001  the caller runs these rows one by one
                log.info("runs without intervention fail together: %s", error)
                outputs.failed[at] = True
                return
            of_rows = [found[run] for run in which]
            near = [place for place, d in enumerate(of_rows) if d.was_near_tie]
            decided = self._evaluator.unchanged([now.row(place) for place in near])
            for place, prediction in zip(near, decided, strict=True):
                of_rows[place] = prediction
            outputs.put(at, token, of_rows)

    def _run(self, swaps: Swaps, wave: Indices, outputs: SwapOutputs) -> None:
        """Runs a wave; a failing one leaves its rows without outputs."""
        try:
            parts = halving(
                range(len(wave)),
                lambda part: self._predict(swaps, wave[list(part)], outputs),
                self._limit,
            )
            for _ in parts:
                pass
        except Exception as error:  # noqa: BLE001  as above
            log.info("a wave of %d rows fails: %s", len(wave), error)
            outputs.failed[wave] = True

    @torch.inference_mode()
    def _predict(self, swaps: Swaps, at: Indices, outputs: SwapOutputs) -> None:
        rows, scoring, tokens = swaps.take(at), self._cache.scoring, outputs.ids.shape[1]
        table = choices_of(swaps.choices, self._cache.device)
        choices = None if table is None else table[torch.from_numpy(rows.choice).to(table.device)]
        asked, go_on = None if scoring.names else choices, None
        with self._cache.meter.phase(self._executor.name):
            if tokens > 1 and self._goes_on:
                logits, go_on = self._executor.begin_swaps(rows, asked)
            else:
                logits = self._executor.swap_logits(rows, asked)
            outputs.failed[at], outputs.near[at] = False, False
            self._decide(rows, 0, logits, choices, at, outputs)
            bases = [swaps.runs[base].base for base in rows.base] if scoring.names else []
            scores = read_logits(logits, scoring.of_bases(bases)) if bases else []
        for row, score in zip(at if scores else (), scores, strict=True):
            if outputs.answer_logits[row] is None:
                outputs.answer_logits[row] = score
        for token in range(1, tokens):
            ids = outputs.ids[at, token - 1]
            rows = rows.after(ids)
            with self._cache.meter.phase(self._executor.name):
                logits = self._after(rows, ids, choices, go_on)
                self._decide(rows, token, logits, choices, at, outputs)

    def _decide(
        self,
        rows: Swaps,
        token: int,
        logits: Float[Tensor, "row vocab"],
        choices: Int[Tensor, "row choice"] | None,
        at: Indices,
        outputs: SwapOutputs,
    ) -> None:
        """Writes the outputs of a token, of near-ties by the canonical computation."""
        if choices is None:
            logits = only(logits, rows.choices, rows.choice)
        found = predictions_of(logits, choices)
        ids, finite = found.ids.cpu().numpy(), found.finite.cpu().numpy()
        unsure = found.unsure(self._tolerance)
        self._cache.meter.ran(int(rows.lengths().sum()))
        outputs.ids[at, token] = ids
        finite[unsure] = True  # decided below
        outputs.failed[at] |= ~finite
        if len(unsure):
            decided = self._evaluator.canonical([rows.row(row) for row in unsure])
            outputs.put(at[unsure], token, decided)

    def _after(
        self,
        rows: Swaps,
        ids: Indices,
        choices: Int[Tensor, "row choice"] | None,
        go_on: NextToken | None,
    ) -> Float[Tensor, "row vocab"]:
        """Computes the logits of rows that `ids` have made longer: from their own keys and values,
        if that agrees with running them anew on the first rows."""
        if go_on is not None and self._goes_on:
            logits = go_on(torch.from_numpy(ids), choices)
            if self._is_tried:
                return logits
            some = np.arange(min(len(rows), TRIED))
            anew = self._executor.swap_logits(rows.take(some), None)
            among = [rows.choices[choice] for choice in rows.choice[some]]
            both = zip(predict(logits[: len(some)], among), predict(anew, among), strict=True)
            error = max(gap_error(one, other) for one, other in both)
            self._is_tried, self._goes_on = True, error <= NEAR_TIE["float32"] / 2
            if self._goes_on:
                return logits
            log.warning("further tokens differ by up to %.2g in a gap: rows are run anew", error)
        return self._executor.swap_logits(rows, choices)
