"""Types of values that many keys share: numbers in their ranges, lists without repetition.

Invariants: true and false are no numbers; every number has an upper bound.
"""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticKnownError

from raysearch.core.pydantic_words import brief


class Keys(BaseModel):
    """Keys of a job file; frozen, and a key that is not declared is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


def at_most(most: int) -> AfterValidator:
    """Refuses a larger number, which would end in an overflow, or in hours of drawing or
    listing.
    """

    def check(given: float) -> float:
        if given > most:
            raise ValueError(f"should be at most {most:,} (got {brief(given)})")
        return given

    return AfterValidator(check)


def each_once(given: tuple[str, ...]) -> tuple[str, ...]:
    """Refuses a list that names something twice."""
    twice = next((name for name in given if given.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"names {twice!r} twice; name each once")
    return given


def _no_truth(given: Any) -> Any:
    """Refuses true and false, which Python treats as 1 and 0."""
    if isinstance(given, bool):
        raise PydanticKnownError("float_type")
    return given


NUMBER = BeforeValidator(_no_truth)
Whole = Annotated[int, NUMBER]
Count = Annotated[int, Field(ge=0), at_most(2**31 - 1), NUMBER]
Positive = Annotated[int, Field(ge=1), at_most(2**31 - 1), NUMBER]
Rate = Annotated[float, Field(gt=0, lt=1), NUMBER]
Amount = Annotated[float, Field(gt=0, allow_inf_nan=False), NUMBER]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False), NUMBER]
