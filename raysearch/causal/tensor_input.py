"""A stimulus: an input that is one tensor, stored as plain bytes so that this room needs no torch.

Invariants: equal content gives an equal stimulus on every machine; numbers are float32, int64 or
bool, row-major, little-endian.
"""

import hashlib
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from raysearch.errors import PairsError

Numeric = Literal["float32", "int64", "bool"]
"""Type of the numbers: floats, whole numbers such as ids, or truth values."""

_LETTERS = {"float32": "f", "int64": "q", "bool": "?"}
_SIZES = {"float32": 4, "int64": 8, "bool": 1}


@dataclass(frozen=True, slots=True)
class Stimulus:
    """One tensor without a row dimension: its shape (empty for a single number) and its row-major
    numbers.

    Raises:
        PairsError: the bytes do not fit the shape, or the shape holds no number.
    """

    dtype: Numeric
    shape: tuple[int, ...]
    data: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if self.dtype not in get_args(Numeric):
            raise PairsError(f"a tensor of {self.dtype}: it may be {', '.join(get_args(Numeric))}")
        if min(self.shape, default=1) < 1:
            raise PairsError(
                f"a tensor of shape {list(self.shape)} holds no number; give at least one"
            )
        if len(self.data) != _SIZES[self.dtype] * math.prod(self.shape):
            raise PairsError(
                f"{len(self.data)} bytes are no {self.dtype} tensor of shape {list(self.shape)}"
            )

    @classmethod
    def of(cls, values: Any) -> "Stimulus":
        """Makes a stimulus of a number, of nested lists of numbers, or of an array or tensor of any
        library.

        Only truth values make bool, only whole numbers int64; if any number is not whole, all
        become float32, rounded to the nearest.

        Raises:
            PairsError: the value is not one tensor of numbers.
        """
        if isinstance(values, Stimulus):
            return values
        nested = _as_lists(values)
        shape = _shape(nested)
        flat = list(_flat(nested, shape))
        kinds = set(map(type, flat))
        dtype: Numeric = (
            "bool" if kinds <= {bool} else "int64" if kinds <= {bool, int} else "float32"
        )
        try:
            return cls(dtype, shape, struct.pack(f"<{len(flat)}{_LETTERS[dtype]}", *flat))
        except (struct.error, OverflowError) as e:
            raise PairsError(
                f"a tensor of shape {list(shape)}: {e}; its numbers must fit {dtype}"
            ) from e

    @property
    def numbers(self) -> tuple[float, ...]:
        """All numbers, in row-major order."""
        return struct.unpack(f"<{math.prod(self.shape)}{_LETTERS[self.dtype]}", self.data)

    @property
    def digest(self) -> str:
        """SHA-256 (64 hex digits) of type, shape and numbers."""
        return hashlib.sha256(f"{self.dtype}{self.shape}".encode() + self.data).hexdigest()

    def __repr__(self) -> str:
        return f"Stimulus({self.dtype}, {list(self.shape)}, {self.digest})"


def _as_lists(values: Any) -> Any:
    """Returns an array or tensor as nested lists, and anything else unchanged.

    Raises:
        PairsError: a tensor cannot be read.
    """
    if isinstance(values, Mapping | AbstractSet):
        held = ", ".join(map(str, values)) or "nothing"
        raise PairsError(
            f"an input is one tensor, and a {type(values).__name__} of {held:.60} is none; join "
            "its parts into one tensor, which the network takes apart"
        )
    try:
        if hasattr(values, "tolist"):
            return values.tolist()
        return values.__array__().tolist() if hasattr(values, "__array__") else values
    except (
        Exception
    ) as e:  # another library's tensor: of no storage, quantised, on a device that is gone
        raise PairsError(
            f"a {type(values).__name__} cannot be read as numbers ({type(e).__name__}: "
            f"{' '.join(str(e).split()):.120}); give a plain array, a tensor or lists"
        ) from e


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _shape(nested: Any) -> tuple[int, ...]:
    """Returns the shape that the first element at each level has; `_flat` checks the others."""
    shape = []
    while _is_list(nested := _as_lists(nested)):
        shape.append(len(nested))
        if not nested:
            break
        nested = nested[0]
    return tuple(shape)


def _flat(nested: Any, shape: tuple[int, ...]) -> Iterator[float]:
    if not isinstance(nested, list | int | float):
        nested = _as_lists(nested)
    if not shape:
        if not isinstance(nested, int | float):
            raise PairsError(
                f"a tensor is of numbers, alone or in lists as long as each other; got "
                f"{nested!r:.60}"
            )
        yield nested
        return
    if not _is_list(nested) or len(nested) != shape[0]:
        raise PairsError(
            f"a tensor's lists are as long as each other, and here one of {shape[0]} stands beside "
            f"{nested!r:.60}; an input is one tensor: "
            "join what is of several shapes into one, which the network takes apart"
        )
    if len(shape) == 1 and all(type(n) in (int, float, bool) for n in nested):
        yield from nested
        return
    for part in nested:
        yield from _flat(part, shape[1:])
