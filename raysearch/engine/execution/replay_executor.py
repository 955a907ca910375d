"""The fastest executor, for rows as Python objects: they become arrays, and run in waves."""

from collections.abc import Hashable, Iterator, Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.executors import BatchedExecutor, ExecutorName
from raysearch.engine.execution.predict import choices_of
from raysearch.engine.execution.replay import Replay
from raysearch.engine.execution.wave import WaveShape, entry_of
from raysearch.engine.execution.wave_executor import WaveExecutor
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.network import LanguageModel, tokens_of
from raysearch.engine.networks.to_device import on_device
from raysearch.engine.patching.build_swaps import swaps_of
from raysearch.engine.patching.edits import Replacements, check_has_tokens
from raysearch.engine.patching.rows import Row
from raysearch.engine.patching.swaps import PatchPlace, is_identity
from raysearch.errors import PositionError


class ReplayExecutor(WaveExecutor):
    """Runs rows in waves; those patched outside of the blocks are run whole."""

    name: ExecutorName = "replay"

    def __init__(
        self,
        network: LanguageModel,
        hook_points: Components,
        cache: ActivationCache,
        shares_prefix: bool = True,
        replay: Replay | None = None,
    ) -> None:
        super().__init__(network, hook_points, cache, shares_prefix, replay)
        self._network = network
        self._whole = BatchedExecutor(network, hook_points, cache)

    def batches(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        waves: dict[WaveShape | None, list[Row]] = {}
        for row in rows:
            waves.setdefault(self.shape_of(row), []).append(row)
        yield from self._whole.batches(waves.pop(None, []))
        for wave in waves.values():
            self.want_rows(wave)
        for shape, wave in waves.items():
            assert shape is not None, "they are run whole"
            wave.sort(key=self.entry)
            most = self._cache.most_rows(shape.length - shape.start)
            yield from self._cache.parts_that_fit(wave, most)

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
        return logits[on_device(np.argsort(order), logits.device)]

    def is_free(self, row: Row) -> bool:
        """Says whether an interchange changes nothing: equal positions after equal prefixes.

        In a causal language model the activation of a token depends on the tokens up to it."""
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
        for source in (source for patch in row.patches for source in patch.sources):
            check_has_tokens(source, tokens_of(source.run.base))
        return WaveShape(min(tokens), len(row.base))
