"""Executors: three ways to run patched rows, fastest first: replay, batched, plain. All give the
same outputs; `selfcheck` finds out which ones are right for a model.

Invariants: plain is the canonical computation, which decides what the others cannot.
"""

from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from functools import partial
from typing import Literal, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.cached_runs import Indices
from raysearch.engine.execution.canonical import CACHE_BYTES, CanonicalRunner
from raysearch.engine.execution.replay import Replay
from raysearch.engine.execution.wave import SwapWaves
from raysearch.engine.networks.components import Components, hook_at
from raysearch.engine.networks.hooks import owned_hooks
from raysearch.engine.networks.network import LanguageModel, Network
from raysearch.engine.patching.edits import Replacements, edits_of, sources_of
from raysearch.engine.patching.operations import Featurized, Interchange
from raysearch.engine.patching.rows import Patch, Row
from raysearch.engine.patching.swaps import Swaps

ExecutorName = Literal["replay", "batched", "plain"]

NextToken = Callable[
    [Int[Tensor, "row"], Int[Tensor, "row choice"] | None], Float[Tensor, "row vocab"]
]
"""Computes the logits of rows after one more token of each; choices as in `swap_logits`."""


class Executor(Protocol):
    """A way to run rows."""

    name: ExecutorName

    def batches(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        """Yields the rows in the batches in which they are to be run."""
        ...

    def batch_key(self, row: Row) -> Hashable:
        """Returns a key that is equal for rows that may share a batch."""
        ...

    def entry_layer(self, row: Row) -> int:
        """Returns the layer from which the row is run; rows of one entry layer are best run
        together."""
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

    def entry_layer(self, row: Row) -> int:
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

    def entry_layer(self, row: Row) -> int:
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
        pads = [network.pad(row.base) for row in rows]
        edits = edits_of(
            rows,
            pads,
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


class ReplayExecutor:
    """Runs waves of rows that start at one token on the cached run of their base; rows patched
    outside of the blocks are run whole. Needs a cache with keys and values.

    `shares_prefix`: rows share the keys and values of their base where the model allows it.
    """

    name: ExecutorName = "replay"

    def __init__(
        self,
        network: LanguageModel,
        hook_points: Components,
        cache: ActivationCache,
        shares_prefix: bool = True,
    ) -> None:
        assert cache.keys, "waves travel on the keys and values of the bases' runs"
        self.shares_prefix = shares_prefix
        self._network = network
        self._replay = Replay(network, hook_points, cache, shares_prefix)
        self._waves = self._replay.waves
        self._swap_waves = SwapWaves(hook_points)
        self._whole = BatchedExecutor(network, hook_points, cache)
        self._cache = cache

    def batches(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        waves: dict[object, list[Row]] = {}
        for row in rows:
            waves.setdefault(self._waves.shape_of(row), []).append(row)
        yield from self._whole.batches(waves.pop(None, []))
        for wave in waves.values():
            self._want(wave)
        for wave in waves.values():
            wave.sort(key=self._waves.entry_point_of)
            yield from self._cache.parts_that_fit(wave)

    def batch_key(self, row: Row) -> Hashable:
        shape = self._waves.shape_of(row)
        return shape if shape is not None else ("whole", self._whole.batch_key(row))

    def entry_layer(self, row: Row) -> int:
        return 0 if self._waves.shape_of(row) is None else self._waves.entry_point_of(row).layer

    def logits(
        self,
        rows: Sequence[Row],
        replacements: Replacements | None = None,
        choices_only: bool = False,
    ) -> Float[Tensor, "row answer"]:
        if self._waves.shape_of(rows[0]) is None:
            return self._whole.logits(rows, replacements, choices_only)
        self._want(rows)
        sources = sources_of(rows) if replacements is None else {}
        runs = self._cache.runs([Row(row.base) for row in rows], sources)
        return self._replay.logits(rows, runs, replacements, choices_only)

    def is_free(self, row: Row) -> bool:
        """In a causal model the activation of a token depends on the tokens up to it, so an
        interchange after equal prefixes at equal positions changes nothing."""
        return bool(row.patches) and all(
            is_identity(row, patch)
            and self._network.share_activations(row.base, patch.sources[0].run.base)
            for patch in row.patches
        )

    def swap_waves(self, swaps: Swaps) -> Iterator[Indices]:
        """Yields the indices of swaps, in the waves in which they are to be run.

        Rows whose runs fit into the cache together are run one wave after the other, so that no run
        is computed twice for them.
        """
        self._cache.wanted.points(self._swap_waves.points(swaps))
        for read in self._swap_waves.reads(swaps):
            self._cache.wanted.spans.grow(*read)
        entries, lengths = self._swap_waves.entries(swaps), swaps.lengths()
        starts = swaps.starts()
        for rows in parts_of_runs(swaps.all_runs(), self._cache.room):
            keys = (swaps.place[rows], entries[rows], lengths[rows], starts[rows])
            order = rows[np.lexsort(keys)]
            shapes = np.column_stack((starts[order], lengths[order]))
            firsts = np.flatnonzero(np.diff(shapes, axis=0).any(1)) + 1
            for of_shape in np.split(order, firsts):
                first = 0
                while first < len(of_shape):
                    most = self._cache.most_rows
                    yield of_shape[first : first + most]
                    first += most

    def swap_logits(
        self, swaps: Swaps, choices: Int[Tensor, "row choice"] | None
    ) -> Float[Tensor, "row vocab"]:
        """Computes the logits (float32) at the answer of a wave, or of a part of one. `choices`:
        ids outside of which logits may be -inf. Their components are wanted since `swap_waves`."""
        bases = [swaps.runs[base] for base in np.unique(swaps.base)]
        runs = self._cache.runs(bases, self._swap_waves.sources(swaps))
        return self._replay.run(self._swap_waves.of(swaps, runs), runs, choices)

    def begin_swaps(
        self, swaps: Swaps, choices: Int[Tensor, "row choice"] | None
    ) -> tuple[Float[Tensor, "row vocab"], NextToken]:
        """Computes the logits as `swap_logits` does; returns what computes them after one more
        token."""
        bases = [swaps.runs[base] for base in np.unique(swaps.base)]
        runs = self._cache.runs(bases, self._swap_waves.sources(swaps))
        logits, rows = self._replay.begin(self._swap_waves.of(swaps, runs), runs, choices)
        return logits, partial(self._replay.go_on, rows, runs[bases[0]])

    def want(self, components: Collection[str]) -> None:
        self._cache.wanted.components({*components, *self._replay.entry_components(components)})

    def _want(self, wave: Sequence[Row]) -> None:
        self._cache.wanted.rows(wave)
        self._cache.wanted.points(self._waves.entry_point_of(row).point for row in wave)


def parts_of_runs(runs: Int[Indices, "row run"], room: int) -> Iterator[Indices]:
    """Yields the indices of rows in parts: in order, each with at most `room` distinct runs (bases
    and sources, of equally many a row), or of one row."""
    first = 0
    while first < len(runs):
        rest = runs[first:].reshape(-1)
        _, seen_first = np.unique(rest, return_index=True)
        new = np.sort(seen_first)
        stop = len(rest) if len(new) <= room else int(new[room])
        count = max(stop // runs.shape[1], 1)
        yield np.arange(first, first + count)
        first += count


def is_identity(row: Row, patch: Patch) -> bool:
    """Returns whether the patch writes the value that is already there: an interchange with its own
    activation, from the same point after the same tokens."""
    if not isinstance(patch.kind, Interchange | Featurized) or len(patch.sources) != 1:
        return False
    (source,) = patch.sources
    if source.run.patches or source.point != patch.point or source.features != patch.features:
        return False
    ours, theirs = row.base, source.run.base
    if not isinstance(ours, tuple) or not isinstance(theirs, tuple):
        return False
    return (
        source.tokens == patch.tokens
        and ours[: max(patch.tokens) + 1] == theirs[: max(patch.tokens) + 1]
    )
