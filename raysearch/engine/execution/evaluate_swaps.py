"""Outputs of swaps, in waves, without Python for each row.

Invariants: outputs are those of the same rows in `evaluate`; a row without a sound output has none
here, and is for the caller to run by itself, which says why.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray

from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.answer_scores import AnswerLogits, read_logits
from raysearch.engine.execution.cached_runs import Indices
from raysearch.engine.execution.evaluate import Evaluator
from raysearch.engine.execution.executors import ReplayExecutor
from raysearch.engine.execution.memory import RowLimit, halving
from raysearch.engine.execution.outputs import Outputs
from raysearch.engine.execution.predict import Prediction, choices_of, only, predictions_of
from raysearch.engine.patching.swaps import Swaps

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SwapOutputs:
    """Outputs of swaps. Rows without one are `failed`.

    `near`: whether a row was too close to call. `answer_logits`: what scores read; empty if the job
    declares none.
    """

    ids: Int[Indices, "row"]
    near: Bool[NDArray[np.bool_], "row"]
    failed: Bool[NDArray[np.bool_], "row"]
    answer_logits: list[AnswerLogits | None]

    @staticmethod
    def empty(rows: int, scored: bool) -> "SwapOutputs":
        """Returns room for so many rows."""
        ids, no = np.zeros(rows, dtype=np.int64), np.zeros(rows, dtype=bool)
        return SwapOutputs(ids, no, np.ones(rows, dtype=bool), [None] * rows if scored else [])

    def by_column(self, columns: int) -> list[Outputs | None]:
        """Returns the outputs of every `columns`-th row, from each of the first rows on; None if
        one of them has none."""
        found: list[Outputs | None] = []
        for column in range(columns):
            rows = slice(column, None, columns)
            ids = list(zip(self.ids[rows].tolist()))
            scores = self.answer_logits[rows] or [None] * len(ids)
            outputs = Outputs(ids, self.near[rows].tolist(), scores)
            found.append(None if self.failed[rows].any() else outputs)
        return found

    def take(self, at: Indices) -> "SwapOutputs":
        """Returns those of the rows of these indices."""
        scores = [self.answer_logits[row] for row in at] if self.answer_logits else []
        return SwapOutputs(self.ids[at], self.near[at], self.failed[at], scores)

    def put(self, at: Indices, predictions: Sequence[Prediction]) -> None:
        """Writes predictions that were made row by row."""
        self.ids[at] = [d.id for d in predictions]
        self.near[at] = [d.was_near_tie for d in predictions]
        self.failed[at] = [not d.finite for d in predictions]
        if self.answer_logits:
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

    def measure(self, every: Swaps) -> SwapOutputs:
        """Returns the outputs, of one token. Equal rows are run once."""
        first, which = every.distinct()
        swaps = every.take(first)
        outputs = SwapOutputs.empty(len(swaps), bool(self._cache.scoring.names))
        unchanged = swaps.unchanged()
        self._copy(swaps, np.flatnonzero(unchanged), outputs)
        moving = np.flatnonzero(~unchanged)
        for wave in self._executor.swap_waves(swaps.take(moving)) if len(moving) else ():
            self._run(swaps, moving[wave], outputs)
        return outputs.take(which)

    def _copy(self, swaps: Swaps, at: Indices, outputs: SwapOutputs) -> None:
        """Writes the outputs of rows that equal their base's run up to rounding."""
        runs = swaps.choice[at] + len(swaps.choices) * swaps.base[at]
        _, first, which = np.unique(runs, return_index=True, return_inverse=True)
        rows = [swaps.row(row).unpatched for row in at[first]]
        try:
            found = self._cache.predictions(rows)
        except Exception as error:  # noqa: BLE001  the caller runs these rows one by one
            log.info("runs without intervention fail together: %s", error)
            return
        of_rows = [found[run] for run in which.reshape(-1)]
        near = [place for place, d in enumerate(of_rows) if d.was_near_tie]
        decided = self._evaluator.unchanged([swaps.row(at[place]) for place in near])
        for place, prediction in zip(near, decided, strict=True):
            of_rows[place] = prediction
        outputs.put(at, of_rows)

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
        rows, scoring = swaps.take(at), self._cache.scoring
        with self._cache.meter.phase(self._executor.name):
            device = self._cache.device
            table = choices_of(swaps.choices, device)
            choices = None if table is None else table[torch.from_numpy(rows.choice).to(device)]
            logits = self._executor.swap_logits(rows, None if scoring.names else choices)
            if choices is None:
                logits = only(logits, [swaps.choices[at] for at in rows.choice])
            found = predictions_of(logits, choices)
            ids, finite = found.ids.cpu().numpy(), found.finite.cpu().numpy()
            unsure = found.unsure(self._tolerance)
            bases = [swaps.runs[base].base for base in rows.base] if scoring.names else []
            scores = read_logits(logits, scoring.of_bases(bases)) if bases else []
        self._cache.meter.ran(int(rows.lengths().sum()))
        outputs.ids[at], outputs.failed[at] = ids, ~finite
        for row, score in zip(at if scores else (), scores, strict=True):
            outputs.answer_logits[row] = score
        if len(unsure):
            decided = self._evaluator.canonical([rows.row(row) for row in unsure])
            outputs.put(at[unsure], decided)
