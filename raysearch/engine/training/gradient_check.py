"""Checks the gradients of training against plain autograd, on the model at hand.

The self-check of executors compares outputs. Gradients may be wrong where outputs are right: a
module detaches what it is given in a batch, a backward pass of its own is wrong without a prefix.
So in the first step with rows of a new kind, a few of its gradients are compared with those of the
oracle: the row by itself, whole, by hooks. If one is off, all gradients are the oracle's from then
on.

Rows that are patched in a higher layer are no new kind: their gradients pass through nothing that
those of a lower layer do not pass through. So some rows are tried for each component, not for each
layer or fit: a row by itself takes many times as long as one of a wave. Nothing is remembered
between replicas: it is a few rows, where one fit runs thousands.

Invariants: a kind of rows is tried once in a trainer; gradients that were found wrong train
nothing.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from raysearch.core.hypothesis import layer_path
from raysearch.engine.execution.prepared_rows import RunOrder
from raysearch.engine.networks.network import ModelInput, tokens_of
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.rows import Row
from raysearch.engine.training.step_rows import StepRows
from raysearch.visible_text import one_line

log = logging.getLogger(__name__)

TRIED = 2
"""Number of rows of a kind whose gradients are compared."""
SAFETY = 2.0
"""A gradient may be off by this multiple of the square root of its dtype's rounding step, as a
share of its size: 0.0007 in float32, 0.18 in bfloat16, 0.06 in float16. On SmolLM2-135M it is by
up to 4e-6, 0.06 and 0.009 (90 rows in 15 layers), on random models of 19 families by 3e-6, 0.04 and
0.014."""
LEAST = 1e-2
"""Size (nats or logits) below which gradients are compared as if they had it: those of an answer
that is certain already are rounding alone."""


@dataclass(frozen=True, slots=True)
class RowKind:
    """A kind of row, whose gradients are computed alike: where it is patched, and whether that is
    the last token, so that one token alone is computed."""

    point: Point
    is_last: bool

    @staticmethod
    def of(row: Row) -> "RowKind":
        """Returns the kind of a row with one patch."""
        (patch,) = row.patches
        return RowKind(patch.point, min(patch.tokens) == tokens_of(row.base) - 1)

    @property
    def component_and_end(self) -> tuple[str, bool]:
        """The component, and whether the patch is at the last token: the kind without its layer."""
        return self.point.component, self.is_last

    @property
    def depth(self) -> int:
        """The layer; 0 for a component that the network has once."""
        return self.point.layer or 0

    def __str__(self) -> str:
        component, layer = self.point.component, self.point.layer
        if layer is not None and "{layer}" not in component:
            return f"{one_line(component)} of layer {layer}"
        return one_line(layer_path(component, layer))


@dataclass(frozen=True, slots=True)
class Compared:
    """The gradient of a row's loss by its vector: the executor's beside the oracle's.

    `off`, `size`: norms of their difference and of the oracle's, times that of the vector (nats or
    logits). `error`: why the executor has none.
    """

    off: float
    size: float
    error: Exception | None = None


class GradientCheck:
    """Decides whether a trainer takes its own gradients or the oracle's (`is_plain`), by those that
    were compared."""

    def __init__(self, network: str, executor: str, dtype: torch.dtype) -> None:
        self.is_plain = False
        self._network, self._executor = network, executor
        self._allowed = SAFETY * torch.finfo(dtype).eps ** 0.5
        self._lowest: dict[tuple[str, bool], int] = {}

    def is_untried(self, kind: RowKind) -> bool:
        """Returns whether gradients of this kind are still to be compared."""
        return not self.is_plain and kind.depth < self._lowest.get(kind.component_and_end, math.inf)

    def settle(self, kind: RowKind, compared: Sequence[Compared]) -> None:
        """Settles a kind by what was compared of it: takes the oracle's gradients from now on if
        one is off, with a warning. Settles nothing by rows whose own gradient is not finite."""
        compared = [one for one in compared if math.isfinite(one.size)]
        if not compared:
            return
        self._lowest[kind.component_and_end] = kind.depth
        scale = max([LEAST, *(one.size for one in compared)])
        offs = [one.off / scale for one in compared]
        error = next((one.error for one in compared if one.error is not None), None)
        if error is None and all(off <= self._allowed for off in offs):  # a NaN is not
            return
        worst = max(offs, key=lambda off: math.inf if math.isnan(off) else off)
        self.is_plain = True
        log.warning(
            "%s: gradients of training on the %s path are not those of one run at a time (%s, at "
            "%s): rows are trained one by one, each through the whole model, slowly",
            *(self._network, self._executor, _fault(worst, self._allowed, error), kind),
        )

    def leave(self, kind: RowKind, error: Exception) -> None:
        """Leaves a kind unchecked, since the oracle has no gradient there, with a warning."""
        self._lowest[kind.component_and_end] = kind.depth
        log.warning(
            "%s: gradients of training on the %s path at %s could not be compared with those of "
            "one run at a time, which fails (%s: %s); they are used as they are",
            *(self._network, self._executor, kind, type(error).__name__, one_line(error)),
        )


class UntriedRows:
    """The rows among `rows` whose kinds are still to be tried, in the order in which they run."""

    def __init__(self, check: GradientCheck, rows: Sequence[Row], order: RunOrder) -> None:
        self._check, self._rows, self._order = check, rows, order
        of_row = [RowKind.of(row) for row in rows]
        self._kinds = list(dict.fromkeys(of_row))
        number = {kind: at for at, kind in enumerate(self._kinds)}
        self._kind = np.array([number[kind] for kind in of_row])
        self._untried = set(number.values())
        self.forget()

    def __bool__(self) -> bool:
        return bool(self._untried)

    def forget(self) -> None:
        """Leaves out the kinds that have been tried."""
        self._untried = {at for at in self._untried if self._check.is_untried(self._kinds[at])}

    def due(self, step: StepRows) -> list[tuple[RowKind, list[int]]]:
        """Returns kinds to try, of each component and end the lowest in this step.

        Each comes with the places in the step of a few of its rows, of distinct bases: the first
        and the last of its largest batch, if these have.
        """
        kinds, batches = self._kind[step.here], self._order.batches[step.ranks]
        here = self._untried & set(kinds.tolist())
        lowest_last = sorted(here, key=lambda at: -self._kinds[at].depth)
        largest_first = np.argsort(-np.bincount(batches)[batches], kind="stable")
        found = []
        for number in {self._kinds[at].component_and_end: at for at in lowest_last}.values():
            own = largest_first[kinds[largest_first] == number]
            in_largest = int((batches[own] == batches[own[0]]).sum())
            ends_first = [own[0], own[in_largest - 1], *own[1:]]
            by_base: dict[ModelInput, int] = {}
            for at in map(int, ends_first):
                by_base.setdefault(self._rows[step.here[at]].base, at)
            found.append((self._kinds[number], list(by_base.values())[:TRIED]))
        return found


def _fault(worst: float, allowed: float, error: Exception | None) -> str:
    if error is not None:
        return f"{type(error).__name__}: {one_line(error)}"
    return f"off by up to {worst:.2g} of their size, allowed {allowed:.2g}"
