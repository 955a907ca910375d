"""The canonical computation, by which the answer of a row is defined: the row by itself.

Each source's run and the base's run with its patches is one plain forward pass, at batch one,
nothing padded, in the model's own dtype (`interchange.oracle`). So the answer depends on the row
alone: on no company, order, limit of rows, or number of replicas.

Invariants: what comes out is `oracle`'s, bit for bit; a source's run is made once while there is
room for what it lends, whoever borrows.
"""

from collections import OrderedDict
from collections.abc import Collection, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from raysearch.engine.networks.components import Components
from raysearch.engine.networks.detached import constant
from raysearch.engine.networks.network import Network
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.edits import Replacements
from raysearch.engine.patching.operations import Featurized, Interchange, Resample
from raysearch.engine.patching.oracle import oracle, seen_in
from raysearch.engine.patching.rows import Patch, Row, Source

KEPT = 2**28
"""Bytes that may be kept of what sources lend, where nobody says how many."""


class CanonicalRunner:
    """Computes rows one by one; keeps what sources lend, at most `max_bytes`, least recently used
    first to go."""

    def __init__(self, network: Network, taps: Components, max_bytes: int = KEPT) -> None:
        self._network = network
        self._taps = taps
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[Row, dict[Point, Tensor]] = OrderedDict()

    def logits(self, row: Row, lent: Replacements | None = None) -> Float[Tensor, "answer"]:
        """The logits (float32) at the answer. `lent`: what the only patch is lent, where it is not
        what its source has."""
        return oracle(self._network, self._taps, row, lent, self._lend)

    def changes_nothing(self, row: Row) -> bool:
        """Whether each patch puts in, bit for bit, what the base's own run has there: the row is
        then the base's run."""
        return self.lends_its_own(row) and not any(
            isinstance(patch.kind, Featurized) for patch in row.patches
        )

    def lends_its_own(self, row: Row) -> bool:
        """Whether each patch is lent, bit for bit, what the base's own run has there: what a
        featurizer changes then is rounding."""
        return bool(row.patches) and all(self._is_lent_its_own(row, patch) for patch in row.patches)

    def _is_lent_its_own(self, row: Row, patch: Patch) -> bool:
        if (
            not isinstance(patch.kind, Interchange | Resample | Featurized)
            or len(patch.sources) != 1
        ):
            return False
        (source,) = patch.sources
        own = Source(Row(row.base), patch.point, patch.tokens, patch.features)
        return source == own or torch.equal(self._taken(source), self._taken(own))

    def _taken(self, source: Source) -> Float[Tensor, "token feature"]:
        tokens = self._lend(source.run, [source.point])[source.point][list(source.tokens)]
        return tokens if source.features is None else tokens[:, list(source.features)]

    @constant()
    def _lend(
        self, run: Row, points: Collection[Point]
    ) -> Mapping[Point, Float[Tensor, "token width"]]:
        """What `run` has at `points`. Looked at is each component in all its layers: whoever asks
        for one asks for others next."""
        kept = self._kept.pop(run, None)
        if kept is None or any(point not in kept for point in points):
            components = dict.fromkeys(p.component for p in (*(kept or ()), *points))
            everywhere = [
                Point(layer, component)
                for component in components
                for layer in self._taps.of(component)
            ]
            self._bytes -= _bytes_of(kept or {})
            kept = dict(seen_in(self._network, self._taps, run, everywhere, self._lend))
            self._bytes += _bytes_of(kept)
        self._kept[run] = kept
        while self._bytes > self._max_bytes and self._kept:
            self._bytes -= _bytes_of(self._kept.popitem(last=False)[1])
        return kept


def _bytes_of(kept: Mapping[Point, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in kept.values())
