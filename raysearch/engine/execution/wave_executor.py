"""Runs waves of swaps: on the cached runs of their bases, from the first patch on.

The hot path of a search is `evaluate_swaps`, then this, `wave`, `replay` and `wave_cache`.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.cached_runs import CachedRun, Indices, RunTable
from raysearch.engine.execution.executors import NextToken
from raysearch.engine.execution.replay import Replay
from raysearch.engine.execution.wave import Group, Wave, Waves, entry_of
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.network import LanguageModel
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.rows import Row
from raysearch.engine.patching.swaps import Swaps


class WaveExecutor:
    """Runs waves of rows that start at one token on the cached run of their base. Needs a cache
    with keys and values.

    `shares_prefix`: rows share the keys and values of their base where the model allows it.
    `replay`: one that was made before; to make one tries the model.
    """

    def __init__(
        self,
        network: LanguageModel,
        hook_points: Components,
        cache: ActivationCache,
        shares_prefix: bool = True,
        replay: Replay | None = None,
    ) -> None:
        assert cache.keys, "waves travel on the keys and values of the bases' runs"
        self.shares_prefix = shares_prefix
        self._hook_points, self._cache = hook_points, cache
        self._replay = replay or Replay(network, hook_points, shares_prefix)
        self._waves = Waves(hook_points)
        self._deepest: dict[Row, list[Point]] = {}  # of the sources of waves to come

    def want(self, components: Collection[str]) -> None:
        """Makes runs keep the components, and those that rows patched there start with."""
        found = {name: self._hook_points.of(name).values() for name in components}
        entries = {entry_of(at) for of in found.values() for at in of if at.layer is not None}
        self._cache.wanted.components({*found, *(entry.point.component for entry in entries)})

    def swap_waves(self, swaps: Swaps) -> Iterator[Indices]:
        """Yields the indices of swaps, in the waves in which they are to be run.

        Rows whose runs fit into the cache together are run one wave after the other, and a source
        to the deepest point that any of them reads, so that no run is computed twice for them.
        """
        self._cache.wanted.points(self._waves.points(swaps))
        for read in swaps.reads():
            self._cache.wanted.spans.grow(*read)
        entries, lengths, starts = self._waves.entries(swaps), swaps.lengths(), swaps.starts()
        for rows in parts_of_runs(swaps.all_runs(), self._cache.room):
            self._deepest = swaps.take(rows).sources()
            keys = (swaps.place[rows], entries[rows], lengths[rows], starts[rows])
            order = rows[np.lexsort(keys)]
            shapes = np.column_stack((starts[order], lengths[order]))
            firsts = np.flatnonzero(np.diff(shapes, axis=0).any(1)) + 1
            for of_shape in np.split(order, firsts):
                first = 0
                while first < len(of_shape):
                    most = self._cache.most_rows(int((lengths - starts)[of_shape[0]]))
                    yield of_shape[first : first + most]
                    first += most

    def swap_logits(
        self, swaps: Swaps, choices: Int[Tensor, "row choice"] | None
    ) -> Float[Tensor, "row vocab"]:
        """Computes the logits (float32) at the answer of a wave, or of a part of one."""
        return self._replay.run(self._wave(swaps), choices)[0]

    def begin_swaps(
        self, swaps: Swaps, choices: Int[Tensor, "row choice"] | None
    ) -> tuple[Float[Tensor, "row vocab"], NextToken]:
        """Computes the logits as `swap_logits` does; returns what computes them after one more
        token."""
        logits, rows = self._replay.run(self._wave(swaps), choices, keep=True)
        return logits, partial(self._replay.go_on, rows)

    def written_logits(
        self, swaps: Swaps, written: Sequence[tuple[int, int, Tensor]]
    ) -> Float[Tensor, "row vocab"]:
        """Computes the logits (float32) at the answer of a wave of rows with one patch each and
        without sources; rows start..stop-1 get the vectors of each (start, stop, vectors)."""
        used, base = swaps.distinct_bases()
        bases, every = [swaps.runs[at] for at in used], self._cache.table(swaps.runs)
        table = _table(bases, self._cache.runs(bases)) if every is None else every.take(used)
        groups = [
            (Group(start, stop, 0, patch), vectors.view(stop - start, patch.tokens, -1))
            for start, stop, vectors in written
            for patch in swaps.places[swaps.place[start]]
        ]
        return self._replay.run(self._waves.of(swaps, table, base, groups))[0]

    def _wave(self, swaps: Swaps) -> Wave:
        used, base = swaps.distinct_bases()
        bases = [swaps.runs[at] for at in used]
        sources = {run: [*at, *self._deepest.get(run, ())] for run, at in swaps.sources().items()}
        runs = self._cache.runs(bases, sources)
        read = self._waves.read(swaps, lambda at: _table([swaps.runs[i] for i in at], runs))
        return self._waves.of(swaps, _table(bases, runs), base, read)


def _table(rows: Sequence[Row], runs: Mapping[Row, CachedRun]) -> RunTable:
    return RunTable.of([runs[row] for row in rows])


def parts_of_runs(runs: Indices, room: int) -> Iterator[Indices]:
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
