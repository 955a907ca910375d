"""Rows of many fits, run together: their losses, with gradients to what is put in, or what the
model says.

What is put in is a constant here: the map that made it is evaluated, and its gradient taken, once
for a step by who asks. So a row is a plain swap of a given vector, whatever the featurizer, and
gradients run above it only.

Invariants: rows of one company travel together, at most `limit.rows`; what memory does not hold is
halved, and nothing of the half done counts; a fit whose rows fail takes nobody with it; near-ties
of outputs are decided by the oracle.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

import torch
from jaxtyping import Float
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
    """A row to be run for fit `owner`, with `vector` put in. `wanted`, `own`: as `losses_of` has
    them."""

    owner: int
    lane: PairRow
    vector: Float[Tensor, "width"]
    tokens: int
    wanted: int
    own: int


@dataclass(frozen=True, slots=True)
class RowLoss:
    """Of a row: its loss, and the id with the highest logit."""

    loss: float
    id: int


class RowRunner:
    """Runs rows by `path`."""

    def __init__(
        self,
        network: Network,
        taps: Components,
        path: Executor,
        captures: ActivationCache,
        loss: Loss,
        tolerance: float,
        limit: RowLimit,
    ) -> None:
        self._network = network
        self._taps = taps
        self._path = path
        self._captures = captures
        self._loss: Loss = loss
        self._tolerance = tolerance
        self._limit = limit
        self._alone: dict[tuple[Row, int, int], RowLoss] = {}
        own = (
            t.dtype
            for t in chain(network.module.parameters(), network.module.buffers())
            if t.is_floating_point()
        )
        self._dtype = next(own, torch.float32)

    def gradients(
        self, asks: Sequence[TrainingRow]
    ) -> tuple[list[Float[Tensor, ""]], list[Float[Tensor, "width"]], dict[int, Exception]]:
        """Of each row the loss, and its gradient by what is put in; and which fits failed (their
        rows say nothing)."""
        losses: list[Tensor] = [torch.zeros(())] * len(asks)
        gradients = [ask.vector for ask in asks]
        faults: dict[int, Exception] = {}
        for part, (of_rows, by_rows) in self._parts(asks, self._gradients, faults):
            for at, loss, gradient in zip(part, of_rows.unbind(), by_rows, strict=True):
                losses[at], gradients[at] = loss, gradient
        return losses, gradients, faults

    def outcomes(self, asks: Sequence[TrainingRow]) -> tuple[list[RowLoss], dict[int, Exception]]:
        """What comes of each row; and which fits failed (their rows say nothing)."""
        found = [RowLoss(0.0, 0)] * len(asks)
        faults: dict[int, Exception] = {}
        for part, outcomes in self._parts(asks, self._outcomes, faults):
            for at, outcome in zip(part, outcomes, strict=True):
                found[at] = outcome
        return found, faults

    def look(self, wanted: Iterable[tuple[Row, int, int]]) -> None:
        """Runs bases without intervention, for `alone`: of each (unpatched row, wanted, own)."""
        missing = [key for key in dict.fromkeys(wanted) if key not in self._alone]
        by_row: dict[Row, list[tuple[int, int]]] = {}
        for row, *ids in missing:
            by_row.setdefault(row, []).append((ids[0], ids[1]))
        for batch in batches(
            list(by_row), lambda row: self._network.company(row.base), self._limit.rows
        ):
            for part in halving(
                batch, lambda rows: list(zip(rows, self._lines(rows), strict=True)), self._limit
            ):
                for row, line in part:
                    answers = by_row[row]
                    lines, among = line.expand(len(answers), -1), [row.among] * len(answers)
                    outcomes = self._seen(lines, among, *zip(*answers, strict=True))
                    self._alone.update(
                        {(row, *ids): o for ids, o in zip(answers, outcomes, strict=True)}
                    )

    def alone(self, row: Row, wanted: int, own: int) -> RowLoss:
        """What comes of an unpatched row. It was looked at."""
        return self._alone[row, wanted, own]

    @torch.inference_mode()
    def _lines(self, rows: Sequence[Row]) -> Float[Tensor, "row answer"]:
        self._count(row.base for row in rows)
        return self._network.batch([row.base for row in rows])

    def _gradients(
        self, asks: Sequence[TrainingRow]
    ) -> tuple[Float[Tensor, "row"], tuple[Tensor, ...]]:
        with torch.enable_grad():
            lent = [self._lent(ask).requires_grad_() for ask in asks]
            logits = self._path.logits([ask.lane.row for ask in asks], lent)
            losses = losses_of(self._loss, logits, *self._answers(asks, logits.device))
            gradients = torch.autograd.grad(losses.sum(), lent)
        self._count(ask.lane.row.base for ask in asks)
        return losses.detach(), tuple(gradient.flatten().float() for gradient in gradients)

    @torch.inference_mode()
    def _outcomes(self, asks: Sequence[TrainingRow]) -> list[RowLoss]:
        logits = self._path.logits(
            [ask.lane.row for ask in asks], [self._lent(ask) for ask in asks]
        )
        self._count(ask.lane.row.base for ask in asks)
        among = [ask.lane.row.among for ask in asks]
        outcomes = self._seen(
            logits, among, [ask.wanted for ask in asks], [ask.own for ask in asks]
        )
        if self._path.name != "plain":
            for at in near_ties(predict(logits, among), self._tolerance):
                line = oracle(self._network, self._taps, asks[at].lane.row, [self._lent(asks[at])])
                (outcomes[at],) = self._seen(
                    line[None], among[at : at + 1], [asks[at].wanted], [asks[at].own]
                )
        return outcomes

    def _seen(
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

    def _lent(self, ask: TrainingRow) -> Float[Tensor, "token feature"]:
        return ask.vector.to(self._dtype).view(ask.tokens, -1)

    def _count(self, givens: Iterable[ModelInput]) -> None:
        self._captures.meter.ran(sum(map(tokens_of, givens)))

    def _answers(self, asks: Sequence[TrainingRow], device: torch.device) -> tuple[Tensor, Tensor]:
        both = torch.tensor([(ask.wanted, ask.own) for ask in asks], device=device)
        return both[:, 0], both[:, 1]

    def _parts(
        self,
        asks: Sequence[TrainingRow],
        do: Callable[[Sequence[TrainingRow]], Result],
        faults: dict[int, Exception],
    ) -> Iterator[tuple[list[int], Result]]:
        """The asks that are run together (their places), and what comes of them; adds to `faults`
        what fails."""
        companies: dict[object, list[int]] = {}
        for at, ask in enumerate(asks):
            companies.setdefault(ask.lane.company, []).append(at)
        for company in companies.values():
            company.sort(key=lambda at: asks[at].lane.joins)
            start = 0
            for rows in self._captures.fitting(
                [asks[at].lane.row for at in company], self._limit.rows
            ):
                part = company[start : start + len(rows)]
                start += len(rows)
                yield from self._done(
                    [at for at in part if asks[at].owner not in faults], asks, do, faults
                )

    def _done(
        self,
        part: Sequence[int],
        asks: Sequence[TrainingRow],
        do: Callable[[Sequence[TrainingRow]], Result],
        faults: dict[int, Exception],
    ) -> Iterator[tuple[list[int], Result]]:
        """Where it raises as a whole, fit by fit."""
        if not part:
            return
        try:
            done = list(
                halving(part, lambda some: (list(some), do([asks[at] for at in some])), self._limit)
            )
        except Exception as error:  # noqa: BLE001  as in measure.py: told of its fit, sparing the others
            owners = list(dict.fromkeys(asks[at].owner for at in part))
            if len(owners) == 1:
                faults[owners[0]] = error
                return
        else:
            yield from done
            return
        for owner in owners:
            yield from self._done([at for at in part if asks[at].owner == owner], asks, do, faults)
