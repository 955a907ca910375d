"""Shows pairs as the model gets them: token by token, or as numbers, with what each answer would
be."""

from collections.abc import Callable, Sequence

from raysearch.causal import Pair
from raysearch.causal.tensor_input import Stimulus
from raysearch.core.events import Encoded, Ids, ModelInput
from raysearch.visible_text import shorten

EXAMPLES = 2
_MOST = 600
"""Characters of an input that are shown."""
_NUMBERS = 12
"""Numbers of an input that are shown."""

Read = Callable[[int], str]


def example_lines(
    pairs: Sequence[Pair], encoded: Sequence[Encoded], read: Read | None
) -> tuple[str, ...]:
    """Returns the lines that show the first test pairs; none of token ids that cannot be read.

    Args:
        encoded: of the same pairs, by index.
        read: returns the text of a token; None without a tokenizer.
    """
    of = {e.index: e for e in encoded if read is not None or isinstance(e.base, Stimulus)}
    chosen = [p for p in pairs if p.split == "test" and p.index in of][:EXAMPLES]
    return tuple(line for pair in chosen for line in _lines(pair, of[pair.index], read))


def _lines(pair: Pair, encoded: Encoded, read: Read | None) -> list[str]:
    base = ", ".join(f"{name} {_indices(at)}" for name, at in encoded.base_positions.items())
    places = "places" if isinstance(encoded.base, Stimulus) else "tokens"
    return [
        f"pair {pair.index}; {places} of the base: {base}",
        _line("base", encoded.base, pair.answers["base"], read),
        *(_line(name, one, pair.answers[name], read) for name, one in encoded.sources.items()),
        *(f"  {v:<22} -> {answer!r}" for v, answer in pair.counterfactual.items()),
    ]


def _line(name: str, given: ModelInput, answer: str, read: Read | None) -> str:
    if isinstance(given, Stimulus):
        return f"  {name:<10} {_numbers(given)} -> {answer!r}"
    assert read is not None, "token ids that nothing reads are not shown"
    return f"  {name:<10} {shorten('|'.join(map(read, given)), _MOST)} -> {answer!r}"


def _numbers(given: Stimulus) -> str:
    """Shows type, shape and the first numbers of a tensor."""
    some = [f"{number:g}" for number in given.numbers[:_NUMBERS]]
    more = ", ..." if len(given.numbers) > _NUMBERS else ""
    return f"{given.dtype} {list(given.shape)}: {', '.join(some)}{more}"


def _indices(at: Ids) -> str:
    return str(at[0]) if len(at) == 1 else f"{at[0]}-{at[-1]}"
