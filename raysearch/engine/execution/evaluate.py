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
from raysearch.engine.execution.executors import Executor, PlainExecutor
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

    decisions: dict[RowRequest, tuple[Prediction, ...]]
    faults: dict[str, Fault]


@dataclass(frozen=True, slots=True)
class _Token:
    """An outcome of one token."""

    decisions: dict[RowRequest, Prediction]
    faults: dict[str, Fault]


class Evaluator:
    """Runs items by `path`, near-ties (best two logits closer than `tolerance`) again by `oracle`;
    in halves what memory does not hold."""

    def __init__(
        self,
        path: Executor,
        oracle: PlainExecutor,
        captures: ActivationCache,
        limit: RowLimit,
        tolerance: float,
    ) -> None:
        self._path = path
        self._oracle = oracle
        self._captures = captures
        self._limit = limit
        self._tolerance = tolerance

    def measure(self, items: Sequence[RowRequest], tokens: int = 1) -> Evaluation:
        """What comes of each item, or of its intervention: so many `tokens`. Rows that items share
        are run once."""
        going = {item: item for item in items}
        said: dict[RowRequest, tuple[Prediction, ...]] = dict.fromkeys(items, ())
        faults: dict[str, Fault] = {}
        for token in range(tokens):
            if token:
                going = {
                    item: replace(now, row=now.row.after(said[item][-1].id))
                    for item, now in going.items()
                }
            outcome = self._next(list(going.values()))
            faults |= outcome.faults
            going = {item: now for item, now in going.items() if item.intervention not in faults}
            said = {item: (*said[item], outcome.decisions[now]) for item, now in going.items()}
        return Evaluation(said, faults)

    def _next(self, items: Sequence[RowRequest]) -> _Token:
        """The next token of each."""
        outcome = _Token({}, {})
        sharing: dict[Row, list[RowRequest]] = {}
        for item in items:
            sharing.setdefault(item.row, []).append(item)
        free = [row for row in sharing if self._path.is_free(row)]
        self._run(free, self._left_alone, sharing, outcome)
        for batch in self._path.batches([row for row in sharing if not self._path.is_free(row)]):
            self._run(batch, self._decide, sharing, outcome)
        kept = {
            item: d
            for item, d in outcome.decisions.items()
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
            decisions = [d for part in halving(list(owners), how, self._limit) for d in part]
        except Exception as error:  # noqa: BLE001  whatever it is, it must be told of its intervention and spare the others
            names = dict.fromkeys(items[0].intervention for items in owners.values())
            if len(names) == 1:
                first = next(iter(owners.values()))[0]
                outcome.faults[first.intervention] = Fault(first.block, error)
        else:
            for items, decision in zip(owners.values(), decisions, strict=True):
                _add(items, decision, outcome)
            return
        for name in names:  # if it is one, those that share its rows are left
            self._run(
                [row for row, items in owners.items() if items[0].intervention == name],
                how,
                sharing,
                outcome,
            )

    def _left_alone(self, rows: Sequence[Row]) -> list[Prediction]:
        """Rows that are sure to be their base's run, but for rounding: what that is, the canonical
        computation says of near-ties."""
        decisions = self._captures.decisions([row.alone for row in rows])
        canonical = self._oracle.canonical
        again = [
            at
            for at, d in enumerate(decisions)
            if d.again and not canonical.changes_nothing(rows[at])
        ]
        return self._again(rows, decisions, again)

    @torch.inference_mode()
    def _decide(self, rows: Sequence[Row]) -> list[Prediction]:
        decisions = self._decided(self._path, rows)
        if self._path is self._oracle:
            return decisions
        return self._again(rows, decisions, near_ties(decisions, self._tolerance))

    @torch.inference_mode()
    def _again(
        self, rows: Sequence[Row], decisions: list[Prediction], which: Sequence[int]
    ) -> list[Prediction]:
        """`decisions`, those of `which` rows as the canonical computation takes them."""
        if not which:
            return decisions
        canonical = self._decided(self._oracle, [rows[at] for at in which])
        found = {at: replace(d, again=True) for at, d in zip(which, canonical, strict=True)}
        return [found.get(at, d) for at, d in enumerate(decisions)]

    def _decided(self, path: Executor, rows: Sequence[Row]) -> list[Prediction]:
        meter = self._captures.meter
        with meter.phase(path.name):  # deciding waits for the device, so its time is in
            logits = path.logits(rows)
            decisions = predict(logits, [row.among for row in rows])
            decisions = with_scores(
                decisions, logits, self._captures.scoring, [row.base for row in rows]
            )
        meter.ran(sum(tokens_of(row.base) for row in rows))
        return decisions


def _add(items: Sequence[RowRequest], decision: Prediction, outcome: _Token) -> None:
    for item in items:
        try:
            outcome.decisions[item] = checked(
                decision, f"intervention {item.intervention} on pair {item.pair}"
            )
        except ArithmeticError as error:
            outcome.faults.setdefault(item.intervention, Fault(item.block, error))
