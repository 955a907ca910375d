"""Says what is stored of runs: the layers of components and the tokens of inputs that rows read.

Invariants: what is wanted only grows, until a plan says anew what will be read.
"""

from collections.abc import Collection, Iterable, Sequence

import numpy as np

from raysearch.engine.execution.cached_runs import CachedRun
from raysearch.engine.execution.read_spans import ReadSpan, ReadSpans
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.rows import Indices, Row


class CaptureRequest:
    """The parts of later runs that are stored. `spans`: the tokens of each input; `version`: a
    number that changes where other layers or components are wanted."""

    def __init__(self, hook_points: Components) -> None:
        self._hook_points = hook_points
        self._layers: frozenset[int | None] | None = None  # layers that are read; None: all
        self._layers_of: dict[str, frozenset[int | None]] = {}
        self._known_places: dict[tuple[str, int | None], list[int]] = {}
        self.spans = ReadSpans()
        self.version = 0

    def plan(self, spans: ReadSpans, layers: Collection[int] | None) -> None:
        """Says what will be read: tokens of inputs, and layers (None: all)."""
        self.spans = spans
        self._layers = None if layers is None else frozenset(layers)
        self._layers_of.clear()
        self._known_places.clear()
        self.version += 1

    def components(self, components: Iterable[str]) -> None:
        """Wants components at every layer that is read: who reads one layer reads its neighbours
        next."""
        for component in sorted(components):
            every = frozenset(self._hook_points.of(component))
            self._add(component, every if self._layers is None else every & self._layers)

    def points(self, points: Iterable[Point]) -> None:
        """Wants points, and their components at every layer that is read."""
        for point in dict.fromkeys(points):
            if point.layer not in self._layers_of.get(point.component, ()):
                self.components([point.component])
                self._add(point.component, {point.layer})

    def rows(self, rows: Iterable[Row]) -> None:
        """Wants what rows read of their bases and sources, and patched sources of their own."""
        sources: dict[Row, None] = {}
        for row in rows:
            tokens = [token for patch in row.patches for token in patch.tokens]
            if tokens:
                self.spans.grow(row.base, min(tokens), min(tokens), is_base=True)
            for source in (source for patch in row.patches for source in patch.sources):
                at = source.tokens
                self.spans.grow(source.run.base, min(at), max(at), is_base=False)
                self.points([source.point])
                sources[source.run] = None
        if sources:
            self.rows(sources)

    def names(self) -> Collection[str]:
        """Returns the components, in the order of their first use."""
        return self._layers_of

    @property
    def first_layer(self) -> int:
        """The first layer whose keys and values are read."""
        if self._layers is None or self.spans.continues:
            return 0
        layers = (layer for layers in self._layers_of.values() for layer in layers)
        return min((layer for layer in layers if layer is not None), default=0)

    def span(self, row: Row) -> ReadSpan:
        """Returns the tokens of a run that are read; all of a patched run."""
        return ReadSpans().of(row.base) if row.patches else self.spans.of(row.base)

    def places(self, component: str, blocks: int | None) -> list[int]:
        """Returns the indices of the layers at which a component is wanted, up to so many blocks
        (None: all)."""
        key = component, blocks
        if key not in self._known_places:
            hook_points = self._hook_points.of(component).items()
            self._known_places[key] = [
                place
                for place, (layer, at) in enumerate(hook_points)
                if layer in self._layers_of[component]
                and (blocks is None or (at.layer is not None and at.layer < blocks))
            ]
        return self._known_places[key]

    def numbers(self, component: str, places: Sequence[int]) -> Indices:
        """Returns for each layer of a component its index in `places`, -1 if it is not there."""
        numbers = np.full(len(self._hook_points.of(component)), -1)
        numbers[list(places)] = np.arange(len(places))
        return numbers

    def is_in(self, run: CachedRun, row: Row, blocks: int | None) -> bool:
        """Returns whether the run of `row` has all that is wanted of its first `blocks` blocks
        (None: of all)."""
        deep = run.blocks is None or (blocks is not None and run.blocks >= blocks)
        span = self.span(row)
        if not deep or run.span | span != run.span:
            return False
        if blocks is None and span.keys and run.batch.first_layer > self.first_layer:
            return False
        return all(run.has(name, self.places(name, run.blocks)) for name in self._layers_of)

    def _add(self, component: str, layers: Collection[int | None]) -> None:
        known = self._layers_of.get(component)
        self._layers_of[component] = (known or frozenset()).union(layers)
        self._known_places.clear()
        self.version += self._layers_of[component] != known
