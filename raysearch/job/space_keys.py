"""The keys of `space`: where a job looks.

Invariants: there is a grid where `components` names any; a job that writes `units` and no key of
the grid has `components: []` from the start, so that the job as written down says it; what is the
same has one form (coordinates in order, units of a set in order).
"""

import re
from itertools import combinations
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    create_model,
    field_validator,
    model_serializer,
    model_validator,
)

from raysearch.causal import EVERY
from raysearch.core.featurizers import IDENTITY, featurizers, is_fitted, kind_of
from raysearch.core.hypothesis import Site, Subspace, Unit, canonical_json, is_in_layers
from raysearch.core.key_types import Count, Keys, Positive, at_most
from raysearch.core.pydantic_words import brief
from raysearch.core.space import COMPONENTS
from raysearch.job.position_keys import PositionKey, declared, position_name
from raysearch.suggest import did_you_mean

GRID = ("layers", "components", "heads", "positions", "subspaces")
"""The keys that make the grid."""

_MODULE_PATH = re.compile(r"([\w-]|\{layer\})+(\.([\w-]|\{layer\})+)*")


_IN_AN_EDITOR = r"^([\w{}-]+(\.[\w{}-]+)+|(?!resid|block_|embedd|attention_|mlp_|heads|quer|keys|values)[\w-]+)$"
"""A module's path in the JSON Schema: of one name too, but not one that looks like a component that
is misspelt."""


def _known_component(name: str) -> str:
    """A module's path of one name, without a dot, means its output. Whether the model has it, only
    the model knows."""
    if name in COMPONENTS:
        return name
    if not _MODULE_PATH.fullmatch(name):
        raise ValueError(
            f"{name!r} is no module path; write it as in model.layers.{{layer}}.mlp.gate_proj.input"
        )
    if "." in name:
        return name
    near = did_you_mean(name, [c for c in COMPONENTS if name not in c], cutoff=0.75)
    if near:
        raise ValueError(
            f"{name!r} is no component; {near}it may be "
            f"{', '.join(COMPONENTS)} or a dotted module path (a module "
            f"that is called so: {name}.output)"
        )
    return f"{name}.output"


Component = Annotated[
    str,
    AfterValidator(_known_component),
    WithJsonSchema(
        {"anyOf": [{"enum": [*COMPONENTS]}, {"type": "string", "pattern": _IN_AN_EDITOR}]},
    ),
]


MOST_OF_A_KIND = 10**6
"""Layers or coordinates in a range: no network has as many, and they are listed."""


class _Range(Keys):
    _holds: ClassVar[str]
    from_: Count = Field(alias="from", description="The first.")
    to: Annotated[Count, at_most(MOST_OF_A_KIND)] = Field(description="The last, itself included.")

    @model_validator(mode="after")
    def _rises(self) -> "_Range":
        if self.to < self.from_:
            raise ValueError(
                f"from {self.from_} to {self.to} holds no {self._holds}; give from <= to"
            )
        return self


class LayerRange(_Range):
    """Layers from `from` to `to`, both included, every `step`."""

    _holds = "layer"
    step: Positive = Field(default=1, description="Every so many.")


class CoordinateRange(_Range):
    """Coordinates from `from` to `to`, both included."""

    _holds = "coordinate"


class CoordinatesKeys(Keys):
    """These coordinates of the vector, of the head where the site has one."""

    coordinates: Annotated[tuple[Count, ...], Field(min_length=1)] | CoordinateRange = Field(
        description="Which, counted from 0."
    )

    @field_validator("coordinates")
    @classmethod
    def _nothing_twice(
        cls, given: tuple[int, ...] | CoordinateRange
    ) -> tuple[int, ...] | CoordinateRange:
        if isinstance(given, tuple) and len(set(given)) < len(given):
            raise ValueError(
                f"names {next(c for c in given if given.count(c) > 1)} twice; name each once"
            )
        return given


class _Choice(CoordinatesKeys):
    """One kind of subspace, by its only key; of those that come in sizes, these sizes."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    coordinates: Annotated[tuple[Count, ...], Field(min_length=1)] | CoordinateRange | None = Field(  # type: ignore[assignment]
        default=None, description="These of the vector, of the head where the site has one."
    )

    @model_validator(mode="after")
    def _one(self) -> "_Choice":
        given = [name for name, value in self if value is not None]
        if len(given) != 1:
            raise ValueError(
                f"names {', '.join(given) or 'nothing'}; give one kind of subspace an item, such "
                f"as {{das: [1, 4]}}"
            )
        return self

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}

    @property
    def subspaces(self) -> tuple[Subspace, ...]:
        """One for each size; coordinates in rising order."""
        if self.coordinates is not None:
            return (coordinates_of(self.coordinates),)
        ((name, written),) = [(name, value) for name, value in self if value is not None]
        return tuple(Subspace(name, **fields) for fields in kind_of(name).choices(written))


_BY_A_WORD = [kind for kind in featurizers().values() if kind.is_word]
"""The featurizers that a job names by a word alone."""

_FIELDS: dict[str, Any] = {
    kind.name: (kind.job_type | None, Field(default=None, description=kind.summary))
    for kind in featurizers().values()
    if kind is not IDENTITY and not kind.is_word
}
SubspaceChoice: Any = create_model(
    "SubspaceChoice", __base__=_Choice, __doc__=_Choice.__doc__, **_FIELDS
)
if TYPE_CHECKING:
    SubspaceKeys = str | _Choice
else:
    SubspaceKeys = Literal["full", *(kind.name for kind in _BY_A_WORD)] | SubspaceChoice


def _is_plain(given: Any) -> Any:
    """Refuses a kind of subspace that a grid may have and a unit may not."""
    kind = next(iter(given), None) if isinstance(given, dict) else given
    if kind != "coordinates" and kind in featurizers() and kind != IDENTITY.name:
        raise ValueError(
            f"not yet supported by this version (got {brief(given)}); use full or coordinates"
        )
    return given


PlainSubspaceKeys = Annotated[Literal["full"] | CoordinatesKeys, BeforeValidator(_is_plain)]


def subspaces_of(keys: SubspaceKeys | PlainSubspaceKeys) -> tuple[Subspace, ...]:
    """The subspaces that a job names."""
    if isinstance(keys, _Choice):
        return keys.subspaces
    if isinstance(keys, CoordinatesKeys):
        return (coordinates_of(keys.coordinates),)
    return (Subspace() if keys == "full" else Subspace(keys),)


def coordinates_of(given: tuple[int, ...] | CoordinateRange) -> Subspace:
    """The subspace of these coordinates, in rising order."""
    chosen = (
        range(given.from_, given.to + 1) if isinstance(given, CoordinateRange) else sorted(given)
    )
    return Subspace(coordinates=tuple(chosen))


class SourceSiteKeys(Keys):
    """The site of the source that a unit is taken from; what is left out is as in the unit's own."""

    layer: Count | None = Field(default=None, description="Its layer.")
    component: Component | None = Field(default=None, description="Its component.")
    head: Count | None = Field(default=None, description="Its head.")
    position: PositionKey | None = Field(default=None, description="Its position.")

    def site(self, own: Site) -> Site:
        """The site, for a unit at `own`."""
        component = own.component if self.component is None else self.component
        inherited = own.layer if is_in_layers(component) else None
        layer = inherited if self.layer is None else self.layer
        head = own.head if self.head is None else self.head
        return Site(
            layer,
            component,
            own.position if self.position is None else position_name(self.position),
            head,
        )


class UnitKeys(Keys):
    """One unit of an explicit set."""

    layer: Count | None = Field(
        default=None,
        description="Counted from 0; left out for a component that the model has once.",
    )
    component: Component = Field(
        default="residual", description="Which activation, as in `space.components`."
    )
    head: Count | None = Field(
        default=None, description="Of a component that has heads; null: all of it."
    )
    position: PositionKey = Field(description="A position, as in `space.positions`.")
    subspace: PlainSubspaceKeys = Field(
        default="full", description="Which part of the vector; full: all of it."
    )
    source_site: SourceSiteKeys | None = Field(
        default=None, description="Where the source lends it from, if that is another site."
    )
    source: str | None = Field(
        default=None, description="Which source lends it, of pairs that have several."
    )

    @field_validator("subspace", mode="before")
    @classmethod
    def _is_plain(cls, given: Any) -> Any:
        named = next(iter(given), None) if isinstance(given, dict) else given
        if isinstance(named, str) and named in featurizers():
            raise ValueError(
                f"not yet supported by this version (got {brief(given)}); use full or coordinates"
            )
        return given

    @model_validator(mode="after")
    def _has_layer(self) -> "UnitKeys":
        if self.layer is None and is_in_layers(self.component):
            raise ValueError(f"layer is missing; a unit of {self.component} needs it")
        return self

    def unit(self) -> Unit:
        """The unit. A source site that is its own site is none."""
        own = Site(self.layer, self.component, position_name(self.position), self.head)
        lender = None if self.source_site is None else self.source_site.site(own)
        return Unit(
            own, subspaces_of(self.subspace)[0], None if lender == own else lender, self.source
        )


class SpaceKeys(Keys):
    """Where to look: a grid (all that it names is tried in every combination), and explicit sets of
    units. With `units` and no key of the grid, only the units are searched."""

    variables: Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        default=None, description="Which variables of the causal model; null: all."
    )
    layers: Literal["all"] | Annotated[tuple[Count, ...], Field(min_length=1)] | LayerRange = Field(
        default="all", description="Counted from 0: a list, or a range."
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
                *(f"{kind.name}: {kind.summary.rstrip('.')}" for kind in _BY_A_WORD),
            ]
        )
        + ".",
    )
    units: tuple[Annotated[tuple[UnitKeys, ...], Field(min_length=1)], ...] = Field(
        default=(), description="Sets of units, each set interchanged at once."
    )

    @property
    def position_names(self) -> tuple[str, ...] | None:
        """Those of the grid, as the engine is asked for them; None: all that the problem names."""
        if self.positions is None:
            return None
        return (EVERY,) if self.positions == "all" else tuple(map(position_name, self.positions))

    @property
    def declared(self) -> dict[str, tuple[int, ...]]:
        """The positions that the job itself gives tokens, by index."""
        written = list(self.positions) if isinstance(self.positions, tuple) else []
        for keys in (keys for units in self.units for keys in units):
            written += [
                p for p in (keys.position, keys.source_site and keys.source_site.position) if p
            ]
        return declared(written)

    @property
    def meant_subspaces(self) -> tuple[Subspace, ...]:
        """The subspaces of the grid, one by one."""
        return tuple(subspace for keys in self.subspaces for subspace in subspaces_of(keys))

    @property
    def sae_paths(self) -> tuple[str, ...]:
        """The paths of sparse autoencoders, as written."""
        return tuple(dict.fromkeys(s.file for s in self.meant_subspaces if s.file is not None))

    @property
    def is_fitted(self) -> bool:
        """Whether any subspace is fit to pairs."""
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

    @model_validator(mode="before")
    @classmethod
    def _units_alone(cls, raw: Any) -> Any:
        """No grid where the job writes units and nothing of a grid."""
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
            for u, v in combinations([k.unit() for k in units], 2):
                if _overlap(u, v):
                    raise ValueError(
                        f"set {i} interchanges {site_words(u.site)} twice; each activation can be "
                        f"replaced once"
                    )
        seen: dict[tuple[Unit, ...], int] = {}
        for i, units in enumerate(sets):
            first = seen.setdefault(in_order(units), i)
            if first != i:
                raise ValueError(f"sets {first} and {i} are the same; give each once")
        return sets


def in_order(keys: tuple[UnitKeys, ...]) -> tuple[Unit, ...]:
    """The units of a set in the one order that they are kept in: what is interchanged at once has
    none of its own."""
    return tuple(sorted((k.unit() for k in keys), key=_place))


def site_words(site: Site) -> str:
    """A site in words, for errors."""
    head = "" if site.head is None else f" {site.head}"
    return f"{site.component}{head}{'' if site.layer is None else f' of layer {site.layer}'} at {site.position}"


def _place(unit: Unit) -> tuple[int, str, str, int, str]:
    """Where it comes in the order of a set, which its id hangs on. What is of no layer stands with
    layer 0, as it was once written."""
    site, lender = unit.site, unit.source_site
    lent = None
    if lender is not None:
        head = "" if lender.head is None else f" {lender.head}"
        lent = f"{lender.component}{head} of layer {lender.layer or 0} at {lender.position}"
    rest = [unit.subspace.coordinates, lent, unit.source]
    return (
        site.layer or 0,
        site.component,
        site.position,
        -1 if site.head is None else site.head,
        canonical_json(rest),
    )


def _overlap(u: Unit, v: Unit) -> bool:
    """Whether two units replace some of the same numbers. Heads lie within the whole vector; where
    exactly, only the model knows."""
    a, b = u.site, v.site
    if (a.layer, a.component, a.position) != (b.layer, b.component, b.position):
        return False
    if a.head != b.head:
        return a.head is None or b.head is None
    chosen, others = u.subspace.coordinates, v.subspace.coordinates
    return chosen is None or others is None or bool(set(chosen) & set(others))
