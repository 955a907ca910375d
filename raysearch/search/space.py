"""The hypothesis space: every variable at every site and subspace that the job declares.

Invariants: iteration order is fixed (component, position, subspace, layer, variable); len() is K, the number of hypotheses
that the search could ever test.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from raysearch.search.hypothesis import Hypothesis, Intervention, Site, Subspace, Unit


@dataclass(frozen=True)
class HypothesisSpace:
    """variables x layers x components x positions x subspaces."""

    variables: tuple[str, ...]
    layers: tuple[int, ...]
    components: tuple[str, ...]
    positions: tuple[str, ...]
    subspaces: tuple[Subspace, ...] = (Subspace(),)

    def interventions(self) -> Iterator[Intervention]:
        """Each intervention once; all variables share it. Layers vary fastest: neighbours share the tokens that a replica runs."""
        for component in self.components:
            for position in self.positions:
                for subspace in self.subspaces:
                    for layer in self.layers:
                        yield Intervention((Unit(Site(layer, component, position), subspace),))

    def __iter__(self) -> Iterator[Hypothesis]:
        for intervention in self.interventions():
            for variable in self.variables:
                yield Hypothesis(variable, intervention)

    def __len__(self) -> int:
        per_layer = len(self.components) * len(self.positions) * len(self.subspaces)
        return len(self.variables) * len(self.layers) * per_layer
