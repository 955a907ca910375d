"""A stimulus: an input that is no text, one tensor, kept as plain bytes so that nothing here needs torch.

Invariants: equal content, equal stimulus, on every machine; numbers are float32 or int64, row-major, little-endian.
"""

import hashlib
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from raysearch.errors import PairsError

Numeric = Literal["float32", "int64"]
"""What a stimulus is made of: numbers, or whole numbers such as ids."""

_LETTERS = {"float32": "f", "int64": "q"}
_SIZES = {"float32": 4, "int64": 8}


@dataclass(frozen=True, slots=True)
class Stimulus:
    """One tensor without a row dimension: its shape, and its numbers in row-major order.

    Raises: PairsError for bytes that are not of that shape, or a shape that holds no number.
    """

    dtype: Numeric
    shape: tuple[int, ...]
    data: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if self.dtype not in get_args(Numeric):
            raise PairsError(f"a tensor of {self.dtype}: it may be {', '.join(get_args(Numeric))}")
        if not self.shape or min(self.shape) < 1:
            raise PairsError(f"a tensor of shape {list(self.shape)} holds no row of numbers; give at least one of each")
        if len(self.data) != _SIZES[self.dtype] * math.prod(self.shape):
            raise PairsError(f"{len(self.data)} bytes are no {self.dtype} tensor of shape {list(self.shape)}")

    @classmethod
    def of(cls, values: Any) -> "Stimulus":
        """The stimulus of nested lists of numbers, or of whatever has a `tolist` that gives them (an array, a tensor).

        Whole numbers stay whole (int64); as soon as one is not, all are float32, rounded to the nearest. Raises: PairsError.
        """
        nested = values.tolist() if hasattr(values, "tolist") else values
        shape = _shape(nested)
        flat = list(_flat(nested, shape))
        dtype: Numeric = "int64" if all(isinstance(n, int) for n in flat) else "float32"
        try:
            return cls(dtype, shape, struct.pack(f"<{len(flat)}{_LETTERS[dtype]}", *flat))
        except (struct.error, OverflowError) as e:
            raise PairsError(f"a tensor of shape {list(shape)}: {e}; its numbers must fit {dtype}") from e

    @property
    def numbers(self) -> tuple[float, ...]:
        """All of them, in row-major order."""
        return struct.unpack(f"<{math.prod(self.shape)}{_LETTERS[self.dtype]}", self.data)

    @property
    def digest(self) -> str:
        """SHA-256 (64 hex digits) of the content."""
        return hashlib.sha256(f"{self.dtype}{self.shape}".encode() + self.data).hexdigest()

    def __repr__(self) -> str:
        return f"Stimulus({self.dtype}, {list(self.shape)}, {self.digest})"


def _shape(nested: Any) -> tuple[int, ...]:
    """As the first of each says it; `_flat` holds the others against it."""
    shape = []
    while isinstance(nested, Sequence) and not isinstance(nested, str | bytes):
        shape.append(len(nested))
        if not nested:
            break
        nested = nested[0]
    return tuple(shape)


def _flat(nested: Any, shape: tuple[int, ...]) -> Iterator[float]:
    if not shape:
        if isinstance(nested, bool) or not isinstance(nested, int | float):
            raise PairsError(f"a tensor's numbers are nested lists, as long as each other; got {nested!r:.60}")
        yield nested
        return
    if not isinstance(nested, Sequence) or isinstance(nested, str | bytes) or len(nested) != shape[0]:
        raise PairsError(f"a tensor's numbers are nested lists, as long as each other; got {nested!r:.60}")
    for part in nested:
        yield from _flat(part, shape[1:])
