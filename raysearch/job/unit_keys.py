"""The keys of a unit of an explicit set: one site, a part of its vector, and what is done to it.

Invariants: what is the same has one form (units of a set in order).
"""

import re
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    model_serializer,
    model_validator,
)

from raysearch.core.hypothesis import Intervention, Site, Unit, canonical_json, is_in_layers
from raysearch.core.key_types import Count, Keys
from raysearch.core.option_names import OPERATIONS, OperationName, meanings_text
from raysearch.core.space import COMPONENTS
from raysearch.job.position_keys import PositionKey, position_name
from raysearch.job.subspace_keys import PlainSubspaceKeys, subspaces_of
from raysearch.suggest import did_you_mean

_MODULE_PATH = re.compile(r"([\w-]|\{layer\})+(\.([\w-]|\{layer\})+)*")


_IN_AN_EDITOR = (
    r"^([\w{}-]+(\.[\w{}-]+)+"
    r"|(?!resid|block_|embedd|attention_|mlp_|heads|quer|keys|values)[\w-]+)$"
)
"""A module's path in the JSON Schema: of one name too, but not one that looks like a component that
is misspelt."""


def component_name(name: str) -> str:
    """Lets a module's path of one name, without a dot, mean its output. Only the model knows
    whether it has that module. Raises: ValueError for what is neither."""
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
            f"{name!r} is no component; {near}it may be {', '.join(COMPONENTS)} or a dotted module "
            f"path (a module that is called so: {name}.output)"
        )
    return f"{name}.output"


Component = Annotated[
    str,
    AfterValidator(component_name),
    WithJsonSchema(
        {"anyOf": [{"enum": [*COMPONENTS]}, {"type": "string", "pattern": _IN_AN_EDITOR}]},
    ),
]


class SourceSiteKeys(Keys):
    """The site of the source that a unit is taken from; what is left out is as in the unit's
    own."""

    layer: Count | None = Field(default=None, description="Its layer.")
    component: Component | None = Field(default=None, description="Its component.")
    head: Count | None = Field(default=None, description="Its head.")
    position: PositionKey | None = Field(default=None, description="Its position.")

    def site(self, own: Site) -> Site:
        """Returns the site, for a unit at `own`."""
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
        default=None,
        description="The site of the source whose activation is put in, if that is another one.",
    )
    source: str | None = Field(
        default=None,
        description="The source whose activation is put in, of pairs that have several.",
    )
    operation: OperationName = Field(
        default="interchange",
        description=f"What is done to the unit: {meanings_text(OPERATIONS)}. An ablation takes "
        "nothing from the source, and is accepted where the output is no longer the base's answer "
        "(necessity). All units of a set have one.",
    )

    @model_validator(mode="after")
    def _has_layer(self) -> "UnitKeys":
        if self.layer is None and is_in_layers(self.component):
            raise ValueError(f"layer is missing; a unit of {self.component} needs it")
        return self

    @model_validator(mode="after")
    def _takes_from_no_source(self) -> "UnitKeys":
        named = [k for k in ("source_site", "source") if getattr(self, k) is not None]
        if self.operation != "interchange" and named:
            raise ValueError(
                f"{named[0]} says where a source's activation is taken from, and operation: "
                f"{self.operation} takes none; leave one of the two out"
            )
        return self

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Writes a unit without the operation of an interchange: as it was before there were
        others."""
        written: dict[str, Any] = handler(self)
        if self.operation == "interchange":
            del written["operation"]
        return written

    def unit(self) -> Unit:
        """Returns the unit. A source site that is its own site is left out."""
        own = Site(self.layer, self.component, position_name(self.position), self.head)
        source_site = None if self.source_site is None else self.source_site.site(own)
        return Unit(
            own,
            subspaces_of(self.subspace)[0],
            None if source_site == own else source_site,
            self.source,
        )


def intervention_of(keys: tuple[UnitKeys, ...]) -> Intervention:
    """Returns the intervention of a set. Its units are in one order, for what is changed at once
    has none of its own."""
    return Intervention(tuple(sorted((k.unit() for k in keys), key=_place)), keys[0].operation)


def site_words(site: Site) -> str:
    """Returns a site in words, for errors."""
    head = "" if site.head is None else f" {site.head}"
    layer = "" if site.layer is None else f" of layer {site.layer}"
    return f"{site.component}{head}{layer} at {site.position}"


def _place(unit: Unit) -> tuple[int, str, str, int, str]:
    """Returns the sort key of a unit in its set, on which the set's id depends. What is of no layer
    stands with layer 0, as it was once written."""
    site, source_site = unit.site, unit.source_site
    replacement = None
    if source_site is not None:
        head = "" if source_site.head is None else f" {source_site.head}"
        layer = source_site.layer or 0
        replacement = f"{source_site.component}{head} of layer {layer} at {source_site.position}"
    rest = [unit.subspace.coordinates, replacement, unit.source]
    return (
        site.layer or 0,
        site.component,
        site.position,
        -1 if site.head is None else site.head,
        canonical_json(rest),
    )


def overlap(u: Unit, v: Unit) -> bool:
    """Says whether two units replace some of the same numbers. Heads lie within the whole vector;
    where exactly, only the model knows."""
    a, b = u.site, v.site
    if (a.layer, a.component, a.position) != (b.layer, b.component, b.position):
        return False
    if a.head != b.head:
        return a.head is None or b.head is None
    chosen, others = u.subspace.coordinates, v.subspace.coordinates
    return chosen is None or others is None or bool(set(chosen) & set(others))
