"""Hypotheses: site, subspace, unit, intervention, hypothesis; frozen values with an id that names
their content.

Invariants: equal content, equal id, on every machine and in every run (no seed, no path).
"""

import hashlib
import json
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from raysearch.core.featurizers import is_fitted


def is_in_layers(component: str) -> bool:
    """Whether each layer has its own; a model has the embedding, and a module whose path names no
    `{layer}`, once."""
    return component != "embedding" and ("." not in component or "{layer}" in component)


def layer_of(component: str, layer: int | None) -> int | None:
    """The layer of a component as sites name it: None for 0 where it is of no layer, as it was
    written once."""
    return None if layer == 0 and not is_in_layers(component) else layer


@dataclass(frozen=True)
class Site:
    """A place in a network where an activation is: layer (from 0), component (e.g. "residual": the
    block's output), named position.

    `head`: one head of a component that has them (from 0); None: the whole vector. A component that
    the model has once (the embedding, a module whose path names no layer) is of no layer: None.
    Layer 0, as it was written before, is read as that.
    """

    layer: int | None
    component: str
    position: str
    head: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "layer", layer_of(self.component, self.layer))

    @property
    def called(self) -> str:
        """Component, head and layer in words, for errors: "value head 3 in layer 7"."""
        head = "" if self.head is None else f" head {self.head}"
        return f"{self.component}{head}" + ("" if self.layer is None else f" in layer {self.layer}")


@dataclass(frozen=True)
class Subspace:
    """A part of the vector at a site: a featurizer, and how many of its features (None: all).

    Identity with all features is the whole vector.

    `coordinates`: with "identity", only these coordinates of the vector (of the head, where the
    site names one), from 0; with "sae", only these of its features. `basis`: over which features a
    "mask" lies (coordinates, pca, sae, heads). `file`: the digest of a sparse autoencoder's
    safetensors (with the cfg.json beside it), never its path. `options`: what else its featurizer is
    given, as JSON; None where it takes no options (see `FeaturizerKind`).
    """

    featurizer: str = "identity"
    features: int | None = None
    coordinates: tuple[int, ...] | None = None
    basis: str | None = None
    file: str | None = None
    options: str | None = None


@dataclass(frozen=True)
class Unit:
    """One thing that is interchanged: a subspace at a site; `source_site` where it is taken from
    another site of the source.

    `source`: which of the pair's sources lends it, by name (None: the only one).
    """

    site: Site
    subspace: Subspace = Subspace()
    source_site: Site | None = None
    source: str | None = None


@dataclass(frozen=True)
class Intervention:
    """An intervention: the units that are changed at once, by `kind` (an `Operation` of
    core/choices.py). `control` names the control that it stands for, if any.

    `variable`: for which a subspace of it is fit to pairs; None where nothing is, and all variables
    share it. `fit`: the digest of what was fit, once it is; it is no part of what is asked, so not
    of the id.
    """

    units: tuple[Unit, ...]
    kind: str = "interchange"
    control: str | None = None
    variable: str | None = None
    fit: str | None = None

    @property
    def is_ablation(self) -> bool:
        """Whether it takes nothing from the pair's source. Its hypothesis is one of necessity: the
        output is no longer the base's answer."""
        return self.kind != "interchange"

    @property
    def is_fitted(self) -> bool:
        """Whether a subspace of it is fit to pairs before it can be measured."""
        return any(is_fitted(unit.subspace.featurizer) for unit in self.units)

    @cached_property
    def id(self) -> str:
        """The first 16 hex digits of the SHA-256 of the canonical JSON."""
        return content_id(_asked(self))

    @property
    def key(self) -> str:
        """Its name in tasks and events: the id, and the digest of what was fit, if anything was."""
        return self.id if self.fit is None else f"{self.id}@{self.fit}"


@dataclass(frozen=True)
class Hypothesis:
    """The claim that one variable of the causal model lives where one intervention is made."""

    variable: str
    intervention: Intervention

    @cached_property
    def id(self) -> str:
        """The first 16 hex digits of the SHA-256 of the canonical JSON."""
        return content_id({"variable": self.variable, "intervention": _asked(self.intervention)})


def of_layer(path: str, layer: int | None) -> str:
    """The path of a layer's file, of one in which `{layer}` stands for it: 0 for what is of no
    layer."""
    return path.replace("{layer}", str(layer or 0))


def split_key(key: str) -> tuple[str, str | None]:
    """(id, fit) of an intervention's key."""
    name, _, fit = key.partition("@")
    return name, fit or None


_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
)


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no blanks: one text for one content."""
    return _ENCODER.encode(value)


def content_id(value: Any) -> str:
    """The first 16 hex digits of the SHA-256 of the canonical JSON of `value`."""
    return content_id_of_text(canonical_json(value))


def content_id_of_text(text: str | bytes) -> str:
    """The `content_id` of what has `text` as its canonical JSON."""
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()[:16]


def as_plain(value: Any) -> Any:
    """Returns what `dataclasses.asdict` makes of a site, a subspace, units or an intervention.

    It takes a seventh of the time: a search makes an id of each hypothesis, twice where it resumes.
    Options of a subspace without any are left out, so that ids stay what they were before there
    were options.
    """
    if type(value) is tuple:
        return tuple([as_plain(v) for v in value])
    names = _FIELDS.get(type(value))
    if names is None:
        return value
    plain = {name: as_plain(getattr(value, name)) for name in names}
    if type(value) is Subspace and value.options is None:
        del plain["options"]
    return plain


_FIELDS = {cls: tuple(f.name for f in fields(cls)) for cls in (Site, Subspace, Unit, Intervention)}


def _asked(intervention: Intervention) -> dict[str, Any]:
    """Without what is no part of the question. What is of no layer counts as of layer 0: ids are
    what they were when that was written."""
    plain: dict[str, Any] = as_plain(intervention)
    del plain["fit"]
    for unit in plain["units"]:
        for site in (unit["site"], unit["source_site"]):
            if site is not None and site["layer"] is None:
                site["layer"] = 0
    return plain
