"""The hypothesis space: every variable at every site and subspace of the grids, and on every set of
units.

Invariants: the order of iteration is fixed (grid, source, position, subspace, head, layer; then the
sets; variables innermost); no intervention comes twice, whether a grid, a set or both contain it;
len() is K, the number of hypotheses that the search could ever test.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product

from raysearch.causal import named_sources
from raysearch.core.hypothesis import Hypothesis, Intervention, Site, Subspace, Unit

COMPONENTS = (
    "residual",
    "block_input",
    "embedding",
    "attention_output",
    "mlp_output",
    "mlp_activation",
    "head",
    "query",
    "key",
    "value",
)
"""Components that a job may name, besides a dotted module path."""


@dataclass(frozen=True)
class Grid:
    """All units of one component: sources x positions x subspaces x heads x layers.

    Args:
        layers: layers from 0; None for a component without layers.
        heads: heads from 0; None for the whole vector.
        files: digest of a layer's file, by the path that a subspace names and the layer.
        sources: sources to take from, each by itself; None for the only one.
    """

    component: str
    layers: tuple[int | None, ...]
    heads: tuple[int | None, ...]
    positions: tuple[str, ...]
    subspaces: tuple[Subspace, ...] = (Subspace(),)
    files: Mapping[tuple[str, int | None], str] = field(default_factory=dict)
    sources: tuple[str | None, ...] = (None,)

    def __post_init__(self) -> None:
        for values in (self.layers, self.heads, self.positions, self.subspaces, self.sources):
            assert len(set(values)) == len(values), (
                f"{self.component}: {values} holds something twice"
            )

    def __iter__(self) -> Iterator[Unit]:
        """Yields the units of the grid. Layers vary fastest, since neighbours share the tokens
        that a replica runs."""
        for source, position, subspace, head, layer in product(
            self.sources, self.positions, self.subspaces, self.heads, self.layers
        ):
            site = Site(layer, self.component, position, head)
            yield Unit(site, self._of_layer(subspace, layer), source=source)

    def _of_layer(self, subspace: Subspace, layer: int | None) -> Subspace:
        return (
            subspace
            if subspace.file is None
            else replace(subspace, file=self.files[subspace.file, layer])
        )

    def __len__(self) -> int:
        return len(self.sources) * self.units_per_source

    @property
    def units_per_source(self) -> int:
        """Number of units of each source."""
        return len(self.layers) * len(self.heads) * len(self.positions) * len(self.subspaces)

    def __contains__(self, unit: Unit) -> bool:
        site = unit.site
        return (
            site.component == self.component
            and site.layer in self.layers
            and site.head in self.heads
            and site.position in self.positions
            and unit.subspace in self.subspaces
            and unit.source in self.sources
            and unit == Unit(site, unit.subspace, source=unit.source)
        )


@dataclass(frozen=True)
class HypothesisSpace:
    """Variables x (the units of the grids, each by itself, and the explicit sets of units).

    A variable that names its sources ("x<-a,y<-b") is tested with interventions that take from
    exactly these sources.
    """

    variables: tuple[str, ...]
    grids: tuple[Grid, ...] = ()
    sets: tuple[Intervention, ...] = ()

    def __post_init__(self) -> None:
        components = [g.component for g in self.grids]
        assert len(set(components)) == len(components), f"{components}: one grid for each component"

    def interventions(self) -> Iterator[Intervention]:
        """Yields each intervention once; all variables share it, unless it is fit to each variable
        by itself.
        """
        for grid in self.grids:
            for unit in grid:
                yield Intervention((unit,))
        yield from self.sets_outside_grids()

    def __iter__(self) -> Iterator[Hypothesis]:
        for intervention in self.interventions():
            yield from self.hypotheses_on(intervention)

    def hypotheses_on(self, intervention: Intervention) -> Iterator[Hypothesis]:
        """Yields the hypotheses on an intervention, one for each variable whose sources its units
        take from.
        """
        for variable in self.variables:
            if _takes_from_sources(variable, intervention):
                yield Hypothesis(
                    variable,
                    replace(intervention, variable=variable)
                    if intervention.is_fitted
                    else intervention,
                )

    def __len__(self) -> int:
        return sum(map(self.count, self.variables))

    def count(self, variable: str) -> int:
        """Returns the number of hypotheses on a variable."""
        wanted = named_sources(variable)
        gridded = sum(
            len(grid)
            if not wanted or None in grid.sources
            else grid.units_per_source * (len(wanted) == 1 and wanted[0] in grid.sources)
            for grid in self.grids
        )
        return gridded + sum(
            _takes_from_sources(variable, one) for one in self.sets_outside_grids()
        )

    def sets_outside_grids(self) -> tuple[Intervention, ...]:
        """Returns the sets of units that no grid contains, each once, in their order."""
        sets = dict.fromkeys(self.sets)
        return tuple(
            s
            for s in sets
            if s.is_ablation
            or not (len(s.units) == 1 and any(s.units[0] in grid for grid in self.grids))
        )


def _takes_from_sources(variable: str, intervention: Intervention) -> bool:
    """Says whether units take from exactly the sources that the variable names; true if it names
    none, and for an ablation, which takes from none."""
    if not (wanted := named_sources(variable)) or intervention.is_ablation:
        return True
    sources = {unit.source for unit in intervention.units}
    return None in sources or set(wanted) == sources
