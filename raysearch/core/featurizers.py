"""The list of featurizers: name, options, how each is made, and its description.

The job schema, error texts, the README of an exported intervention, the docs, the engine and the
search all read this list. The mathematics of each is one class of the engine, named by
`implementation`. An installed package adds featurizers by entry points of the group
`raysearch.featurizers`, each of which names a FeaturizerKind.

Invariants: nothing here imports torch; a name stands for one featurizer.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter, create_model, model_validator

from raysearch import plugins
from raysearch.core.key_types import Count, Keys, Positive
from raysearch.errors import JobError
from raysearch.visible_text import one_line

log = logging.getLogger(__name__)

FULL = "full"
"""What jobs, tables, pages and pictures call the subspace that is the whole vector."""
GROUP = "raysearch.featurizers"
"""Group of entry points by which packages add featurizers."""

Sizes = Annotated[tuple[Positive, ...], Field(min_length=1)]


class Options(Keys):
    """Takes no options."""

    def choices(self) -> tuple[dict[str, Any], ...]:
        """Returns the fields that each subspace of a job sets in `Subspace`, besides its name.

        The values of all options are one field, as JSON; sizes make one subspace each.
        """
        options = self.model_dump_json(exclude={"sizes"})
        return tuple(
            {"features": size, **({} if options == "{}" else {"options": options})}
            for size in getattr(self, "sizes", (None,))
        )


class MaskOptions(Options):
    """The features among which a mask chooses."""

    over: Literal["coordinates", "heads", "pca"] = Field(
        default="coordinates", description="Whose coordinates are masked, one by one."
    )
    size: Positive | None = Field(
        default=None, description="How many principal components there are, with pca."
    )

    @model_validator(mode="after")
    def _sized(self) -> "MaskOptions":
        if (self.over == "pca") != (self.size is not None):
            raise ValueError(
                "size says how many principal components there are: give it with over: pca, and "
                "only there"
            )
        return self

    def choices(self) -> tuple[dict[str, Any], ...]:
        return ({"features": self.size, "basis": self.over},)


class SaeOptions(Options):
    """A sparse autoencoder in safetensors. A cfg.json in the folder of the file, as SAELens writes
    it, is read too and belongs to it."""

    path: str = Field(
        description="One file for each layer (`{layer}` in the path stands for it), or one for all."
    )
    features: Annotated[tuple[Count, ...], Field(min_length=1)] | None = Field(
        default=None, description="Which of its features; null: all."
    )

    def choices(self) -> tuple[dict[str, Any], ...]:
        chosen = None if self.features is None else tuple(sorted(self.features))
        return ({"coordinates": chosen, "file": self.path},)


@dataclass(frozen=True, kw_only=True)
class FeaturizerKind:
    """One featurizer: what a job may ask of it, and how it is described.

    A job writes its bare `name` if it has neither sizes nor options, `{name: [1, 4]}` if it has
    sizes only, and otherwise `{name: {option: value}}`, with `sizes` among the options of a sized
    one.
    """

    name: str
    fitted: Literal["given", "closed_form", "trained"]
    """"given" is made without pairs, "closed_form" is computed from activations on fit pairs,
    "trained" is trained in steps on fit pairs, for one variable.
    """
    implementation: str
    """Its class, "module:Class", a subclass of
    `raysearch.engine.featurizers.featurizer.Featurizer`.
    """
    summary: str
    """Description for the author of a job."""
    formula: str = ""
    """Formula of its interchange, for the reader of an export: x is the base's vector, y the
    source's, of all tokens of the unit.
    """
    sized: bool = False
    """True if a job chooses the number of features."""
    options: type[Options] | None = None
    example: str = ""
    """Example of what a job may write after its name, if that is no list of sizes."""
    labelled: bool = False
    """True if it is computed from the class of each activation too."""
    nested: bool = False
    """True if training of a smaller one may start within a larger one (`within` of its class)."""
    indexed: bool = False
    """True if its features may be chosen by index (`Subspace.coordinates`)."""

    @property
    def is_fitted(self) -> bool:
        return self.fitted != "given"

    @property
    def is_word(self) -> bool:
        """Says whether a job writes its bare name."""
        return self is not IDENTITY and self.options is None and not self.sized

    @property
    def job_type(self) -> Any:
        """Type of the value that a job writes after the name."""
        if self.options is None:
            return Sizes
        if not self.sized:
            return self.options
        sizes = (Sizes, Field(description="How many features: one subspace for each."))
        doc = self.options.__doc__
        return create_model(self.options.__name__, __base__=self.options, __doc__=doc, sizes=sizes)

    def choices(self, written: Any) -> tuple[dict[str, Any], ...]:
        """Returns the fields of `Subspace` that each subspace sets, from the value in a job."""
        if isinstance(written, Options):
            return written.choices()
        return tuple({"features": size} for size in written)

    def read_options(self, written: str | None) -> Options | None:
        """Returns the options of a subspace, from `Subspace.options`.

        Raises:
            ValueError: they are invalid.
        """
        if self.options is None or written is None:
            return None
        return self.options.model_validate_json(written)

    @property
    def in_a_job(self) -> str:
        """An example of how a job writes it, for errors and docs."""
        if self.is_word:
            return self.name
        return f"{{{self.name}: {self.example or ('[8]' if self.options is None else '{}')}}}"


_ENGINE = "raysearch.engine.featurizers"
IDENTITY = FeaturizerKind(
    name="identity",
    fitted="given",
    implementation=f"{_ENGINE}.identity:Identity",
    summary="The vector as it is (full), or some of its coordinates.",
    indexed=True,
)
"""The only featurizer that a job does not call by name: it writes full, or coordinates."""

FEATURIZERS = (
    IDENTITY,
    FeaturizerKind(
        name="das",
        fitted="trained",
        implementation=f"{_ENGINE}.rotation:Rotation",
        summary="A trained rotation: so many of its directions.",
        formula="k trained directions R (`directions`, orthonormal): x ← x + (y - x) R Rᵀ.",
        sized=True,
        example="[1, 4]",
        nested=True,
    ),
    FeaturizerKind(
        name="boundless",
        fitted="trained",
        implementation=f"{_ENGINE}.boundless:Boundless",
        summary="A rotation of the whole vector with a learned boundary.",
        formula="a trained rotation R (`directions`) and its soft boundary m: x ← x + ((y - x) R * "
        "m) Rᵀ.",
        options=Options,
    ),
    FeaturizerKind(
        name="boundless_rank",
        fitted="trained",
        implementation=f"{_ENGINE}.boundless:BoundlessRank",
        summary="So many trained directions, of which those within a learned boundary.",
        formula="trained directions R (`directions`), of which those within the learned boundary "
        "are interchanged.",
        sized=True,
        example="[16]",
    ),
    FeaturizerKind(
        name="mask",
        fitted="trained",
        implementation=f"{_ENGINE}.mask:Mask",
        summary="A learned choice among the features of a basis.",
        formula="the features of a basis whose trained `theta` is above 0 are interchanged, the "
        "others stay.",
        options=MaskOptions,
        example="{over: coordinates}",
    ),
    FeaturizerKind(
        name="pca",
        fitted="closed_form",
        implementation=f"{_ENGINE}.closed_form:Pca",
        summary="So many principal components of the activations of fit pairs.",
        formula="principal components C (`directions`) of the standardised activations (x - "
        "`centre`)/`scale`.",
        sized=True,
    ),
    FeaturizerKind(
        name="svd",
        fitted="closed_form",
        implementation=f"{_ENGINE}.closed_form:Svd",
        summary="So many leading singular vectors of the activations of fit pairs.",
        formula="the leading right singular vectors R of the activations: x ← x + (y - x) R Rᵀ.",
        sized=True,
    ),
    FeaturizerKind(
        name="mean_difference",
        fitted="closed_form",
        implementation=f"{_ENGINE}.closed_form:MeanDifference",
        summary="The directions along which the mean activations of the variable's values differ.",
        formula="the directions R along which the class means differ: x ← x + (y - x) R Rᵀ.",
        labelled=True,
    ),
    FeaturizerKind(
        name="random",
        fitted="given",
        implementation=f"{_ENGINE}.closed_form:Random",
        summary="So many random directions, as a control.",
        formula="directions R drawn at random, which mean nothing: x ← x + (y - x) R Rᵀ.",
        sized=True,
        example="[4]",
    ),
    FeaturizerKind(
        name="sae",
        fitted="given",
        implementation=f"{_ENGINE}.sae:Sae",
        summary="Features of a sparse autoencoder.",
        formula="features of a sparse autoencoder; the base's reconstruction error stays.",
        options=SaeOptions,
        example="{path: ...}",
        indexed=True,
    ),
)
"""The featurizers of raysearch itself, in the order of docs and errors."""

_OWN = {kind.name: kind for kind in FEATURIZERS}
_RESERVED = {FULL, "coordinates", *_OWN}


def featurizers() -> Mapping[str, FeaturizerKind]:
    """Returns every featurizer by name: those of raysearch, then those of installed packages."""
    added = _added().items()
    return {**_OWN, **{name: kind for name, kind in added if isinstance(kind, FeaturizerKind)}}


def check_usable(name: object) -> None:
    """Raises: JobError if `name` is a featurizer of an installed package that cannot be used."""
    fault = None if name in _RESERVED else _added().get(str(name))
    if isinstance(fault, JobError):
        raise fault


@cache
def warn_of_unusable() -> None:
    """Warns, once in a process, of each featurizer of an installed package that cannot be used."""
    for fault in _added().values():
        if isinstance(fault, JobError):
            log.warning("%s; only what names it is refused", fault)


@cache
def _added() -> Mapping[str, FeaturizerKind | JobError]:
    """Returns what installed packages add, by name; an error where it cannot be used."""
    return {
        name: kind if isinstance(kind, JobError) else _checked(name, kind)
        for name, kind in plugins.load_all(GROUP, _RESERVED).items()
    }


def _checked(name: str, kind: object) -> FeaturizerKind | JobError:
    if not isinstance(kind, FeaturizerKind) or kind.name != name or not _is_key(name):
        return JobError(
            f"entry point {name!r} of {GROUP}: is {kind!r:.80}; it must be a FeaturizerKind of "
            f"raysearch.core.featurizers called {name!r}, in small letters, digits, underscores"
        )
    try:
        TypeAdapter(kind.job_type)
    except Exception as e:  # noqa: BLE001  of pydantic, or of the package's own types
        return JobError(
            f"entry point {name!r} of {GROUP}: its options cannot be read ({type(e).__name__}: "
            f"{one_line(e)}); they must be a subclass of raysearch.core.featurizers.Options"
        )
    return kind


def _is_key(name: str) -> bool:
    """Says whether a model of keys can have a key of that name."""
    return bool(re.fullmatch(r"[a-z][a-z0-9_]*", name)) and not hasattr(BaseModel, name)


def kind_of(name: str) -> FeaturizerKind:
    """Returns the featurizer of that name.

    Raises:
        JobError: there is none, or it cannot be used.
    """
    kind = _OWN.get(name) or featurizers().get(name)
    if kind is None:
        check_usable(name)
        raise JobError(f"{name!r} is no featurizer; use {', '.join(featurizers())}")
    return kind


def is_fitted(name: str) -> bool:
    """Says whether a featurizer must be fit to pairs before it can be measured."""
    return kind_of(name).is_fitted


def is_trained(name: str) -> bool:
    """Says whether a featurizer is trained on fit pairs, step by step, for one variable."""
    return kind_of(name).fitted == "trained"


def is_closed_form(name: str) -> bool:
    """Says whether a featurizer is computed from activations on fit pairs, without steps."""
    return kind_of(name).fitted == "closed_form"


def names(fitted: str) -> list[str]:
    """Returns the names of the featurizers with this value of `FeaturizerKind.fitted`."""
    return [kind.name for kind in featurizers().values() if kind.fitted == fitted]
