"""The tokens of each input that rows read: what is stored of its run. This module does not import
torch.

A row starts on its base's activations from its first patched token on, and attends to the keys and
values of the tokens before; of a source it reads the patched tokens alone.

Invariants: an input that no pair has is stored whole; a span only grows.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from raysearch.causal import EVERY
from raysearch.core.events import Encoded, Ids, ModelInput


@dataclass(frozen=True, slots=True)
class ReadSpan:
    """Tokens `first` to `stop` - 1, whose activations are read, and the first `keys` tokens, whose
    keys and values are."""

    first: int
    stop: int
    keys: int

    def __or__(self, other: "ReadSpan") -> "ReadSpan":
        return ReadSpan(
            min(self.first, other.first), max(self.stop, other.stop), max(self.keys, other.keys)
        )


class ReadSpans:
    """The spans of the inputs of pairs, in which `positions` alone are read and written.
    `continues`: answers have several tokens, so that all keys and values of a base are read."""

    def __init__(
        self,
        encoded: Sequence[Encoded] = (),
        positions: Collection[str] = (),
        continues: bool = False,
    ) -> None:
        self.continues = continues
        self._spans: dict[ModelInput, ReadSpan] = {}
        every = EVERY in positions
        for pair in encoded:
            sides = [(pair.base, pair.base_positions, True)]
            sides += [(pair.sources[s], at, False) for s, at in pair.source_positions.items()]
            for given, at, is_base in sides:
                if isinstance(given, tuple):
                    some = [at[name] for name in (at if every else positions) if name in at]
                    starts = [min(tokens) for tokens in some if tokens]
                    stops = [max(tokens) + 1 for tokens in some if tokens]
                    last = len(given) if is_base else max(stops, default=0)
                    keys = self._keys(given, max(starts, default=0)) if is_base else 0
                    span = ReadSpan(min(starts, default=last), last, keys)
                    self._spans[given] = self._spans.get(given, span) | span

    def of(self, given: ModelInput) -> ReadSpan:
        """Returns the span of an input."""
        found = self._spans.get(given)
        length = len(given) if isinstance(given, tuple) else 1
        return ReadSpan(0, length, length) if found is None else found

    def grow(self, given: ModelInput, first: int, last: int, is_base: bool) -> None:
        """Makes the span of an input hold tokens `first` to `last`; those of a base are where its
        rows start."""
        known = self._spans.get(given)
        if known is not None and isinstance(given, tuple):
            stop, keys = (len(given), self._keys(given, last)) if is_base else (last + 1, 0)
            self._spans[given] = known | ReadSpan(first, stop, keys)

    def _keys(self, given: Ids, last: int) -> int:
        return len(given) if self.continues else last
