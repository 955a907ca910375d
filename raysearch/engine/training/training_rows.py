"""Rows of many fits, run together: their losses and gradients by the written vectors, or the
model's outputs.

The written vectors are constants here: the featurizer that made them is evaluated, and its gradient
taken, once for each step by the caller. So a row is a plain interchange of a given vector, whatever
the featurizer, and gradients flow only above it.

Invariants: rows of one batch key share batches of at most `limit.rows`; a batch that does not fit
into memory is halved, and no partial result counts; a fit whose rows fail affects no other;
near-ties of outputs are decided by the oracle.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from raysearch.core.choices import Loss
from raysearch.core.events import Ids
from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.executors import Executor
from raysearch.engine.execution.losses import losses_of
from raysearch.engine.execution.memory import RowLimit, halving
from raysearch.engine.execution.predict import near_ties, predict
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.network import ModelInput, Network, batches, tokens_of
from raysearch.engine.patching.oracle import oracle
from raysearch.engine.patching.rows import Row
from raysearch.engine.training.unit import PairRow

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, eq=False)
class TrainingRow:
    """A row of fit `owner` with `vector` to be written. `wanted`, `own`: as in `losses_of`."""

    owner: int
    pair_row: PairRow
    vector: Float[Tensor, "width"]
    tokens: int
    wanted: int
    own: int


@dataclass(frozen=True, slots=True)
class RowLoss:
    """The loss of a row, and the id with the highest logit."""

    loss: float
    id: int


class RowRunner:
    """Runs rows by `executor`."""

    def __init__(
        self,
        network: Network,
        hook_points: Components,
        executor: Executor,
        cache: ActivationCache,
        loss: Loss,
        tolerance: float,
        limit: RowLimit,
    ) -> None:
        self._network = network
        self._hook_points = hook_points
        self._executor = executor
        self._cache = cache
        self._loss: Loss = loss
        self._tolerance = tolerance
        self._limit = limit
        self._unpatched: dict[tuple[Row, int, int], RowLoss] = {}
        own = (
            t.dtype
            for t in chain(network.module.parameters(), network.module.buffers())
            if t.is_floating_point()
        )
        self._dtype = next(own, torch.float32)

    def gradients(
        self, rows: Sequence[TrainingRow]
    ) -> tuple[list[Float[Tensor, ""]], list[Float[Tensor, "_width"]], dict[int, Exception]]:
        """Returns the loss of each row, its gradient by the written vector, and the fits that
        failed (their rows hold no result)."""
        losses: list[Tensor] = [torch.zeros(())] * len(rows)
        gradients = [row.vector for row in rows]
        faults: dict[int, Exception] = {}
        for part, (of_rows, by_rows) in self._in_batches(rows, self._gradients, faults):
            for at, loss, gradient in zip(part, of_rows.unbind(), by_rows, strict=True):
                losses[at], gradients[at] = loss, gradient
        return losses, gradients, faults

    def outcomes(self, rows: Sequence[TrainingRow]) -> tuple[list[RowLoss], dict[int, Exception]]:
        """Returns loss and output of each row, and the fits that failed (their rows hold no
        result)."""
        found = [RowLoss(0.0, 0)] * len(rows)
        faults: dict[int, Exception] = {}
        for part, outcomes in self._in_batches(rows, self._outcomes, faults):
            for at, outcome in zip(part, outcomes, strict=True):
                found[at] = outcome
        return found, faults

    def prepare_unpatched(self, wanted: Iterable[tuple[Row, int, int]]) -> None:
        """Runs bases without intervention, for `unpatched`; each entry is (unpatched row, wanted,
        own)."""
        missing = [key for key in dict.fromkeys(wanted) if key not in self._unpatched]
        by_row: dict[Row, list[tuple[int, int]]] = {}
        for row, *ids in missing:
            by_row.setdefault(row, []).append((ids[0], ids[1]))
        for batch in batches(
            list(by_row), lambda row: self._network.batch_key(row.base), self._limit.rows
        ):
            for part in halving(
                batch, lambda rows: list(zip(rows, self._lines(rows), strict=True)), self._limit
            ):
                for row, line in part:
                    answers = by_row[row]
                    lines, among = line.expand(len(answers), -1), [row.among] * len(answers)
                    outcomes = self._row_losses(lines, among, *zip(*answers, strict=True))
                    self._unpatched.update(
                        {(row, *ids): o for ids, o in zip(answers, outcomes, strict=True)}
                    )

    def unpatched(self, row: Row, wanted: int, own: int) -> RowLoss:
        """Loss and argmax of an unpatched row; `prepare_unpatched` must have run it before."""
        return self._unpatched[row, wanted, own]

    @torch.inference_mode()
    def _lines(self, rows: Sequence[Row]) -> Float[Tensor, "row answer"]:
        self._count(row.base for row in rows)
        return self._network.batch([row.base for row in rows])

    def _gradients(
        self, rows: Sequence[TrainingRow]
    ) -> tuple[Float[Tensor, "row"], tuple[Float[Tensor, "_width"], ...]]:
        with torch.enable_grad():
            replacements = [self._replacement(row).requires_grad_() for row in rows]
            logits = self._executor.logits([row.pair_row.row for row in rows], replacements)
            losses = losses_of(self._loss, logits, *self._answers(rows, logits.device))
            gradients = torch.autograd.grad(losses.sum(), replacements)
        self._count(row.pair_row.row.base for row in rows)
        return losses.detach(), tuple(gradient.flatten().float() for gradient in gradients)

    @torch.inference_mode()
    def _outcomes(self, rows: Sequence[TrainingRow]) -> list[RowLoss]:
        logits = self._executor.logits(
            [row.pair_row.row for row in rows], [self._replacement(row) for row in rows]
        )
        self._count(row.pair_row.row.base for row in rows)
        among = [row.pair_row.row.among for row in rows]
        outcomes = self._row_losses(
            logits, among, [row.wanted for row in rows], [row.own for row in rows]
        )
        if self._executor.name != "plain":
            for at in near_ties(predict(logits, among), self._tolerance):
                line = oracle(
                    self._network,
                    self._hook_points,
                    rows[at].pair_row.row,
                    [self._replacement(rows[at])],
                )
                (outcomes[at],) = self._row_losses(
                    line[None], among[at : at + 1], [rows[at].wanted], [rows[at].own]
                )
        return outcomes

    def _row_losses(
        self,
        logits: Float[Tensor, "row answer"],
        among: Sequence[Ids],
        wanted: Sequence[int],
        own: Sequence[int],
    ) -> list[RowLoss]:
        both = [torch.tensor(list(ids), device=logits.device) for ids in (wanted, own)]
        losses = losses_of(self._loss, logits, *both)
        return [
            RowLoss(loss, d.id)
            for loss, d in zip(losses.tolist(), predict(logits, among), strict=True)
        ]

    def _replacement(self, row: TrainingRow) -> Float[Tensor, "token feature"]:
        return row.vector.to(self._dtype).view(row.tokens, -1)

    def _count(self, givens: Iterable[ModelInput]) -> None:
        self._cache.meter.ran(sum(map(tokens_of, givens)))

    def _answers(
        self, rows: Sequence[TrainingRow], device: torch.device
    ) -> tuple[Int[Tensor, "row"], Int[Tensor, "row"]]:
        both = torch.tensor([(row.wanted, row.own) for row in rows], device=device)
        return both[:, 0], both[:, 1]

    def _in_batches(
        self,
        rows: Sequence[TrainingRow],
        do: Callable[[Sequence[TrainingRow]], Result],
        faults: dict[int, Exception],
    ) -> Iterator[tuple[list[int], Result]]:
        """Yields the indices of rows that are run together, with their results; adds failures to
        `faults`."""
        groups: dict[object, list[int]] = {}
        for at, row in enumerate(rows):
            groups.setdefault(row.pair_row.batch_key, []).append(at)
        for group in groups.values():
            group.sort(key=lambda at: rows[at].pair_row.entry_layer)
            start = 0
            for fitting in self._cache.parts_that_fit(
                [rows[at].pair_row.row for at in group], self._limit.rows
            ):
                part = group[start : start + len(fitting)]
                start += len(fitting)
                yield from self._run_part(
                    [at for at in part if rows[at].owner not in faults], rows, do, faults
                )

    def _run_part(
        self,
        part: Sequence[int],
        rows: Sequence[TrainingRow],
        do: Callable[[Sequence[TrainingRow]], Result],
        faults: dict[int, Exception],
    ) -> Iterator[tuple[list[int], Result]]:
        """Runs a part; if it raises as a whole, runs it fit by fit."""
        if not part:
            return
        try:
            done = list(
                halving(part, lambda some: (list(some), do([rows[at] for at in some])), self._limit)
            )
        except Exception as error:  # noqa: BLE001  reported for its fit, sparing the others
            owners = list(dict.fromkeys(rows[at].owner for at in part))
            if len(owners) == 1:
                faults[owners[0]] = error
                return
        else:
            yield from done
            return
        for owner in owners:
            yield from self._run_part(
                [at for at in part if rows[at].owner == owner], rows, do, faults
            )
