"""The canonical computation, by which the answer of a row is defined: the row by itself.

Each source's run and the base's run with its patches is one plain forward pass, at batch one,
nothing padded, in the model's own dtype (`interchange.oracle`). So the answer depends on the row
alone: on no company, order, limit of rows, or number of replicas.

Below its first patch a row is its base's own run at batch one. So blocks that a base's run has been
through already are not run again for its rows: the same numbers at the same shapes, so the same
bits (`prove` tries that on the model at hand; where it is not so, all are run).

Invariants: what comes out is `oracle`'s, bit for bit; a source's run is made once while there is
room for what it lends, whoever borrows; never more than `max_bytes` are kept, nor read from a run
beyond what is asked for where that would not fit.
"""

import logging
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from raysearch.engine.networks.components import Components
from raysearch.engine.networks.detached import constant
from raysearch.engine.networks.network import LanguageModel, ModelInput, Network, tokens_of
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.edits import Replacements
from raysearch.engine.patching.operations import Featurized, Interchange
from raysearch.engine.patching.oracle import Run, oracle, seen_in
from raysearch.engine.patching.rows import Patch, Row, Source

log = logging.getLogger(__name__)

KEPT = 2**28
"""Bytes that may be kept of what sources lend, where nobody says how many."""
PROOFS = 6
"""Rows, of as many layers, on which it is tried whether a run can begin where its first patch lies.
"""


class CanonicalRunner:
    """Computes rows one by one; keeps what sources lend and bases leave, at most `max_bytes`, least
    recently used first to go."""

    def __init__(self, network: Network, taps: Components, max_bytes: int = KEPT) -> None:
        self._network = network
        self._taps = taps
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[Row, dict[Point, Tensor]] = OrderedDict()
        self._met: set[ModelInput] = set()  # bases of rows that were computed
        self.resumes = False

    def logits(self, row: Row, lent: Replacements | None = None) -> Float[Tensor, "answer"]:
        """The logits (float32) at the answer. `lent`: what the only patch is lent, where it is not
        what its source has."""
        return oracle(self._network, self._taps, row, lent, self._lend, self._rest_of(row))

    def prove(self, rows: Sequence[Row]) -> None:
        """From now on runs begin where their first patch lies, if on some of `rows` that changes no
        bit."""
        by_layer = {layer: row for row in rows if (layer := self._first_layer(row))}
        layers = sorted(by_layer)
        tried = (
            [by_layer[layer] for layer in layers[:: -(-len(layers) // PROOFS)]] if layers else []
        )
        self.resumes = bool(tried) and all(self._resumes_equal(row) for row in tried)

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
        if not isinstance(patch.kind, Interchange | Featurized) or len(patch.sources) != 1:
            return False
        (source,) = patch.sources
        own = Source(Row(row.base), patch.point, patch.tokens, patch.features)
        return source == own or torch.equal(self._taken(source), self._taken(own))

    def _taken(self, source: Source) -> Float[Tensor, "token feature"]:
        tokens = self._lend(source.run, [source.point])[source.point][list(source.tokens)]
        return tokens if source.features is None else tokens[:, list(source.features)]

    def _rest_of(self, row: Row) -> Run | None:
        """What runs the base of `row` from its first patched block on. None: all is to be run, as
        for the first row of a base."""
        layer = self._first_layer(row) if self.resumes else 0
        if not layer:
            return None
        if Row(row.base) not in self._kept and row.base not in self._met:
            self._met.add(row.base)
            return None
        rest = self._rest_from(row.base, layer)
        self.resumes = Row(row.base) in self._kept  # what is not kept is not worth its run
        return rest

    def _rest_from(self, base: ModelInput, layer: int) -> Run:
        assert isinstance(self._network, LanguageModel)
        before = Point(layer - 1, "residual")
        return self._network.resumed(layer - 1, self._lend(Row(base), [before])[before])

    def _first_layer(self, row: Row) -> int:
        """The first patched block; 0 where nothing is known of the blocks before, or none can be
        left out."""
        if not isinstance(self._network, LanguageModel) or not row.patches:
            return 0
        layers = [self._taps.at(patch.point).layer for patch in row.patches]
        return min(0 if layer is None else layer for layer in layers)

    def _resumes_equal(self, row: Row) -> bool:
        """Whether the run of `row` from its first patched block on is the whole run, bit for bit."""
        rest = self._rest_from(row.base, self._first_layer(row))
        whole = oracle(self._network, self._taps, row, None, self._lend)
        try:
            return torch.equal(
                whole, oracle(self._network, self._taps, row, None, self._lend, rest)
            )
        except (
            RuntimeError,
            TypeError,
            ValueError,
            LookupError,
            AttributeError,
        ) as e:  # blocks that hand on more than a residual
            log.info(
                "%s: is always run from its first block on: %s: %s",
                self._network.name,
                type(e).__name__,
                e,
            )
            return False

    @constant()
    def _lend(
        self, run: Row, points: Collection[Point]
    ) -> Mapping[Point, Float[Tensor, "token width"]]:
        """What `run` has at `points`. Looked at is each component in all its layers, where there is
        room: whoever asks for one asks for others next."""
        kept = self._kept.pop(run, None)
        if kept is None or any(point not in kept for point in points):
            self._bytes -= _bytes_of(kept or {})
            wanted = dict.fromkeys((*(kept or ()), *points))
            components = dict.fromkeys(point.component for point in wanted)
            everywhere = [
                Point(layer, component)
                for component in components
                for layer in self._taps.of(component)
            ]
            reads = next(
                (some for some in (everywhere, list(wanted)) if self._fits(run.base, some)),
                list(points),
            )
            kept = dict(seen_in(self._network, self._taps, run, reads, self._lend))
            self._bytes += _bytes_of(kept)
        self._kept[run] = kept
        while self._bytes > self._max_bytes and self._kept:
            self._bytes -= _bytes_of(self._kept.popitem(last=False)[1])
        return kept

    def _fits(self, given: ModelInput, points: Iterable[Point]) -> bool:
        """Whether what is read at `points` may be kept, by what is known of their sizes before a
        run."""
        item = next((p.itemsize for p in self._network.module.parameters()), 4)
        taps = [self._taps.at(point) for point in points]
        tokens = [
            self._network.tokens_at(tap.module, tap.side, given) or tokens_of(given) for tap in taps
        ]
        return (
            item * sum(n * tap.width for n, tap in zip(tokens, taps, strict=True))
            <= self._max_bytes
        )


def _bytes_of(kept: Mapping[Point, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in kept.values())
