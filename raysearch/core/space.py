"""The hypothesis space: every variable at every site and subspace of the grids, and on every
explicit set of units.

Invariants: iteration order is fixed (grid, source, position, subspace, head, layer; then the sets;
variables innermost); no intervention comes twice, whether a grid, a set or both hold it; len() is
K, the number of hypotheses that the search could ever test.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product

from raysearch.causal import lenders
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
"""Those that a job may name, besides a dotted module path."""


@dataclass(frozen=True)
class Grid:
    """One component: layers x heads x positions x subspaces. Head None: the whole vector; layer
    None: of no layer.

    `files`: the digest of what each layer has of a file that a subspace names, by that name and the
    layer. `sources`: those that lend, each by itself; None: the only one.
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
        """Layers vary fastest: neighbours share the tokens that a replica runs."""
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
        return len(self.sources) * self.from_each

    @property
    def from_each(self) -> int:
        """Units of each source."""
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
    """variables x (the units of the grids, each by itself, and the explicit sets of units).

    A variable that says which sources lend it ("x<-a,y<-b") is asked of interventions that take
    from just these.
    """

    variables: tuple[str, ...]
    grids: tuple[Grid, ...] = ()
    sets: tuple[Intervention, ...] = ()

    def __post_init__(self) -> None:
        components = [g.component for g in self.grids]
        assert len(set(components)) == len(components), f"{components}: one grid for each component"

    def interventions(self) -> Iterator[Intervention]:
        """Each intervention once; all variables share it, but for those that are fit: to each
        variable by itself."""
        for grid in self.grids:
            for unit in grid:
                yield Intervention((unit,))
        yield from self.sets_beside()

    def __iter__(self) -> Iterator[Hypothesis]:
        for intervention in self.interventions():
            yield from self.on(intervention)

    def on(self, intervention: Intervention) -> Iterator[Hypothesis]:
        """The hypotheses on it, one for each variable that its units' sources lend; what is fit, is
        fit to each by itself."""
        for variable in self.variables:
            if _is_lent(variable, intervention):
                yield Hypothesis(
                    variable,
                    replace(intervention, variable=variable)
                    if intervention.is_fitted
                    else intervention,
                )

    def __len__(self) -> int:
        return sum(map(self.count, self.variables))

    def count(self, variable: str) -> int:
        """The hypotheses on a variable."""
        wanted = lenders(variable)
        gridded = sum(
            len(grid)
            if not wanted or None in grid.sources
            else grid.from_each * (len(wanted) == 1 and wanted[0] in grid.sources)
            for grid in self.grids
        )
        return gridded + sum(_is_lent(variable, one) for one in self.sets_beside())

    def sets_beside(self) -> tuple[Intervention, ...]:
        """The sets that no grid holds, each once, in their order."""
        sets = dict.fromkeys(self.sets)
        return tuple(
            s
            for s in sets
            if s.is_ablation
            or not (len(s.units) == 1 and any(s.units[0] in grid for grid in self.grids))
        )


def _is_lent(variable: str, intervention: Intervention) -> bool:
    """Whether the units take from just the sources that lend the variable; where there is one
    source, nobody says, and an ablation takes from none."""
    if not (wanted := lenders(variable)) or intervention.is_ablation:
        return True
    taken = {unit.source for unit in intervention.units}
    return None in taken or set(wanted) == taken
