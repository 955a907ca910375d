"""The keys of a subspace: which part of a vector, by coordinates or by a featurizer.

Invariants: what is the same has one form (coordinates in order); each featurizer of
`core/featurizers.py` is a key, those of installed packages too.
"""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    create_model,
    field_validator,
    model_serializer,
    model_validator,
)

from raysearch.core.featurizers import IDENTITY, check_usable, featurizers, kind_of
from raysearch.core.hypothesis import Subspace
from raysearch.core.key_types import Count, Keys, at_most
from raysearch.core.pydantic_words import brief
from raysearch.errors import JobError

MOST_OF_A_KIND = 10**6
"""Layers or coordinates in a range: no network has as many, and they are listed."""


class IndexRange(Keys):
    """Whole numbers from `from` to `to`, both included."""

    _holds: ClassVar[str]
    from_: Count = Field(alias="from", description="The first.")
    to: Annotated[Count, at_most(MOST_OF_A_KIND)] = Field(description="The last, itself included.")

    @model_validator(mode="after")
    def _rises(self) -> "IndexRange":
        if self.to < self.from_:
            raise ValueError(
                f"from {self.from_} to {self.to} holds no {self._holds}; give from <= to"
            )
        return self


class CoordinateRange(IndexRange):
    """Coordinates from `from` to `to`, both included."""

    _holds = "coordinate"


_Coordinates = Annotated[tuple[Count, ...], Field(min_length=1)] | CoordinateRange


class CoordinatesKeys(Keys):
    """These coordinates of the vector, of the head where the site has one."""

    coordinates: _Coordinates = Field(description="Which, counted from 0.")

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

    coordinates: _Coordinates | None = Field(  # type: ignore[assignment]
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


BY_A_WORD = [kind for kind in featurizers().values() if kind.is_word]
"""The featurizers that a job names by a word alone."""

_FIELDS: dict[str, Any] = {
    kind.name: (kind.job_type | None, Field(default=None, description=kind.summary))
    for kind in featurizers().values()
    if kind is not IDENTITY and not kind.is_word
}
SubspaceChoice: Any = create_model(
    "SubspaceChoice", __base__=_Choice, __doc__=_Choice.__doc__, **_FIELDS
)


def _is_usable(given: Any) -> Any:
    """Refuses the featurizer of a package that cannot be used, in the words that say why."""
    for name in given if isinstance(given, dict) else [given]:
        if not isinstance(name, str):
            continue  # refused later, for its type
        try:
            check_usable(name)
        except JobError as e:
            raise ValueError(str(e)) from e
    return given


if TYPE_CHECKING:
    SubspaceKeys = str | _Choice
else:
    SubspaceKeys = Annotated[
        Literal["full", *(kind.name for kind in BY_A_WORD)] | SubspaceChoice,
        BeforeValidator(_is_usable),
    ]


def _is_plain(given: Any) -> Any:
    """Refuses a kind of subspace that a grid may have and a unit may not."""
    kind = next(iter(given), None) if isinstance(given, dict) else given
    if isinstance(kind, str) and kind in {*featurizers()} - {"coordinates", IDENTITY.name}:
        raise ValueError(
            f"not yet supported by this version (got {brief(given)}); use full or coordinates"
        )
    return given


PlainSubspaceKeys = Annotated[Literal["full"] | CoordinatesKeys, BeforeValidator(_is_plain)]


def subspaces_of(keys: SubspaceKeys | PlainSubspaceKeys) -> tuple[Subspace, ...]:
    """Returns the subspaces that a job names."""
    if isinstance(keys, _Choice):
        return keys.subspaces
    if isinstance(keys, CoordinatesKeys):
        return (coordinates_of(keys.coordinates),)
    return (Subspace() if keys == "full" else Subspace(keys),)


def coordinates_of(given: tuple[int, ...] | CoordinateRange) -> Subspace:
    """Returns the subspace of these coordinates, in rising order."""
    chosen = (
        range(given.from_, given.to + 1) if isinstance(given, CoordinateRange) else sorted(given)
    )
    return Subspace(coordinates=tuple(chosen))
