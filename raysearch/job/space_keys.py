"""The keys of `space`: where a job looks.

Invariants: there is a grid where `components` names any; a job that writes `units` and no key of
the grid has `components: []` from the start, so that the job as written down says it; what is the
same has one form (coordinates in order, units of a set in order).
"""

from itertools import combinations
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from raysearch.causal import EVERY
from raysearch.core.featurizers import is_fitted
from raysearch.core.hypothesis import Intervention, Site, Subspace, Unit
from raysearch.core.key_types import Count, Keys, Positive
from raysearch.job.position_keys import PositionKey, declared_positions, position_name
from raysearch.job.subspace_keys import BY_A_WORD, IndexRange, SubspaceKeys, subspaces_of
from raysearch.job.unit_keys import Component, UnitKeys, intervention_of, overlap, site_words

GRID = ("layers", "components", "heads", "positions", "subspaces")
"""The keys that make the grid."""


class LayerRange(IndexRange):
    """Layers from `from` to `to`, both included, every `step`."""

    _holds = "layer"
    step: Positive = Field(default=1, description="Every so many.")


class SpaceKeys(Keys):
    """The sites to search: a grid (all that it names is tried in every combination), and explicit
    sets of units. With `units` and no key of the grid, only the units are searched."""

    variables: Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        default=None, description="Which variables of the causal model; null: all."
    )
    layers: Literal["all"] | Annotated[tuple[Count, ...], Field(min_length=1)] | LayerRange = Field(
        default="all",
        description="Counted from 0: a list, or a range. A component that the network has once, in "
        "no layer, is taken once, whatever is named here.",
    )
    components: tuple[Component, ...] = Field(
        default=("residual",),
        description="Which activations: residual is a block's output; a module's path names any "
        "module's output (`embed`, "
        "`embed.output`), or its input with `.input` at its end, `{layer}` standing for the layer "
        "where each has its own.",
    )
    heads: Literal["all", "joint"] | Annotated[tuple[Count, ...], Field(min_length=1)] = Field(
        default="all",
        description="Of components that have heads. all: each by itself; joint: those of a layer "
        "at once; or a list.",
    )
    positions: Literal["all"] | tuple[PositionKey, ...] | None = Field(
        default=None,
        description="Positions of the problem, and last; null: all of these. `{x: {take: last}}` "
        "(or first, align_right) takes tokens of "
        "one that has not as many in every input, and is called x.last; `{x: {tokens: [12, 13]}}` "
        "names tokens by index, token_12 is a "
        "single one; all: every token, where all inputs have as many.",
    )
    subspaces: Annotated[tuple[SubspaceKeys, ...], Field(min_length=1)] = Field(
        default=("full",),
        description="; ".join(
            [
                "Which part of the vector; full: all of it",
                *(f"{kind.name}: {kind.summary.rstrip('.')}" for kind in BY_A_WORD),
            ]
        )
        + ".",
    )
    units: tuple[Annotated[tuple[UnitKeys, ...], Field(min_length=1)], ...] = Field(
        default=(), description="Sets of units, each set interchanged at once."
    )

    @property
    def position_names(self) -> tuple[str, ...] | None:
        """The positions of the grid by the engine's names; None: all that the problem names."""
        if self.positions is None:
            return None
        return (EVERY,) if self.positions == "all" else tuple(map(position_name, self.positions))

    @property
    def listed_layers(self) -> tuple[int, ...]:
        """The layers of the grid, where the job lists them."""
        if isinstance(self.layers, LayerRange):
            return tuple(range(self.layers.from_, self.layers.to + 1, self.layers.step))
        return () if self.layers == "all" else self.layers

    @property
    def declared(self) -> dict[str, tuple[int, ...]]:
        """The positions that the job itself gives tokens, by index."""
        written = list(self.positions) if isinstance(self.positions, tuple) else []
        for keys in (keys for units in self.units for keys in units):
            written += [
                p for p in (keys.position, keys.source_site and keys.source_site.position) if p
            ]
        return declared_positions(written)

    @property
    def meant_subspaces(self) -> tuple[Subspace, ...]:
        """The subspaces of the grid, one by one."""
        return tuple(subspace for keys in self.subspaces for subspace in subspaces_of(keys))

    @property
    def all_subspaces(self) -> tuple[Subspace, ...]:
        """The subspaces of the grid and of the named units."""
        grid = self.meant_subspaces if self.components else ()
        return (*grid, *(unit.subspace for _, unit in self.named_units))

    @property
    def sae_paths(self) -> tuple[str, ...]:
        """The paths of sparse autoencoders, as written."""
        return tuple(dict.fromkeys(s.file for s in self.meant_subspaces if s.file is not None))

    @property
    def is_fitted(self) -> bool:
        """Says whether any subspace is fit to pairs."""
        return bool(self.components) and any(is_fitted(s.featurizer) for s in self.meant_subspaces)

    @property
    def unit_sites(self) -> tuple[tuple[str, Site], ...]:
        """(key path, site) of every site that the units name, source sites among them."""
        found: list[tuple[str, Site]] = []
        for path, unit in self.named_units:
            found.append((path, unit.site))
            if unit.source_site is not None:
                found.append((f"{path}.source_site", unit.source_site))
        return tuple(found)

    @property
    def named_units(self) -> tuple[tuple[str, Unit], ...]:
        """(key path, unit) of every unit."""
        return tuple(
            (f"space.units.{i}.{j}", keys.unit())
            for i, units in enumerate(self.units)
            for j, keys in enumerate(units)
        )

    @property
    def ablations(self) -> list[str]:
        """The key path of the operation of every unit that is ablated."""
        return [
            f"space.units.{i}.{j}.operation"
            for i, units in enumerate(self.units)
            for j, keys in enumerate(units)
            if keys.operation != "interchange"
        ]

    @model_validator(mode="before")
    @classmethod
    def _units_alone(cls, raw: Any) -> Any:
        """Gives a space no grid where the job writes units and no key of a grid."""
        alone = isinstance(raw, dict) and raw.get("units") and not any(key in raw for key in GRID)
        return {**raw, "components": []} if alone else raw

    @model_validator(mode="after")
    def _nothing_twice(self) -> "SpaceKeys":
        keys = {key: getattr(self, key) for key in ("variables", "layers", "components", "heads")}
        for key, value in {**keys, "positions": self.position_names}.items():
            if isinstance(value, tuple) and len(set(value)) < len(value):
                twice = next(v for v in value if value.count(v) > 1)
                raise ValueError(f"{key} names {twice!r} twice; name each once")
        meant = self.meant_subspaces
        if len(set(meant)) < len(meant):
            raise ValueError("subspaces names the same one twice; name each once")
        return self

    @model_validator(mode="after")
    def _one_meaning(self) -> "SpaceKeys":
        assert self.declared is not None
        return self

    @model_validator(mode="after")
    def _somewhere(self) -> "SpaceKeys":
        if not self.components and not self.units:
            raise ValueError("there is nowhere to look: name one of components, or give units")
        if self.components and self.positions == ():
            raise ValueError(
                "positions names none, and the grid needs one; name one, or leave the key out for "
                "all"
            )
        return self

    @field_validator("units")
    @classmethod
    def _units_once(
        cls, sets: tuple[tuple[UnitKeys, ...], ...]
    ) -> tuple[tuple[UnitKeys, ...], ...]:
        for i, units in enumerate(sets):
            if len({k.operation for k in units}) > 1:
                raise ValueError(
                    f"set {i} has several operations; units that are changed at once have one"
                )
            for u, v in combinations([k.unit() for k in units], 2):
                if overlap(u, v):
                    raise ValueError(
                        f"set {i} interchanges {site_words(u.site)} twice; each activation can be "
                        f"replaced once"
                    )
        seen: dict[Intervention, int] = {}
        for i, units in enumerate(sets):
            first = seen.setdefault(intervention_of(units), i)
            if first != i:
                raise ValueError(f"sets {first} and {i} are the same; give each once")
        return sets
