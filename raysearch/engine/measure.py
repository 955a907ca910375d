"""The outputs of many (intervention, pair), batched where that has proved itself; failures told one by one.

Invariants: an intervention that fails takes nobody with it; near-ties are decided by the oracle, so that in float32 no
output depends on what else was asked; every intervention ends with an output for each of its rows, or with an error.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from raysearch.engine.captures import Captures
from raysearch.engine.decide import Decision, checked, decide, near_ties
from raysearch.engine.forward import batches
from raysearch.engine.interchange import Row, interchange, oracle


@dataclass(frozen=True, slots=True)
class Item:
    """One row that is asked for. `intervention`: its id; `block`: its block's place in the task; `pair`: its index."""

    intervention: str
    block: int
    pair: int
    row: Row


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an intervention has no outputs, and the block (its place in the task) in which that showed."""

    block: int
    error: Exception


@dataclass(frozen=True, slots=True)
class Outcome:
    """Decisions of every item whose intervention did not fail; faults by the id of the intervention."""

    decisions: dict[Item, Decision]
    faults: dict[str, Fault]


class Measurer:
    """Runs items on one model: `rows` at once, or (with `plain`) one by one by the oracle. `tolerance` in logits."""

    def __init__(self, model: PreTrainedModel, captures: Captures, rows: int, tolerance: float, plain: bool) -> None:
        self._model = model
        self._captures = captures
        self._rows = 1 if plain else rows
        self._tolerance = tolerance
        self._plain = plain

    def measure(self, items: Sequence[Item]) -> Outcome:
        """What comes of each item, or of its intervention."""
        outcome = Outcome({}, {})
        for batch in batches(items, lambda item: len(item.row.base), self._rows):
            self._run(batch, outcome)
        kept = {item: d for item, d in outcome.decisions.items() if item.intervention not in outcome.faults}
        return Outcome(kept, outcome.faults)

    def _run(self, batch: Iterable[Item], outcome: Outcome) -> None:
        """Adds what comes of `batch`; where it raises as a whole, runs its interventions each for itself."""
        batch = [item for item in batch if item.intervention not in outcome.faults]
        if not batch:
            return
        try:
            decisions = self._decide_plainly(batch) if self._plain else self._decide(batch)
        except Exception as error:  # noqa: BLE001  whatever it is, it must be told of its intervention and spare the others
            names = dict.fromkeys(item.intervention for item in batch)
            if len(names) == 1:
                outcome.faults[batch[0].intervention] = Fault(batch[0].block, error)
                return
        else:
            self._add(batch, decisions, outcome)
            return
        # Out of the except clause: the error no longer holds the failed batch's tensors when memory is short.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        for name in names:
            self._run([item for item in batch if item.intervention == name], outcome)

    def _add(self, batch: Sequence[Item], decisions: Sequence[Decision], outcome: Outcome) -> None:
        for item, decision in zip(batch, decisions, strict=True):
            try:
                outcome.decisions[item] = checked(decision, f"intervention {item.intervention} on pair {item.pair}")
            except ArithmeticError as error:
                outcome.faults.setdefault(item.intervention, Fault(item.block, error))

    def _decide(self, batch: Sequence[Item]) -> list[Decision]:
        residuals = self._captures.residuals([item.row.source for item in batch])
        decisions = decide(interchange(self._model, [item.row for item in batch], residuals))
        for at in near_ties(decisions, self._tolerance):
            decisions[at] = decide(oracle(self._model, batch[at].row)[None])[0]
        return decisions

    def _decide_plainly(self, batch: Sequence[Item]) -> list[Decision]:
        return [decide(oracle(self._model, item.row)[None])[0] for item in batch]
