"""What becomes of every pair, for every variable: it is used, or left out for the first reason that
holds.

Invariants: every pair that was drawn or read is counted once for each variable, so that the counts
of a variable, split and set add up to what was drawn.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from raysearch.causal import SPLITS, LeftOutCount, Split
from raysearch.core.pair_counts import BLURRED, PairCount, Reason
from raysearch.search.pair_blocks import ExpectedAnswers
from raysearch.search.screening import Screening


def counts_after(
    pairs: Mapping[int, ExpectedAnswers],
    screening: Screening,
    change_only: bool,
    left_out: Sequence[LeftOutCount] = (),
) -> tuple[PairCount, ...]:
    """Every pair's fate for every variable, once screening is over. `change_only`: pairs that a
    variable leaves alone do not decide."""
    placed = {p for split in SPLITS for block in screening.blocks(split) for p in block.pairs}

    def reason(index: int, pair: ExpectedAnswers, variable: str) -> Reason | None:
        if screening.output(index) is None:
            return "not_asked"
        if not screening.is_usable(index):
            return "source_unsolved" if screening.base_solved(index) else "base_unsolved"
        if index not in placed:
            return "beyond_max_pairs" if pair.split == "test" else "not_asked"
        return _indistinct(pair, variable, change_only)

    return _counted(pairs, reason, left_out)


def counts_before(
    pairs: Mapping[int, ExpectedAnswers], change_only: bool, left_out: Sequence[LeftOutCount] = ()
) -> tuple[PairCount, ...]:
    """The same as far as it shows before the model is run: as if it solved all pairs, and all were
    asked for."""
    return _counted(
        pairs, lambda _, pair, variable: _indistinct(pair, variable, change_only), left_out
    )


def _indistinct(pair: ExpectedAnswers, variable: str, change_only: bool) -> Reason | None:
    if not change_only or pair.split == "fit" or pair.changes(variable):
        return None
    return "same_first_token" if pair.is_blurred("", variable) else "keep"


def _counted(
    pairs: Mapping[int, ExpectedAnswers],
    reason: Callable[[int, ExpectedAnswers, str], Reason | None],
    left_out: Sequence[LeftOutCount],
) -> tuple[PairCount, ...]:
    variables = tuple(next(iter(pairs.values())).counterfactual) if pairs else ()
    found: Counter[tuple[str, Split | None, str | None, Reason | None, str]] = Counter()
    for variable in variables:
        for index, pair in pairs.items():
            why = reason(index, pair, variable)
            blurred = why is None and pair.split != "fit" and pair.is_blurred("", variable)
            found[variable, pair.split, pair.set, why, BLURRED if blurred else ""] += 1
        for left in left_out:
            found[variable, left.split, left.set, left.reason, left.detail] += left.pairs
    return tuple(
        PairCount(v, split, kind, why, n, detail)
        for (v, split, kind, why, detail), n in found.items()
    )
