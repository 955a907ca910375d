"""Outputs of swaps, in waves, without Python for each row.

Invariants: outputs are those of the same rows in `evaluate`; a row without a sound output has none
here, and is for the caller to run by itself, which says why.
"""

import logging

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.answer_scores import read_logits
from raysearch.engine.execution.cached_runs import Indices
from raysearch.engine.execution.evaluate import Evaluator
from raysearch.engine.execution.memory import RowLimit, halving
from raysearch.engine.execution.outputs import SwapOutputs
from raysearch.engine.execution.predict import (
    choices_of,
    gap_error,
    only,
    predict,
    predictions_of,
)
from raysearch.engine.execution.wave_executor import NextToken, WaveExecutor
from raysearch.engine.patching.swaps import Swaps, distinct
from raysearch.visible_text import one_line

log = logging.getLogger(__name__)

TRIED = 64
"""Most rows of the first wave whose second token is also computed anew."""


class SwapEvaluator:
    """Runs swaps by `executor`, and what a wave cannot decide by `evaluator`; halves waves that do
    not fit into memory. In logits, `near_tie`: a row with a smaller gap is a near-tie; `tolerance`:
    how far two ways of computing a row may be apart in a gap."""

    def __init__(
        self,
        evaluator: Evaluator,
        executor: WaveExecutor,
        cache: ActivationCache,
        limit: RowLimit,
        near_tie: float,
        tolerance: float,
    ) -> None:
        self._evaluator = evaluator
        self._executor = executor
        self._cache = cache
        self._limit = limit
        self._near_tie, self._tolerance = near_tie, tolerance
        self._goes_on, self._is_tried = True, False
        self._has_warned = False

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
                self._fail(at, error, outputs)
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
            self._fail(wave, error, outputs)

    def _fail(self, rows: Indices, error: Exception, outputs: SwapOutputs) -> None:
        """Leaves rows that fail together without outputs; warns the first time."""
        outputs.failed[rows] = True
        self._cache.meter.failed(len(rows))
        log.log(
            logging.INFO if self._has_warned else logging.WARNING,
            "a wave of %d rows fails (%s: %s), so its rows are run one by one, slowly; answers stay"
            " the same (further waves that fail are counted in the metric raysearch_failed_rows)",
            *(len(rows), type(error).__name__, one_line(error)),
        )
        self._has_warned = True

    @torch.inference_mode()
    def _predict(self, swaps: Swaps, at: Indices, outputs: SwapOutputs) -> None:
        rows, scoring, tokens = swaps.take(at), self._cache.scoring, outputs.ids.shape[1]
        table = choices_of(swaps.choices, self._cache.device)
        choices = None if table is None else table[torch.from_numpy(rows.choice).to(table.device)]
        asked, go_on = None if scoring.names else choices, None
        with self._cache.meter.phase("replay"):
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
            with self._cache.meter.phase("replay"):
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
        unsure = found.unsure(self._near_tie)
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
        """Computes the logits of rows that `ids` have made longer, from their own keys and values.

        That is another shape of run than a row by itself has. So rows that this might decide
        otherwise are run anew, and all rows are if the two differ by more than rounding on the
        first ones.
        """
        if go_on is None or not self._goes_on:
            return self._executor.swap_logits(rows, choices)
        logits = go_on(torch.from_numpy(ids), choices)
        sure = logits if choices is not None else only(logits, rows.choices, rows.choice)
        unsure = predictions_of(sure, choices).unsure(self._near_tie + self._tolerance)
        if not self._is_tried:
            unsure = np.union1d(unsure, np.arange(min(len(rows), TRIED)))
        if len(unsure):
            some = rows.take(unsure)
            anew = self._executor.swap_logits(
                some, None if choices is None else choices[torch.from_numpy(unsure)]
            )
            at = torch.from_numpy(unsure).to(logits.device)
            if not self._is_tried:
                among = [rows.choices[choice] for choice in some.choice]
                both = zip(predict(logits[at], among), predict(anew, among), strict=True)
                error = max(gap_error(one, other) for one, other in both)
                self._is_tried, self._goes_on = True, error <= self._tolerance / 2
                if not self._goes_on:
                    log.warning(
                        "further tokens differ by up to %.2g in a gap: rows are run anew", error
                    )
                    return self._executor.swap_logits(rows, choices)
            logits[at] = anew
        return logits
