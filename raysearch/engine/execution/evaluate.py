"""The outputs of many (intervention, pair), batched where that has proved itself; failures told one
by one.

An output of several tokens is decoded greedily, a token at a time: each token's row is the one
before with what was said behind its base, and the same patches, so that an intervention stays in
force, and any path that runs rows runs these.

Invariants: an intervention that fails takes nobody with it; near-ties are decided by the canonical
computation, so that no output depends on what else was asked; every intervention ends with an
output for each of its rows, or with an error.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.executors import Executor, PlainExecutor, cancels
from raysearch.engine.execution.memory import RowLimit, halving
from raysearch.engine.execution.predict import Prediction, checked, near_ties, predict, with_scores
from raysearch.engine.networks.network import tokens_of
from raysearch.engine.patching.rows import Row

Decider = Callable[[Sequence[Row]], list[Prediction]]


@dataclass(frozen=True, slots=True)
class RowRequest:
    """One row that is asked for. `intervention`: its id; `block`: its block's place in the task;
    `pair`: its index."""

    intervention: str
    block: int
    pair: int
    row: Row


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an intervention has no outputs, and the block (its place in the task) in which that
    showed."""

    block: int
    error: Exception


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The decisions of every item whose intervention did not fail, one for each token; faults by
    the id of the intervention."""

    predictions: dict[RowRequest, tuple[Prediction, ...]]
    faults: dict[str, Fault]


@dataclass(frozen=True, slots=True)
class _Token:
    """An outcome of one token."""

    predictions: dict[RowRequest, Prediction]
    faults: dict[str, Fault]


class Evaluator:
    """Runs items by `path`, near-ties (best two logits closer than `tolerance`) again by `oracle`;
    in halves what memory does not hold."""

    def __init__(
        self,
        executor: Executor,
        oracle: PlainExecutor,
        cache: ActivationCache,
        limit: RowLimit,
        tolerance: float,
    ) -> None:
        self._executor = executor
        self._oracle = oracle
        self._cache = cache
        self._limit = limit
        self._tolerance = tolerance

    def measure(self, items: Sequence[RowRequest], tokens: int = 1) -> Evaluation:
        """What comes of each item, or of its intervention: so many `tokens`. Rows that items share
        are run once."""
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
        """The next token of each."""
        outcome = _Token({}, {})
        sharing: dict[Row, list[RowRequest]] = {}
        for item in items:
            sharing.setdefault(item.row, []).append(item)
        free = [row for row in sharing if self._executor.is_free(row)]
        self._run(free, self._predict_unchanged, sharing, outcome)
        for batch in self._executor.batches(
            [row for row in sharing if not self._executor.is_free(row)]
        ):
            self._run(batch, self._predict, sharing, outcome)
        kept = {
            item: d
            for item, d in outcome.predictions.items()
            if item.intervention not in outcome.faults
        }
        return _Token(kept, outcome.faults)

    def _run(
        self,
        batch: Sequence[Row],
        how: Decider,
        sharing: Mapping[Row, Sequence[RowRequest]],
        outcome: _Token,
    ) -> None:
        """Adds what comes of `batch`; where it raises as a whole, runs its interventions each for
        itself."""
        owners = {
            row: [i for i in sharing[row] if i.intervention not in outcome.faults] for row in batch
        }
        owners = {row: items for row, items in owners.items() if items}
        if not owners:
            return
        try:
            predictions = [d for part in halving(list(owners), how, self._limit) for d in part]
        except Exception as error:  # noqa: BLE001  whatever it is, it must be told of its intervention and spare the others
            names = dict.fromkeys(items[0].intervention for items in owners.values())
            if len(names) == 1:
                first = next(iter(owners.values()))[0]
                outcome.faults[first.intervention] = Fault(first.block, error)
        else:
            for items, prediction in zip(owners.values(), predictions, strict=True):
                _add(items, prediction, outcome)
            return
        for name in names:  # if it is one, those that share its rows are left
            self._run(
                [row for row, items in owners.items() if items[0].intervention == name],
                how,
                sharing,
                outcome,
            )

    def _predict_unchanged(self, rows: Sequence[Row]) -> list[Prediction]:
        """Rows that are sure to be their base's run, but for rounding: what that is, the canonical
        computation says of near-ties."""
        predictions = self._cache.predictions([row.unpatched for row in rows])
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
        brittle = {at for at, row in enumerate(rows) if cancels(row)}
        return self._decide_near_ties(
            rows, predictions, sorted(brittle | set(near_ties(predictions, self._tolerance)))
        )

    @torch.inference_mode()
    def _decide_near_ties(
        self, rows: Sequence[Row], predictions: list[Prediction], which: Sequence[int]
    ) -> list[Prediction]:
        """`decisions`, those of `which` rows as the canonical computation takes them."""
        if not which:
            return predictions
        canonical = self._predict_by(self._oracle, [rows[at] for at in which])
        found = {at: replace(d, was_near_tie=True) for at, d in zip(which, canonical, strict=True)}
        return [found.get(at, d) for at, d in enumerate(predictions)]

    def _predict_by(self, executor: Executor, rows: Sequence[Row]) -> list[Prediction]:
        meter = self._cache.meter
        with meter.phase(executor.name):  # deciding waits for the device, so its time is in
            logits = executor.logits(rows)
            predictions = predict(logits, [row.among for row in rows])
            predictions = with_scores(
                predictions, logits, self._cache.scoring, [row.base for row in rows]
            )
        meter.ran(sum(tokens_of(row.base) for row in rows))
        return predictions


def _add(items: Sequence[RowRequest], prediction: Prediction, outcome: _Token) -> None:
    for item in items:
        try:
            outcome.predictions[item] = checked(
                prediction, f"intervention {item.intervention} on pair {item.pair}"
            )
        except ArithmeticError as error:
            outcome.faults.setdefault(item.intervention, Fault(item.block, error))
