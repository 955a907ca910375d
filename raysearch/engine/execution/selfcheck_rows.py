"""The rows of the self-check: those that are asked for, and rows that show faults of a batch, of a
prefix and of a length."""

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from raysearch.core.events import Ids
from raysearch.engine.networks.network import ModelInput
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.rows import Patch, Row, Source

COMPANIES = 3
"""The most texts of a length of their own that are tested beside another text."""


def selfcheck_rows(rows: Sequence[Row], layers: int, seed: int = 0) -> list[Row]:
    """Returns the rows of the self-check: `rows`, their bases without intervention, an identity
    for each base of several tokens, and rows that share a batch with another text.

    The identity patches the last token but one from the same text without its last token, in a
    random layer: it changes nothing, unless tokens attend to later ones. A batch has texts of one
    length. If each of the bases has a length of its own, a fault that shows in the company of
    another text alone would be missed, so that longer ones are cut to the length of others.
    """
    rng = random.Random(f"{seed}.selfcheck")
    trial = [*rows, *(row.unpatched for row in rows)]
    for given in dict.fromkeys(row.base for row in rows):
        if isinstance(given, tuple) and len(given) > 1:
            trial.append(
                _swapped(
                    given,
                    given[:-1],
                    Point(rng.randrange(layers), "residual"),
                    len(given) - 2,
                )
            )
    for one, other in islice(_of_one_length([row.base for row in rows]), COMPANIES):
        point, at = Point(rng.randrange(layers), "residual"), rng.randrange(len(one))
        trial += [Row(other), _swapped(one, other, point, at), _swapped(other, one, point, at)]
    return list(dict.fromkeys(trial))


def _of_one_length(inputs: Sequence[ModelInput]) -> Iterator[tuple[Ids, Ids]]:
    """Yields for each text of a length that no other one has this text, and a longer one that is
    cut to its length, if that is another text."""
    texts = list(dict.fromkeys(given for given in inputs if isinstance(given, tuple)))
    alone = Counter(map(len, texts))
    for text in texts:
        cut = (other[: len(text)] for other in texts if len(other) > len(text))
        other = next((one for one in cut if one != text), None)
        if alone[len(text)] == 1 and other is not None:
            yield text, other


def boundary_rows(
    texts: Iterable[Ids], layers: int, lengths: Sequence[int], seed: int = 0
) -> list[Row]:
    """Returns rows on both sides of each of `lengths` that some of `texts` exceed and others do
    not.

    For each length: a text of exactly that length and one that is a token longer, alone and as each
    other's source, so that prefixes are taken across.
    """
    rng = random.Random(f"{seed}.straddling")
    known = sorted(set(texts), key=lambda text: (len(text), text))
    rows: list[Row] = []
    for length in lengths:
        longer = [text for text in known if len(text) > length]
        if not longer or not 2 <= len(known[0]) <= length:
            continue
        within, beyond, other = longer[0][:length], longer[0][: length + 1], rng.choice(known)
        for base, source in ((within, beyond), (beyond, within)):
            rows.append(Row(base))
            for at, text in ((length - 2, source), (length - 1, source), (0, other)):
                rows.append(_swapped(base, text, Point(rng.randrange(layers), "residual"), at))
    return list(dict.fromkeys(rows))


def _swapped(base: Ids, source: Ids, point: Point, token: int) -> Row:
    return Row(base, (Patch(point, (token,), (Source(Row(source), point, (token,)),)),))
