"""Divides the domain of a problem into splits, before anything is drawn.

Invariants: a split follows from the seed and the contents alone, and needs no list of the domain;
splits are in the ratio of the counts that are asked for.
"""

import hashlib
from collections.abc import Mapping, Sequence

from raysearch.causal.pairs import SPLITS, Pair, Split


def split_by_content(pair: Pair, counts: Mapping[Split, int], seed: int) -> Split:
    """Returns the split of a pair by the contents of its inputs."""
    return split_of((pair.base.content, *(s.content for s in pair.sources.values())), counts, seed)


def split_by_values(
    pair: Pair, variables: Sequence[str], counts: Mapping[Split, int], seed: int
) -> Split | None:
    """Returns the split of all values of `variables`; None if they belong to several."""
    inputs = (pair.base, *pair.sources.values())
    values = {(v, repr(i.values[v])) for i in inputs for v in variables}
    splits = {split_of_value(v, value, counts, seed) for v, value in values}
    return splits.pop() if len(splits) == 1 else None


def split_of_value(variable: str, value: str, counts: Mapping[Split, int], seed: int) -> Split:
    """Returns the split of a value of a variable; `value` is its repr."""
    return split_of((f"{variable}={value}",), counts, seed)


def split_of(contents: Sequence[str], counts: Mapping[Split, int], seed: int) -> Split:
    """Returns the split of a (base, sources), by a hash of its inputs' contents, in the ratio of
    `counts`.

    This divides the domain before anything is drawn, and needs no list of it.
    """
    return split_of_digest(digest_of(contents, seed), counts)


def digest_of(contents: Sequence[str], seed: int) -> bytes:
    """Returns 32 bytes that identify a (base, sources) by its inputs' contents."""
    return hashlib.sha256("\x00".join((str(seed), *contents)).encode()).digest()


def split_of_digest(digest: bytes, counts: Mapping[Split, int]) -> Split:
    """Returns the split of a digest, in the ratio of `counts`."""
    at = int.from_bytes(digest[:8], "big") / 2**64 * sum(counts.values())
    for split in SPLITS:
        at -= counts.get(split, 0)
        if at < 0:
            return split
    return next(s for s in reversed(SPLITS) if counts.get(s, 0))
