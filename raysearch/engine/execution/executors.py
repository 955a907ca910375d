"""Executors: three ways to run patched rows, fastest first: replay (`replay_executor`), batched,
plain. All give the same outputs; `selfcheck` finds out which ones are right for a model.

Invariants: plain is the canonical computation, which decides what the others cannot.
"""

from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from typing import Literal, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.canonical_runner import CACHE_BYTES, CanonicalRunner
from raysearch.engine.networks.components import Components, hook_at
from raysearch.engine.networks.hooks import owned_hooks
from raysearch.engine.networks.network import Network
from raysearch.engine.patching.edits import Replacements, edits_of, sources_of
from raysearch.engine.patching.rows import Indices, Row
from raysearch.engine.patching.swaps import Swaps

ExecutorName = Literal["replay", "batched", "plain"]


class Executor(Protocol):
    """A way to run rows."""

    name: ExecutorName

    def batches(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        """Yields the rows in the batches in which they are to be run."""
        ...

    def batch_key(self, row: Row) -> Hashable:
        """Returns a key that is equal for rows that may share a batch."""
        ...

    def entry(self, row: Row) -> int:
        """Returns a number that grows with the depth from which the row is run; rows of a batch are
        best in this order."""
        ...

    def logits(
        self,
        rows: Sequence[Row],
        replacements: Replacements | None = None,
        choices_only: bool = False,
    ) -> Float[Tensor, "row answer"]:
        """Computes the logits (float32) at the answer of rows of one batch key, such as `batches`
        yields, or a part of them.

        `replacements`: for each row, which has one patch, the activation to write instead of its
        source's. Gradients flow unless the caller disables them. `choices_only`: logits of ids that
        a row does not choose from may be -inf.
        """
        ...

    def is_free(self, row: Row) -> bool:
        """Returns whether the row is certain to equal the base's run without intervention, so that
        nothing needs to run."""
        ...

    def want(self, components: Collection[str]) -> None:
        """Makes the runs of inputs, whatever they are run for, keep what patches of `components`
        read."""
        ...


NextToken = Callable[
    [Int[Tensor, "row"], Int[Tensor, "row choice"] | None], Float[Tensor, "row answer"]
]
"""Computes the logits of rows after one more token of each; choices as in `swap_logits`."""


class SwapExecutor(Protocol):
    """A way to run rows that are arrays."""

    name: ExecutorName

    def swap_waves(self, swaps: Swaps) -> Iterator[Indices]:
        """Yields the indices of swaps, in the waves in which they are to be run."""
        ...

    def swap_logits(
        self, swaps: Swaps, choices: Int[Tensor, "row choice"] | None
    ) -> Float[Tensor, "row answer"]:
        """Computes the logits (float32) at the answer of a wave, or of a part of one. `choices`:
        ids outside of which logits may be -inf. What they read is wanted since `swap_waves`."""
        ...

    def begin_swaps(
        self, swaps: Swaps, choices: Int[Tensor, "row choice"] | None
    ) -> tuple[Float[Tensor, "row answer"], NextToken]:
        """Computes the logits as `swap_logits` does; returns what computes them after one more
        token."""
        ...


class PlainExecutor:
    """Runs rows one by one, by the canonical computation, which caches at most `max_bytes` of
    source activations."""

    name: ExecutorName = "plain"

    def __init__(
        self, network: Network, hook_points: Components, max_bytes: int = CACHE_BYTES
    ) -> None:
        self._network = network
        self.canonical = CanonicalRunner(network, hook_points, max_bytes)

    def batches(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        return ([row] for row in rows)

    def batch_key(self, row: Row) -> Hashable:
        return self._network.batch_key(row.base)

    def entry(self, row: Row) -> int:
        return 0

    def logits(
        self,
        rows: Sequence[Row],
        replacements: Replacements | None = None,
        choices_only: bool = False,
    ) -> Float[Tensor, "row answer"]:
        owns = [None] * len(rows) if replacements is None else [[own] for own in replacements]
        return torch.stack(
            [self.canonical.logits(row, own) for row, own in zip(rows, owns, strict=True)]
        )

    def is_free(self, row: Row) -> bool:
        return False

    def want(self, components: Collection[str]) -> None:
        pass  # it caches what it reads


class BatchedExecutor:
    """Runs whole forward passes of rows of one batch key."""

    name: ExecutorName = "batched"

    def __init__(self, network: Network, hook_points: Components, cache: ActivationCache) -> None:
        self._network = network
        self._hook_points = hook_points
        self._cache = cache

    def batches(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        self._cache.wanted.rows(rows)
        by_batch_key: dict[object, list[Row]] = {}
        for row in rows:
            by_batch_key.setdefault(self._network.batch_key(row.base), []).append(row)
        for group in by_batch_key.values():
            yield from self._cache.parts_that_fit(group)

    def batch_key(self, row: Row) -> Hashable:
        return self._network.batch_key(row.base)

    def entry(self, row: Row) -> int:
        return 0

    def logits(
        self,
        rows: Sequence[Row],
        replacements: Replacements | None = None,
        choices_only: bool = False,
    ) -> Float[Tensor, "row answer"]:
        network, given = self._network, rows[0].base
        sources = sources_of(rows) if replacements is None else {}
        if replacements is None:
            self._cache.wanted.rows(rows)
        runs = self._cache.runs(sources)
        edits = edits_of(
            rows,
            self._hook_points,
            lambda s: self._cache.at(runs[s.run], s.point),
            replacements,
        )
        with owned_hooks([hook_at(network, hook_point, edit, given) for hook_point, edit in edits]):
            return network.batch([row.base for row in rows])

    def is_free(self, row: Row) -> bool:
        return False

    def want(self, components: Collection[str]) -> None:
        self._cache.wanted.components(components)
