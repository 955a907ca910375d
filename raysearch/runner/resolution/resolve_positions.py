"""Checks the positions that a job names against those that its inputs have, and adds those that the
job declares by token index.

Invariants: after this every position of the job is known to the inputs, or is a token by index; a
name has one meaning.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from raysearch.causal import (
    EVERY,
    LAST,
    Input,
    LeftOutCount,
    Pair,
    PairSample,
    Split,
    split_take,
    token_index,
)
from raysearch.errors import JobError, PairsError
from raysearch.job import Job
from raysearch.suggest import check_known


def check_positions(job: Job, named: Sequence[str], of: str) -> None:
    """Raises: JobError for a position that is none of `named` (by the problem, or on every line),
    nor said of one of them."""
    clash = next((name for name in job.space.declared if name in named), None)
    if clash is not None:
        raise JobError(
            f"space.positions: {clash!r} is a position of {of} already; name these tokens otherwise"
        )
    known = (*named, *job.space.declared, LAST)
    positions = [("space.positions", name) for name in job.space.position_names or ()]
    positions += [(f"{path}.position", site.position) for path, site in job.space.unit_sites]
    for key, name in positions:
        if name != EVERY and token_index(name) is None and split_take(name, known)[1] is None:
            check_known(key, "position", name, known, of)


def positions_of_inputs(positions: Sequence[str], known: Sequence[str]) -> list[str]:
    """Returns those of `known` that the inputs themselves must have for these positions."""
    return [of for name in positions if (of := split_take(name, (*known, LAST))[0]) in known]


def with_positions(job: Job, drawn: PairSample, of: str) -> PairSample:
    """Returns the pairs of which every input has all positions that the job names, and the others
    left out.

    A position that no pair has in its base and every source is not looked at here. Raises:
    PairsError where no test pair is left.
    """
    inputs = {p.index: (p.base, *p.sources.values()) for p in drawn.pairs}
    whole = [
        set[str].intersection(*(set(one.positions) for one in several))
        for several in inputs.values()
    ]
    known = tuple(set[str]().union(*whole))
    named = [
        *(job.space.position_names or ()),
        *(site.position for _, site in job.space.unit_sites),
    ]
    needed = [
        name
        for name in dict.fromkeys(positions_of_inputs(named, known))
        if name not in job.space.declared
    ]
    kept: list[Pair] = []
    left: Counter[tuple[Split, str | None, str]] = Counter()
    for pair in drawn.pairs:
        missing = [
            name for name in needed if any(name not in one.positions for one in inputs[pair.index])
        ]
        if missing:
            left[pair.split, pair.set, f"the position {', '.join(missing)}"] += 1
        else:
            kept.append(pair)
    if any(split == "test" for split, _, _ in left) and not any(p.split == "test" for p in kept):
        raise PairsError(
            f"{of}: no test pair has all the positions that the job names ({', '.join(needed)}); "
            "name fewer in space.positions, and search the others in a job of their own"
        )
    return PairSample(
        tuple(kept),
        (
            *drawn.left_out,
            *(LeftOutCount("lacks_position", s, k, n, d) for (s, k, d), n in left.items()),
        ),
    )


def with_tokens(pairs: Sequence[Pair], declared: Mapping[str, tuple[int, ...]]) -> tuple[Pair, ...]:
    """Returns the pairs with positions added to every input: those that the job declares by token
    index."""
    if not declared:
        return tuple(pairs)

    def given(one: Input) -> Input:
        return replace(one, tokens={**one.tokens, **declared})

    return tuple(
        replace(p, base=given(p.base), sources={n: given(s) for n, s in p.sources.items()})
        for p in pairs
    )
