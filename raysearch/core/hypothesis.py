"""Hypotheses and their parts (site, subspace, unit, intervention): frozen values with a content id.

Invariants: equal content gives an equal id, on every machine and in every run (no seed, no path).
"""

import hashlib
import json
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from raysearch.core.control_kinds import ControlKind, control_kind
from raysearch.core.featurizers import is_fitted


def is_in_layers(component: str) -> bool:
    """Says whether each layer has the component.

    A model has the embedding, and a module whose path has no `{layer}`, only once.
    """
    return component != "embedding" and ("." not in component or "{layer}" in component)


def layer_of(component: str, layer: int | None) -> int | None:
    """Returns the layer as sites name it: None instead of 0 for a component without layers (older
    runs wrote 0).
    """
    return None if layer == 0 and not is_in_layers(component) else layer


@dataclass(frozen=True)
class Site:
    """A place in a network where an activation is: layer (from 0), component, named position.

    A component is e.g. "residual", the block's output. One that the model has only once (the
    embedding, a module whose path has no `{layer}`) has layer None; layer 0, which older runs
    wrote, is read as None. `head` is one head of a component that has heads (from 0); None is the
    whole vector.
    """

    layer: int | None
    component: str
    position: str
    head: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "layer", layer_of(self.component, self.layer))

    @property
    def description(self) -> str:
        """Component, head and layer in words, for errors: "value head 3 in layer 7"."""
        head = "" if self.head is None else f" head {self.head}"
        return f"{self.component}{head}" + ("" if self.layer is None else f" in layer {self.layer}")


@dataclass(frozen=True)
class Subspace:
    """A part of the vector at a site: a featurizer, and the number of its features (None: all).

    Identity with all features is the whole vector.

    Args:
        coordinates: for "identity", the coordinates of the vector (of the head, if the site names
            one), from 0; for "sae", the features.
        basis: the features over which a "mask" is learned (coordinates, pca, sae, heads).
        file: digest of a sparse autoencoder's safetensors file with the cfg.json beside it, never
            its path.
        options: what else its featurizer is given, as JSON; None where it takes no options (see
            `FeaturizerKind`).
    """

    featurizer: str = "identity"
    features: int | None = None
    coordinates: tuple[int, ...] | None = None
    basis: str | None = None
    file: str | None = None
    options: str | None = None


@dataclass(frozen=True)
class Unit:
    """One thing that is interchanged: a subspace at a site.

    Args:
        source_site: the site of the source that the activation is taken from, if it is another.
        source: name of the source that it is taken from; None if the pair has only one.
    """

    site: Site
    subspace: Subspace = Subspace()
    source_site: Site | None = None
    source: str | None = None


@dataclass(frozen=True)
class Intervention:
    """An intervention: the units that are changed at once, by `kind` (an `OperationName`).

    Args:
        control: the control that it stands for, if any.
        variable: the variable for which a subspace is fit; None if nothing is fit, so that all
            variables share it.
        fit: digest of what was fit, once it is. It is not part of the question, so not of the id.
    """

    units: tuple[Unit, ...]
    kind: str = "interchange"
    control: str | None = None
    variable: str | None = None
    fit: str | None = None

    @property
    def control_kind(self) -> ControlKind:
        """The kind of its control; one that changes nothing, if it is no control."""
        return control_kind(self.control)

    @property
    def is_ablation(self) -> bool:
        """Says whether it takes nothing from the pair's source. Its hypothesis is one of necessity:
        the output is no longer the base's answer."""
        return self.kind != "interchange"

    @property
    def is_fitted(self) -> bool:
        """Says whether a subspace must be fit to pairs before it can be measured."""
        return any(is_fitted(unit.subspace.featurizer) for unit in self.units)

    @cached_property
    def id(self) -> str:
        """The first 16 hex digits of the SHA-256 of the canonical JSON."""
        return content_id(_id_content(self))

    @property
    def key(self) -> str:
        """Name in tasks and events: the id, and the digest of what was fit, if anything was."""
        return self.id if self.fit is None else f"{self.id}@{self.fit}"


@dataclass(frozen=True)
class Hypothesis:
    """The claim that one variable of the causal model is located where one intervention is made."""

    variable: str
    intervention: Intervention

    @cached_property
    def id(self) -> str:
        """The first 16 hex digits of the SHA-256 of the canonical JSON."""
        return content_id(
            {"variable": self.variable, "intervention": _id_content(self.intervention)}
        )


def layer_path(path: str, layer: int | None) -> str:
    """Returns the path of a layer's file: `{layer}` in `path` becomes the layer, or 0 without
    layers.
    """
    return path.replace("{layer}", str(layer or 0))


def split_key(key: str) -> tuple[str, str | None]:
    """Splits an intervention's key into (id, fit)."""
    name, _, fit = key.partition("@")
    return name, fit or None


_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
)


def canonical_json(value: Any) -> str:
    """Returns JSON with sorted keys and no blanks: one text for one content."""
    return _ENCODER.encode(value)


def content_id(value: Any) -> str:
    """Returns the first 16 hex digits of the SHA-256 of the canonical JSON of `value`."""
    return content_id_of_text(canonical_json(value))


def content_id_of_text(text: str | bytes) -> str:
    """Returns the `content_id` of the value whose canonical JSON is `text`."""
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()[:16]


def to_plain(value: Any) -> Any:
    """Does what `dataclasses.asdict` does for sites, subspaces, units and interventions, in a
    seventh of its time.

    A search makes an id of every hypothesis, and a resumed one makes it twice. A subspace without
    options has no such field, so that ids are the same as before there were options.
    """
    if type(value) is tuple:
        return tuple([to_plain(v) for v in value])
    names = _FIELDS.get(type(value))
    if names is None:
        return value
    plain = {name: to_plain(getattr(value, name)) for name in names}
    if type(value) is Subspace and value.options is None:
        del plain["options"]
    return plain


_FIELDS = {cls: tuple(f.name for f in fields(cls)) for cls in (Site, Subspace, Unit, Intervention)}


def _id_content(intervention: Intervention) -> dict[str, Any]:
    """Returns the part of an intervention that its id covers.

    Layer None counts as layer 0, which keeps the ids of runs that wrote 0.
    """
    plain: dict[str, Any] = to_plain(intervention)
    del plain["fit"]
    for unit in plain["units"]:
        for site in (unit["site"], unit["source_site"]):
            if site is not None and site["layer"] is None:
                site["layer"] = 0
    return plain
