"""Points: one component of one layer of a network."""

from dataclasses import dataclass

from raysearch.core.hypothesis import layer_of


@dataclass(frozen=True, slots=True)
class Point:
    """An activation of the network at all its tokens: a component of a layer. Layer None: the
    network has the component once."""

    layer: int | None
    component: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "layer", layer_of(self.component, self.layer))
