"""The canonical computation: the row by itself. It defines the answer of a row that an executor
cannot decide: of a near-tie, where the executor is not batch-invariant.

The run of each source and the patched run of the base are plain forward passes at batch size one,
without padding, in the model's own dtype (`patching.oracle`). So the answer depends on the row
alone, and not on its batch, the order, the row limit or the number of replicas.

Below its first patch a row equals its base's run at batch size one. So blocks that the base's run
has passed are not run again: equal numbers at equal shapes give equal bits (`prove` tests that on
the model at hand; if it fails, all blocks are run).

Invariants: results are those of `oracle`, bit for bit; a source's run is computed once while its
activations fit into the cache; never more than `max_bytes` are cached, nor more read from a run
than asked for if that would not fit.
"""

import logging
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from raysearch.engine.networks.components import Components
from raysearch.engine.networks.gradient_mode import without_gradients
from raysearch.engine.networks.network import LanguageModel, ModelInput, Network, tokens_of
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.edits import Replacements, chosen
from raysearch.engine.patching.operations import Featurized, Interchange
from raysearch.engine.patching.oracle import LogitsOf, activations_in, oracle
from raysearch.engine.patching.rows import Patch, Row, Source

log = logging.getLogger(__name__)

CACHE_BYTES = 2**28
"""Default size of the cache of source activations, in bytes."""
PROOFS = 6
"""Number of rows, at as many layers, on which `prove` tests whether a run may start at its first
patch."""


class CanonicalRunner:
    """Computes rows one by one; caches activations of sources and bases, at most `max_bytes`, least
    recently used first out."""

    def __init__(
        self, network: Network, hook_points: Components, max_bytes: int = CACHE_BYTES
    ) -> None:
        self._network = network
        self._hook_points = hook_points
        self._max_bytes = max_bytes
        self._bytes = 0
        self._cached: OrderedDict[Row, dict[Point, Tensor]] = OrderedDict()
        self._seen_bases: set[ModelInput] = set()  # bases of computed rows
        self.resumes = False

    def logits(self, row: Row, replacements: Replacements | None = None) -> Float[Tensor, "answer"]:
        """Computes the logits (float32) at the answer. `replacements`: activation for the only
        patch, instead of its source's."""
        return oracle(
            self._network, self._hook_points, row, replacements, self._read_run, self._rest_of(row)
        )

    def prove(self, rows: Sequence[Row]) -> None:
        """Lets runs start at their first patch from now on, if that changes no bit on some of
        `rows`."""
        by_layer = {layer: row for row in rows if (layer := self._first_layer(row))}
        layers = sorted(by_layer)
        tried = (
            [by_layer[layer] for layer in layers[:: -(-len(layers) // PROOFS)]] if layers else []
        )
        self.resumes = bool(tried) and all(self._resumes_equal(row) for row in tried)

    def changes_nothing(self, row: Row) -> bool:
        """Returns whether each patch writes, bit for bit, what the base's own run has there: the
        row then equals the base's run."""
        return self.copies_own_activations(row) and not any(
            isinstance(patch.kind, Featurized) for patch in row.patches
        )

    def copies_own_activations(self, row: Row) -> bool:
        """Returns whether each patch's source has, bit for bit, what the base's own run has there:
        a featurizer then changes rounding only."""
        return bool(row.patches) and all(
            self._patch_copies_own(row, patch) for patch in row.patches
        )

    def _patch_copies_own(self, row: Row, patch: Patch) -> bool:
        if not isinstance(patch.kind, Interchange | Featurized) or len(patch.sources) != 1:
            return False
        (source,) = patch.sources
        own = Source(Row(row.base), patch.point, patch.tokens, patch.features)
        return source == own or torch.equal(self._taken(source), self._taken(own))

    def _taken(self, source: Source) -> Float[Tensor, "token feature"]:
        seen = self._read_run(source.run, [source.point])[source.point]
        return chosen(seen, source.tokens, source.features)

    def _rest_of(self, row: Row) -> LogitsOf | None:
        """Returns a function that runs the base of `row` from its first patched block on; None to
        run all blocks, as for the first row of a base."""
        layer = self._first_layer(row) if self.resumes else 0
        if not layer:
            return None
        if Row(row.base) not in self._cached and row.base not in self._seen_bases:
            self._seen_bases.add(row.base)
            return None
        rest = self._rest_from(row.base, layer)
        self.resumes = (
            Row(row.base) in self._cached
        )  # resuming is of no use if the base's run is not cached
        return rest

    def _rest_from(self, base: ModelInput, layer: int) -> LogitsOf:
        assert isinstance(self._network, LanguageModel)
        before = Point(layer - 1, "residual")
        return self._network.resumed(layer - 1, self._read_run(Row(base), [before])[before])

    def _first_layer(self, row: Row) -> int:
        """Returns the first patched block; 0 if no block before it can be skipped."""
        if not isinstance(self._network, LanguageModel) or not row.patches:
            return 0
        layers = [self._hook_points.at(patch.point).layer for patch in row.patches]
        return min(0 if layer is None else layer for layer in layers)

    def _resumes_equal(self, row: Row) -> bool:
        """Returns whether running `row` from its first patched block on gives the bits of the whole
        run."""
        rest = self._rest_from(row.base, self._first_layer(row))
        whole = oracle(self._network, self._hook_points, row, None, self._read_run)
        try:
            return torch.equal(
                whole, oracle(self._network, self._hook_points, row, None, self._read_run, rest)
            )
        except (
            RuntimeError,
            TypeError,
            ValueError,
            LookupError,
            AttributeError,
        ) as e:  # blocks that pass on more than a residual
            log.info(
                "%s: is always run from its first block on: %s: %s",
                self._network.name,
                type(e).__name__,
                e,
            )
            return False

    @without_gradients()
    def _read_run(
        self, run: Row, points: Collection[Point]
    ) -> Mapping[Point, Float[Tensor, "_token _width"]]:
        """Returns the activations of `run` at `points`. Reads each component in all layers if the
        cache has room, since other layers are asked for next."""
        cached = self._cached.pop(run, None)
        if cached is None or any(point not in cached for point in points):
            self._bytes -= _bytes_of(cached or {})
            wanted = dict.fromkeys((*(cached or ()), *points))
            components = dict.fromkeys(point.component for point in wanted)
            everywhere = [
                Point(layer, component)
                for component in components
                for layer in self._hook_points.of(component)
            ]
            reads = next(
                (some for some in (everywhere, list(wanted)) if self._fits(run.base, some)),
                list(points),
            )
            cached = dict(
                activations_in(self._network, self._hook_points, run, reads, self._read_run)
            )
            self._bytes += _bytes_of(cached)
        self._cached[run] = cached
        while self._bytes > self._max_bytes and self._cached:
            self._bytes -= _bytes_of(self._cached.popitem(last=False)[1])
        return cached

    def _fits(self, given: ModelInput, points: Iterable[Point]) -> bool:
        """Returns whether the activations at `points` fit into the cache, by their sizes as known
        before a run."""
        item = next((p.itemsize for p in self._network.module.parameters()), 4)
        hook_points = [self._hook_points.at(point) for point in points]
        tokens = [
            self._network.tokens_at(hook_point.module, hook_point.side, given) or tokens_of(given)
            for hook_point in hook_points
        ]
        return (
            item
            * sum(n * hook_point.width for n, hook_point in zip(tokens, hook_points, strict=True))
            <= self._max_bytes
        )


def _bytes_of(cached: Mapping[Point, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in cached.values())
