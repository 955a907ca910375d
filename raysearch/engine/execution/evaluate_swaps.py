"""Outputs of swaps, in waves, without Python for each row.

Invariants: outputs are those of the same rows in `evaluate`; a row without a sound output has none
here, and is for the caller to run by itself, which says why.
"""

import logging

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from raysearch.engine.execution.answer_scores import read_logits
from raysearch.engine.execution.cached_runs import Indices, on_device
from raysearch.engine.execution.evaluate import Evaluator
from raysearch.engine.execution.executors import NextToken, SwapExecutor
from raysearch.engine.execution.memory import run_in_halves
from raysearch.engine.execution.outputs import SwapOutputs
from raysearch.engine.execution.predict import (
    Predictions,
    choices_of,
    gap_error,
    mask_other_choices,
    predict,
    predictions_of,
)
from raysearch.engine.networks.network import tokens_of
from raysearch.engine.patching.swaps import Swaps, distinct
from raysearch.visible_text import one_line

log = logging.getLogger(__name__)

TRIED = 64
"""Least rows to compare by both ways of further tokens: the first waves may have one row each."""


class SwapEvaluator:
    """Runs swaps by `executor`, and what a wave cannot decide by `evaluator`, whose cache, limit
    and near-ties it has; halves waves that do not fit into memory. `tolerance` (logits): how far
    two ways of computing a row may be apart in a gap."""

    def __init__(self, evaluator: Evaluator, executor: SwapExecutor, tolerance: float) -> None:
        self._evaluator, self._executor, self._tolerance = evaluator, executor, tolerance
        self._cache = evaluator.cache
        self._goes_on, self._untried = True, TRIED
        self._has_warned = False

    def measure(self, every: Swaps, tokens: int = 1) -> SwapOutputs:
        """Returns the outputs, of so many tokens. Equal rows are run once."""
        first, which = every.distinct()
        swaps = every.take(first)
        outputs = SwapOutputs.empty(len(swaps), tokens, self._cache.scoring.values)
        unchanged = swaps.unchanged()
        moving = np.flatnonzero(~unchanged)
        self._copy(swaps, np.flatnonzero(unchanged), outputs)
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
            try:
                found = self._cache.predictions([now.row(row).unpatched for row in first])
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
            parts = run_in_halves(
                range(len(wave)),
                lambda part: self._predict(swaps, wave[list(part)], outputs),
                self._evaluator.limit,
            )
            list(parts)  # runs them
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
        choices = None if table is None else table[on_device(rows.choice, table.device)]
        asked, go_on = None if scoring.names else choices, None
        with self._cache.meter.phase(self._executor.name):
            if tokens > 1 and self._goes_on:
                logits, go_on = self._executor.begin_swaps(rows, asked)
            else:
                logits = self._executor.swap_logits(rows, asked)
            outputs.failed[at], outputs.near[at] = False, False
            self._decide(rows, 0, logits, choices, at, outputs)
            if scoring.names:
                used, base = rows.distinct_bases()
                ids = scoring.ids(swaps.runs[number].base for number in used)[base]
                outputs.put_answer_logits(at, read_logits(logits, ids))
        for token in range(1, tokens):
            rows = rows.after(ids := outputs.ids[at, token - 1])
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
        """Writes the outputs of a token of a wave, of near-ties by the canonical computation."""
        found = _found(rows, logits, choices)
        ids, unsure = found.on_host(self._evaluator.near_tie)
        self._cache.meter.ran(len(rows) * tokens_of(rows.runs[rows.base[0]].base))
        outputs.ids[at, token] = ids
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

        That is another shape of run than a row by itself has. So the first rows are run anew to
        compare, and all are once the two differ by more than rounding; else those that this might
        decide otherwise."""
        if go_on is None or not self._goes_on:
            return self._executor.swap_logits(rows, choices)
        logits = go_on(torch.from_numpy(ids), choices)
        if self._untried > 0:
            anew = self._executor.swap_logits(rows, choices)
            among = [rows.choices[choice] for choice in rows.choice]
            error = max(map(gap_error, predict(logits, among), predict(anew, among)))
            self._goes_on, self._untried = error <= self._tolerance / 2, self._untried - len(rows)
            if not self._goes_on:
                log.warning("further tokens differ by up to %.2g in a gap: rows run anew", error)
            return anew
        near = self._evaluator.near_tie + self._tolerance
        _, unsure = _found(rows, logits, choices).on_host(near)
        if len(unsure):
            at = on_device(unsure, logits.device)
            some = None if choices is None else choices[at]
            logits[at] = self._executor.swap_logits(rows.take(unsure), some)
        return logits


def _found(
    rows: Swaps, logits: Float[Tensor, "row vocab"], choices: Int[Tensor, "row choice"] | None
) -> Predictions:
    if choices is None:
        logits = mask_other_choices(logits, rows.choices, rows.choice)
    return predictions_of(logits, choices)
