"""The fastest executor: rows run in waves, from their first patch on, on the cached run of their
base. The hot path of a search is here, in `wave`, `replay` and `wave_cache`.
"""

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.cached_runs import CachedRun, Indices, RunTable
from raysearch.engine.execution.executors import BatchedExecutor, ExecutorName
from raysearch.engine.execution.predict import choices_of
from raysearch.engine.execution.replay import Replay
from raysearch.engine.execution.wave import Group, Wave, Waves, WaveShape, entry_of
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.network import LanguageModel
from raysearch.engine.patching.build_swaps import swaps_of
from raysearch.engine.patching.edits import Replacements
from raysearch.engine.patching.rows import Row
from raysearch.engine.patching.swaps import PatchPlace, Swaps, is_identity
from raysearch.errors import PositionError

NextToken = Callable[
    [Int[Tensor, "row"], Int[Tensor, "row choice"] | None], Float[Tensor, "row vocab"]
]
"""Computes the logits of rows after one more token of each; choices as in `swap_logits`."""


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
        self._network, self._hook_points, self._cache = network, hook_points, cache
        self._replay = Replay(network, hook_points, shares_prefix)
        self._waves = Waves(hook_points)
        self._whole = BatchedExecutor(network, hook_points, cache)

    def want(self, components: Collection[str]) -> None:
        """Makes runs keep the components, and those that rows patched there start with."""
        found = {name: self._hook_points.of(name).values() for name in components}
        entries = {entry_of(at) for of in found.values() for at in of if at.layer is not None}
        self._cache.wanted.components({*found, *(entry.point.component for entry in entries)})

    def swap_waves(self, swaps: Swaps) -> Iterator[Indices]:
        """Yields the indices of swaps, in the waves in which they are to be run.

        Rows whose runs fit into the cache together are run one wave after the other, so that no run
        is computed twice for them.
        """
        self._cache.wanted.points(self._waves.points(swaps))
        for read in self._waves.reads(swaps):
            self._cache.wanted.spans.grow(*read)
        entries, lengths, starts = self._waves.entries(swaps), swaps.lengths(), swaps.starts()
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
        return self._replay.run(self._wave(swaps), choices)

    def begin_swaps(
        self, swaps: Swaps, choices: Int[Tensor, "row choice"] | None
    ) -> tuple[Float[Tensor, "row vocab"], NextToken]:
        """Computes the logits as `swap_logits` does; returns what computes them after one more
        token."""
        logits, rows = self._replay.begin(self._wave(swaps), choices)
        return logits, partial(self._replay.go_on, rows)

    def written_logits(
        self, swaps: Swaps, written: Sequence[tuple[int, int, Tensor]]
    ) -> Float[Tensor, "row vocab"]:
        """Computes the logits (float32) at the answer of a wave of rows with one patch each and
        without sources; rows start..stop-1 get the vectors of each (start, stop, vectors)."""
        used, base = np.unique(swaps.base, return_inverse=True)
        table = self._cache.table(swaps.runs)
        if table is None:
            bases = [swaps.runs[at] for at in used]
            bases_of = self._cache.runs(bases)
            table = RunTable.of([bases_of[row] for row in bases])
        else:
            table = table.take(used)
        groups = [
            (Group(start, stop, 0, patch), vectors.view(stop - start, patch.tokens, -1))
            for start, stop, vectors in written
            for patch in swaps.places[swaps.place[start]]
        ]
        return self._replay.run(self._waves.of(swaps, table, base.reshape(-1), groups))

    def _wave(self, swaps: Swaps) -> Wave:
        used, base = np.unique(swaps.base, return_inverse=True)
        bases = [swaps.runs[at] for at in used]
        runs: Mapping[Row, CachedRun] = self._cache.runs(bases, self._waves.sources(swaps))
        table = RunTable.of([runs[row] for row in bases])
        return self._waves.of(swaps, table, base.reshape(-1), self._waves.read(swaps, runs))

    def batches(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        waves: dict[object, list[Row]] = {}
        for row in rows:
            waves.setdefault(self.shape_of(row), []).append(row)
        yield from self._whole.batches(waves.pop(None, []))
        for wave in waves.values():
            self.want_rows(wave)
        for wave in waves.values():
            wave.sort(key=self.entry)
            yield from self._cache.parts_that_fit(wave)

    def batch_key(self, row: Row) -> Hashable:
        shape = self.shape_of(row)
        return shape if shape is not None else ("whole", self._whole.batch_key(row))

    def entry(self, row: Row) -> int:
        if self.shape_of(row) is None:
            return 0
        points = (self._hook_points.at(patch.point) for patch in row.patches)
        return min(map(entry_of, points)).number

    def logits(
        self,
        rows: Sequence[Row],
        replacements: Replacements | None = None,
        choices_only: bool = False,
    ) -> Float[Tensor, "row answer"]:
        shapes = {self.shape_of(row) for row in rows}
        if shapes == {None}:
            return self._whole.logits(rows, replacements, choices_only)
        assert len(shapes) == 1, "rows of one wave begin at one token and have one length"
        assert replacements is None, "vectors are written by `written_logits`"
        self.want_rows(rows)
        swaps = swaps_of(rows)
        order = np.lexsort((swaps.place, self._waves.entries(swaps)))
        among = [rows[at].among for at in order] if choices_only else []
        logits = self.swap_logits(swaps.take(order), choices_of(among, self._cache.device))
        return logits[torch.from_numpy(np.argsort(order)).to(logits.device)]

    def is_free(self, row: Row) -> bool:
        """In a causal model the activation of a token depends on the tokens up to it, so an
        interchange after equal prefixes at equal positions changes nothing."""
        return bool(row.patches) and all(
            is_identity(row, patch)
            and self._network.share_activations(row.base, patch.sources[0].run.base)
            for patch in row.patches
        )

    def want_rows(self, wave: Sequence[Row]) -> None:
        """Makes runs keep what rows of a wave read."""
        self._cache.wanted.rows(wave)
        points = (self._hook_points.at(patch.point) for row in wave for patch in row.patches)
        self._cache.wanted.points({entry_of(at).point for at in points})

    def shape_of(self, row: Row) -> WaveShape | None:
        """Returns the shape of the wave that `row` belongs to; None if it is run whole: it has no
        patch, one outside of the blocks, or one whose sources are read at several places."""
        if not row.patches or any(
            self._hook_points.at(p.point).layer is None
            or (len(p.sources) > 1 and PatchPlace.of(p) is None)
            for p in row.patches
        ):
            return None
        assert isinstance(row.base, tuple), "a language model is given token ids"
        tokens = [token for patch in row.patches for token in patch.tokens]
        if max(tokens) >= len(row.base):
            raise PositionError(
                f"the base has {len(row.base)} tokens, and no token {max(tokens)} (from 0); name "
                f"one it has"
            )
        return WaveShape(min(tokens), len(row.base))


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
