"""The rows of many steps of many fits, as arrays that are made once for all of these steps.

A step has a *slot* for each fit, pair of its batch and token of the answer, in this order. A slot
has a row unless that answer is shorter, or the pair's outcome is the base's own run.

Invariants: rows stand in the order in which they are run; taking a step from the schedule waits for
no device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from numpy.typing import NDArray
from torch import Tensor

from raysearch.engine.execution.prepared_rows import RunOrder
from raysearch.engine.patching.rows import Indices
from raysearch.engine.training.answer_table import NONE, AnswerTable
from raysearch.engine.training.unit_vectors import by_width


@dataclass(frozen=True, slots=True, eq=False)
class FitRows:
    """The part that a fit has in a schedule. `chosen`: its pairs in each step. `unrun_losses`: of
    the outcomes that are not run, 0 elsewhere. `width`: of its vectors; `first`: the index of its
    first pair among all vectors of that width."""

    answers: AnswerTable
    unrun_losses: Float[NDArray[np.float32], "pair token"]
    chosen: Int[NDArray[np.int64], "step batch"]
    width: int
    first: int

    @property
    def batch(self) -> int:
        return int(self.chosen.shape[1])

    @property
    def slots(self) -> int:
        """The number of slots in a step."""
        return self.batch * int(self.answers.rows.shape[1])


@dataclass(frozen=True, slots=True, eq=False)
class StepRows:
    """The rows of a step. `here`, `at`: their numbers, as an array and on the device. `ranks`: as
    in `RunOrder`. `owners`: their fits. `slots`: of all; `own_slots`, `vectors`: slot and vector
    among those of their width. `wanted`, `own`: ids as in `losses_of`.

    `losses`: of each slot, 0 where a row is run. By width: the `pairs` whose vectors are made, and
    the number of slots (`sizes`).
    """

    here: Indices
    ranks: Indices
    owners: Indices
    widths: Indices
    at: Int[Tensor, "row"]
    slots: Int[Tensor, "row"]
    own_slots: Int[Tensor, "row"]
    vectors: Int[Tensor, "row"]
    wanted: Int[Tensor, "row"]
    own: Int[Tensor, "row"]
    losses: Float[Tensor, "slot"]
    pairs: dict[int, Int[Tensor, "vector"]]
    sizes: dict[int, int]


class Schedule:
    """The steps of fits, which stand in the order of their widths."""

    def __init__(self, fits: Sequence[FitRows], order: RunOrder, device: torch.device) -> None:
        rows = _by_slot(fits, lambda fit: fit.answers.rows)
        live = rows != NONE
        ranks = np.where(live, order.ranks[rows], len(order.batches))
        small = ranks.astype(np.min_scalar_type(len(order.batches)))  # sorted in linear time
        by_rank = np.argsort(small, axis=1, kind="stable")
        self._counts = live.sum(1)
        self._rows, self._ranks = (np.take_along_axis(a, by_rank, 1) for a in (rows, ranks))
        owners, widths, vectors, own_slots = _of_slots(fits)
        self._owners, self._widths = owners[by_rank], widths[by_rank]
        ids = [
            np.take_along_axis(_by_slot(fits, table), by_rank, 1)
            for table in (lambda fit: fit.answers.wanted, lambda fit: fit.answers.own)
        ]
        numbers = self._rows, by_rank, own_slots[by_rank], vectors[by_rank], *ids
        self._numbers = torch.from_numpy(np.stack(numbers)).to(device)
        losses = _by_slot(fits, lambda fit: fit.unrun_losses)
        self._losses = torch.from_numpy(losses).to(device)
        of_width = by_width((fit.width, fit) for fit in fits)
        self._sizes = {width: sum(fit.slots for fit in some) for width, some in of_width.items()}
        self._pairs = {
            width: torch.from_numpy(
                np.concatenate([fit.first + fit.chosen for fit in some], axis=1)
            ).to(device)
            for width, some in of_width.items()
        }

    def __getitem__(self, step: int) -> StepRows:
        some = slice(self._counts[step])
        at, slots, own_slots, vectors, wanted, own = self._numbers[:, step, some].unbind()
        return StepRows(
            self._rows[step, some],
            self._ranks[step, some],
            self._owners[step, some],
            self._widths[step, some],
            at,
            slots,
            own_slots,
            vectors,
            wanted,
            own,
            self._losses[step],
            {width: pairs[step] for width, pairs in self._pairs.items()},
            self._sizes,
        )


def _by_slot(
    fits: Sequence[FitRows], table: Callable[[FitRows], NDArray[Any]]
) -> Shaped[NDArray[Any], "step slot"]:
    """Returns what a table of each fit (pair, token) has for each slot of each step."""
    steps = len(fits[0].chosen)
    return np.concatenate([table(fit)[fit.chosen].reshape(steps, -1) for fit in fits], axis=1)


def _of_slots(fits: Sequence[FitRows]) -> tuple[Indices, Indices, Indices, Indices]:
    """Returns for each slot its fit, its width, its vector and itself, the last two counted from
    the first of that width."""
    owners = np.repeat(np.arange(len(fits)), [fit.slots for fit in fits])
    widths = np.array([fit.width for fit in fits])[owners]
    vectors, own_slots = np.zeros_like(owners), np.zeros_like(owners)
    for width, some in by_width((fit.width, fit) for fit in fits).items():
        tokens = np.concatenate([np.full(fit.batch, fit.answers.rows.shape[1]) for fit in some])
        vectors[widths == width] = np.repeat(np.arange(len(tokens)), tokens)
        own_slots[widths == width] = np.arange(tokens.sum())
    return owners, widths, vectors, own_slots
