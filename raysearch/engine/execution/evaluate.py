"""Outputs of many (intervention, pair) items, in batches if the model allows it; failures are
reported for each intervention.

Outputs of several tokens are decoded greedily: the row of each token is the previous row with the
last output token appended to its base and the same patches, so that an intervention stays in force
and any executor can run the row.

Invariants: a failing intervention affects no other; outputs do not depend on what else was asked,
since the executor is batch-invariant or near-ties are decided by the canonical computation; every
intervention ends with an output for each row, or with an error.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.executors import Executor, PlainExecutor
from raysearch.engine.execution.memory import RowLimit, run_in_halves
from raysearch.engine.execution.predict import (
    Prediction,
    checked_prediction,
    near_ties,
    predict,
    with_scores,
)
from raysearch.engine.networks.network import tokens_of
from raysearch.engine.patching.rows import Row

Decider = Callable[[Sequence[Row]], list[Prediction]]


@dataclass(frozen=True, slots=True)
class RowRequest:
    """One row to run. `intervention`: its id; `block`: index of its block in the task; `pair`: its
    index."""

    intervention: str
    block: int
    pair: int
    row: Row


@dataclass(frozen=True, slots=True)
class Fault:
    """The reason that an intervention has no outputs, and the index in the task of the block in
    which it failed."""

    block: int
    error: Exception


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Predictions, one for each token, of every item whose intervention did not fail; faults by
    intervention id."""

    predictions: dict[RowRequest, tuple[Prediction, ...]]
    faults: dict[str, Fault]


@dataclass(frozen=True, slots=True)
class _Token:
    """The results for one token."""

    predictions: dict[RowRequest, Prediction]
    faults: dict[str, Fault]


class Evaluator:
    """Runs items by `executor` and near-ties (best two logits closer than `near_tie`) again by
    `oracle`; halves batches that do not fit into memory."""

    def __init__(
        self,
        executor: Executor,
        oracle: PlainExecutor,
        cache: ActivationCache,
        limit: RowLimit,
        near_tie: float,
    ) -> None:
        self._executor = executor
        self._oracle = oracle
        self.cache = cache
        self.limit = limit
        self.near_tie = near_tie

    def measure(self, items: Sequence[RowRequest], tokens: int = 1) -> Evaluation:
        """Returns the outputs of each item, of `tokens` tokens, or the fault of its intervention.
        Rows that items share are run once."""
        current = {item: item for item in items}
        so_far: dict[RowRequest, tuple[Prediction, ...]] = dict.fromkeys(items, ())
        faults: dict[str, Fault] = {}
        for token in range(tokens):
            if token:
                current = {
                    item: replace(now, row=now.row.after(so_far[item][-1].id))
                    for item, now in current.items()
                }
            outcome = self._next(list(current.values()))
            faults |= outcome.faults
            current = {
                item: now for item, now in current.items() if item.intervention not in faults
            }
            so_far = {
                item: (*so_far[item], outcome.predictions[now]) for item, now in current.items()
            }
        return Evaluation(so_far, faults)

    def _next(self, items: Sequence[RowRequest]) -> _Token:
        """Computes the next token of each item."""
        outcome = _Token({}, {})
        sharing: dict[Row, list[RowRequest]] = {}
        for item in items:
            sharing.setdefault(item.row, []).append(item)
        free = [row for row in sharing if self._executor.is_free(row)]
        self._run(free, self.unchanged, sharing, outcome)
        for batch in self._executor.batches(
            [row for row in sharing if not self._executor.is_free(row)]
        ):
            self._run(batch, self._predict, sharing, outcome)
        valid = {
            item: d
            for item, d in outcome.predictions.items()
            if item.intervention not in outcome.faults
        }
        return _Token(valid, outcome.faults)

    def _run(
        self,
        batch: Sequence[Row],
        how: Decider,
        sharing: Mapping[Row, Sequence[RowRequest]],
        outcome: _Token,
    ) -> None:
        """Adds the results of `batch`; if the batch raises as a whole, runs it intervention by
        intervention."""
        owners = {
            row: [i for i in sharing[row] if i.intervention not in outcome.faults] for row in batch
        }
        owners = {row: items for row, items in owners.items() if items}
        if not owners:
            return
        try:
            predictions = [d for part in run_in_halves(list(owners), how, self.limit) for d in part]
        except Exception as error:  # noqa: BLE001  reported for its intervention, sparing others
            names = dict.fromkeys(items[0].intervention for items in owners.values())
            if len(names) == 1:
                first = next(iter(owners.values()))[0]
                outcome.faults[first.intervention] = Fault(first.block, error)
        else:
            for items, prediction in zip(owners.values(), predictions, strict=True):
                _add(items, prediction, outcome)
            return
        for name in names:  # rows of failing interventions stay for those that share them
            self._run(
                [row for row, items in owners.items() if items[0].intervention == name],
                how,
                sharing,
                outcome,
            )

    def canonical(self, rows: Sequence[Row]) -> list[Prediction]:
        """Returns the canonical predictions of near-ties."""
        return [replace(d, was_near_tie=True) for d in self._predict_by(self._oracle, rows)]

    def unchanged(self, rows: Sequence[Row]) -> list[Prediction]:
        """Predicts rows that equal their base's run up to rounding; near-ties are decided by the
        canonical computation."""
        predictions = self.cache.predictions([row.unpatched for row in rows])
        canonical = self._oracle.canonical
        was_near_tie = [
            at
            for at, d in enumerate(predictions)
            if d.was_near_tie and not canonical.changes_nothing(rows[at])
        ]
        return self._decide_near_ties(rows, predictions, was_near_tie)

    @torch.inference_mode()
    def _predict(self, rows: Sequence[Row]) -> list[Prediction]:
        predictions = self._predict_by(self._executor, rows)
        if self._executor is self._oracle:
            return predictions
        return self._decide_near_ties(rows, predictions, near_ties(predictions, self.near_tie))

    @torch.inference_mode()
    def _decide_near_ties(
        self, rows: Sequence[Row], predictions: list[Prediction], which: Sequence[int]
    ) -> list[Prediction]:
        """Returns `predictions` with those of the rows `which` replaced by the canonical
        computation's."""
        if not which:
            return predictions
        canonical = self._predict_by(self._oracle, [rows[at] for at in which])
        found = {at: replace(d, was_near_tie=True) for at, d in zip(which, canonical, strict=True)}
        return [found.get(at, d) for at, d in enumerate(predictions)]

    def _predict_by(self, executor: Executor, rows: Sequence[Row]) -> list[Prediction]:
        meter = self.cache.meter
        with meter.phase(executor.name):  # predicting waits for the device, so that its time counts
            logits = executor.logits(rows, choices_only=not self.cache.scoring.names)
            predictions = predict(logits, [row.among for row in rows])
            predictions = with_scores(
                predictions, logits, self.cache.scoring, [row.base for row in rows]
            )
        meter.ran(sum(tokens_of(row.base) for row in rows))
        return predictions


def _add(items: Sequence[RowRequest], prediction: Prediction, outcome: _Token) -> None:
    for item in items:
        try:
            outcome.predictions[item] = checked_prediction(
                prediction, f"intervention {item.intervention} on pair {item.pair}"
            )
        except ArithmeticError as error:
            outcome.faults.setdefault(item.intervention, Fault(item.block, error))
