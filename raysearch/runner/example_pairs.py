"""Shows pairs as the model gets them: token by token, with what each answer would be."""

from collections.abc import Callable, Sequence

from raysearch.causal import Pair
from raysearch.core.events import Encoded, Ids
from raysearch.visible_text import shorten

EXAMPLES = 2
_MOST = 600
"""Characters of an input that are shown."""


def example_lines(
    pairs: Sequence[Pair], encoded: Sequence[Encoded], read: Callable[[int], str]
) -> tuple[str, ...]:
    """Returns the lines that show the first test pairs of a language model.

    Args:
        encoded: of the same pairs, by index.
        read: returns the text of a token.
    """
    of = {e.index: e for e in encoded}
    chosen = [p for p in pairs if p.split == "test" and p.index in of][:EXAMPLES]
    return tuple(line for pair in chosen for line in _lines(pair, of[pair.index], read))


def _lines(pair: Pair, encoded: Encoded, read: Callable[[int], str]) -> list[str]:
    base = ", ".join(f"{name} {_indices(at)}" for name, at in encoded.base_positions.items())
    return [
        f"pair {pair.index}; tokens of the base: {base}",
        _line("base", encoded.base, pair.answers["base"], read),
        *(_line(name, ids, pair.answers[name], read) for name, ids in encoded.sources.items()),
        *(f"  {v:<22} -> {answer!r}" for v, answer in pair.counterfactual.items()),
    ]


def _line(name: str, ids: object, answer: str, read: Callable[[int], str]) -> str:
    assert isinstance(ids, tuple), "an input of a language model is its token ids"
    return f"  {name:<10} {shorten('|'.join(map(read, ids)), _MOST)} -> {answer!r}"


def _indices(at: Ids) -> str:
    return str(at[0]) if len(at) == 1 else f"{at[0]}-{at[-1]}"
