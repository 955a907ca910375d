"""Runs the rows of many fits: their losses and gradients by the written vectors, or the model's
outputs.

The written vectors are constants here: the featurizers that made them are evaluated, and their
gradients taken, once for each step by the caller. So a row is a plain interchange of a given
vector, whatever the featurizer, and gradients flow only above it.

Invariants: rows of one batch key share batches of at most `limit.rows`; a batch that does not fit
into memory is halved, and no partial result counts; a fit whose rows fail affects no other;
near-ties of outputs are decided by the oracle; gradients wait for no device, but where rows of a
new kind are checked (`gradient_check`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from raysearch.core.option_names import Loss
from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.executors import Executor
from raysearch.engine.execution.losses import losses_of
from raysearch.engine.execution.memory import RowLimit, run_in_halves
from raysearch.engine.execution.predict import near_ties, predict
from raysearch.engine.execution.prepared_rows import WrittenRows, prepare
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.network import Network, tokens_of
from raysearch.engine.patching.oracle import oracle
from raysearch.engine.patching.rows import Indices, Row
from raysearch.engine.training.gradient_check import Compared, GradientCheck, UntriedRows
from raysearch.engine.training.step_rows import StepRows

VectorsByWidth = Mapping[int, Float[Tensor, "_vector _width"]]
"""The vectors of a step, by their width."""
Gradients = tuple[Float[Tensor, "slot"], VectorsByWidth, dict[int, Exception]]
"""Losses, gradients and faults, as `RowRunner.gradients` returns them."""


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """Loss, and id with the highest logit, of each slot; 0 where no row is run."""

    losses: Float[NDArray[np.floating], "*slot"]
    ids: Int[NDArray[np.int64], "*slot"]

    def part(self, slots: slice) -> "Outcomes":
        return Outcomes(self.losses[slots], self.ids[slots])


class RowRunner:
    """Runs some of `rows` by `executor`, at most `limit.rows` at once. `tolerance` (logits):
    outputs with a smaller gap are decided by the oracle. `check`: of the gradients."""

    def __init__(
        self,
        network: Network,
        hook_points: Components,
        executor: Executor,
        cache: ActivationCache,
        loss: Loss,
        tolerance: float,
        limit: RowLimit,
        rows: Sequence[Row],
        check: GradientCheck,
    ) -> None:
        self._network = network
        self._hook_points = hook_points
        self._is_plain = executor.name == "plain"
        self._meter = cache.meter
        self._loss: Loss = loss
        self._tolerance = tolerance
        self._limit = limit
        self.rows = tuple(rows)
        self._prepared = prepare(network, hook_points, executor, cache, rows)
        self.order = self._prepared.order
        self._tokens = np.array([tokens_of(row.base) for row in rows])
        self._dtype = dtype_of(network)
        self._check = check
        self._untried = UntriedRows(check, self.rows, self.order)

    def gradients(self, step: StepRows, vectors: VectorsByWidth) -> Gradients:
        """Returns the loss of each slot; for each slot of a width the gradient by the written
        vector, 0 without a row; and the fits that failed (their rows hold no result).

        Rows of a kind that was not tried yet are checked first: if that fails, they are run as the
        oracle does.
        """
        found = self._gradients(step, vectors)
        if self._untried:
            with self._meter.phase("check"):
                self._try(step, vectors, found)
            if self._check.is_plain:
                return self._gradients(step, vectors)
        return found

    def _gradients(self, step: StepRows, vectors: VectorsByWidth) -> Gradients:
        """Returns the gradients, by the oracle if others were found wrong."""
        plain = self._check.is_plain
        losses = step.losses.clone()
        gradients = {
            width: made.new_zeros((step.sizes[width], width)) for width, made in vectors.items()
        }

        def run(part: Part) -> None:
            of_rows, places, by_leaf = self._backward(step, vectors, part, plain)
            losses.index_copy_(0, _taken(step.slots, part), of_rows.to(losses))
            own_slots = _taken(step.own_slots, part)
            for (start, stop, width), gradient in zip(places, by_leaf, strict=True):
                gradients[width].index_copy_(0, own_slots[start:stop], gradient)
            if plain:
                self._meter.failed(len(part))

        return losses, gradients, self._run(step, run, RowLimit(1) if plain else self._limit)

    def _backward(
        self, step: StepRows, vectors: VectorsByWidth, part: "Part", plain: bool
    ) -> tuple[Float[Tensor, "part"], list["_Written"], tuple[Tensor, ...]]:
        """Returns the losses of a part, where its vectors are written, and the gradients by them.
        `plain`: of one row, by the oracle."""
        with torch.enable_grad():
            written, places = self._written(step, vectors, part)
            leaves = [leaf.requires_grad_() for _, _, leaf in written.vectors]
            logits_of = self._by_oracle if plain else self._prepared.logits
            losses = self._losses(step, part, logits_of(self._in_dtype(written)))
            return losses.detach(), places, torch.autograd.grad(losses.sum(), leaves)

    def _try(self, step: StepRows, vectors: VectorsByWidth, found: Gradients) -> None:
        """Compares gradients that were found in a step with those of the oracle, on a few rows of
        each kind that is to be tried."""
        for kind, places in self._untried.due(step):
            compared: list[Compared] = []
            for at in places:
                try:
                    compared.append(self._compared(step, vectors, at, found))
                except Exception as error:  # noqa: BLE001  the row's own, which its fit reports
                    if step.owners[at] not in found[2]:
                        self._check.leave(kind, error)
                    break
            else:
                self._check.settle(kind, compared)
            if self._check.is_plain:
                break
        self._untried.forget()

    def _compared(
        self, step: StepRows, vectors: VectorsByWidth, at: int, found: Gradients
    ) -> Compared:
        """Compares the gradient of one row of a step with that of the oracle."""
        part, width = range(at, at + 1), int(step.widths[at])
        _, _, (wanted,) = self._backward(step, vectors, part, plain=True)
        self._meter.ran(int(self._tokens[step.here[at]]))
        vector = vectors[width][step.vectors[at]]
        error = found[2].get(int(step.owners[at]))
        off = found[1][width][step.own_slots[at]] - wanted[0]
        norms = torch.stack((off.norm(), wanted.norm())) * vector.norm()
        return Compared(float(norms[0]), float(norms[1]), error)

    @torch.inference_mode()
    def outcomes(
        self, step: StepRows, vectors: VectorsByWidth
    ) -> tuple[Outcomes, dict[int, Exception]]:
        """Returns loss and output of each slot, and the fits that failed (their rows hold no
        result)."""
        found = Outcomes(
            step.losses.double().cpu().numpy(), np.zeros(len(step.losses), dtype=np.int64)
        )

        def run(part: Part) -> None:
            written, _ = self._written(step, vectors, part)
            logits = self._prepared.logits(self._in_dtype(written))
            some = [self.rows[at] for at in written.here]
            predictions = predict(logits, [row.among for row in some])
            losses = self._losses(step, part, logits).tolist()
            ids = [prediction.id for prediction in predictions]
            near = [] if self._is_plain else near_ties(predictions, self._tolerance)
            for at in near:
                losses[at], ids[at] = self._canonical(step, vectors, part[at])
            slots = _taken(step.slots, part).tolist()
            found.losses[slots], found.ids[slots] = losses, ids

        return found, self._run(step, run, self._limit)

    def _canonical(self, step: StepRows, vectors: VectorsByWidth, at: int) -> tuple[float, int]:
        """Computes loss and output of one row by the oracle."""
        written, _ = self._written(step, vectors, range(at, at + 1))
        logits = self._by_oracle(self._in_dtype(written))
        loss = self._losses(step, range(at, at + 1), logits).item()
        return loss, predict(logits, [self.rows[step.here[at]].among])[0].id

    def _by_oracle(self, written: WrittenRows) -> Float[Tensor, "1 answer"]:
        """Computes the logits of one row by the oracle."""
        (at,), ((_, _, vector),) = written.here, written.vectors
        own = vector.view(len(self.rows[at].patches[0].tokens), -1)
        return oracle(self._network, self._hook_points, self.rows[at], [own])[None]

    def _losses(
        self, step: StepRows, part: "Part", logits: Float[Tensor, "part answer"]
    ) -> Float[Tensor, "part"]:
        ids = (_taken(of_all, part).to(logits.device) for of_all in (step.wanted, step.own))
        return losses_of(self._loss, logits, *ids)

    def _written(
        self, step: StepRows, vectors: VectorsByWidth, part: "Part"
    ) -> tuple[WrittenRows, list["_Written"]]:
        """Returns the rows of a part with copies of their vectors, and (start, stop, width) of
        those that are patched at one place."""
        ranks, at = _chosen(step.ranks, part), _taken(step.vectors, part)
        ends = [0, *(np.flatnonzero(np.diff(ranks)) + 1).tolist(), len(part)]
        widths = _chosen(step.widths, part)
        places = [(start, stop, int(widths[start])) for start, stop in pairwise(ends)]
        written = [
            (start, stop, vectors[width].index_select(0, at[start:stop]))
            for start, stop, width in places
        ]
        return WrittenRows(_chosen(step.here, part), _taken(step.at, part), written), places

    def _in_dtype(self, written: WrittenRows) -> WrittenRows:
        vectors = [(start, stop, v.to(self._dtype)) for start, stop, v in written.vectors]
        return WrittenRows(written.here, written.at, vectors)

    def _run(
        self, step: StepRows, run: Callable[["Part"], None], limit: RowLimit
    ) -> dict[int, Exception]:
        """Runs all rows of a step, batch by batch; returns the fits that failed."""
        faults: dict[int, Exception] = {}
        batches = self.order.batches[step.ranks]
        ends = [0, *(np.flatnonzero(np.diff(batches)) + 1).tolist(), len(batches)]
        for start, stop in pairwise(ends):
            for fitting in self._prepared.parts(step.here[start:stop], limit.rows):
                part: Part = range(start + fitting.start, start + fitting.stop)
                if faults:
                    part = [at for at in part if step.owners[at] not in faults]
                self._run_part(step, part, run, limit, faults)
        return faults

    def _run_part(
        self,
        step: StepRows,
        part: "Part",
        run: Callable[["Part"], None],
        limit: RowLimit,
        faults: dict[int, Exception],
    ) -> None:
        """Runs a part; if it raises as a whole, runs it fit by fit."""
        if not len(part):
            return
        try:
            for _ in run_in_halves(part, run, limit):
                pass
        except Exception as error:  # noqa: BLE001  reported for its fit, sparing the others
            owners = list(dict.fromkeys(step.owners[at] for at in part))
            if len(owners) == 1:
                faults[int(owners[0])] = error
                return
        else:
            self._meter.ran(int(self._tokens[_chosen(step.here, part)].sum()))
            return
        for owner in owners:
            own = [at for at in part if step.owners[at] == owner]
            self._run_part(step, own, run, limit, faults)


Part = Sequence[int]
"""Rows of a step by their place in it: a range, or a list where others among them failed."""
_Written = tuple[int, int, int]
"""First row of a part that is patched at one place, the row after the last, width."""


def dtype_of(network: Network) -> torch.dtype:
    """Returns the dtype of a network's own numbers."""
    numbers = chain(network.module.parameters(), network.module.buffers())
    return next((t.dtype for t in numbers if t.is_floating_point()), torch.float32)


def _taken(numbers: Int[Tensor, "row"], part: Part) -> Int[Tensor, "part"]:
    if isinstance(part, range):
        return numbers[part.start : part.stop]
    return numbers[torch.tensor(part, device=numbers.device)]


def _chosen(numbers: Indices, part: Part) -> Indices:
    return numbers[part.start : part.stop] if isinstance(part, range) else numbers[list(part)]
