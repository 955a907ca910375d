"""Counts what becomes of each pair for each variable: used, or left out for the first reason that
applies.

Invariants: every pair that was drawn or read is counted once for each variable, so that the counts
of a variable, split and set add up to the number of pairs.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from raysearch.causal import SPLITS, LeftOutCount, Split
from raysearch.core.pair_counts import AMBIGUOUS, PairCount, Reason
from raysearch.search.pair_blocks import ExpectedAnswers
from raysearch.search.screening import Screening


def count_pairs(
    pairs: Mapping[int, ExpectedAnswers],
    screening: Screening,
    change_only: bool,
    left_out: Sequence[LeftOutCount] = (),
) -> tuple[PairCount, ...]:
    """Counts all pairs once screening is over.

    Args:
        change_only: whether pairs that a variable leaves unchanged do not decide.
    """
    placed = {p for split in SPLITS for block in screening.blocks(split) for p in block.pairs}

    def reason(index: int, pair: ExpectedAnswers, variable: str) -> Reason | None:
        if screening.output(index) is None:
            return "not_asked"
        if not screening.is_usable(index):
            return "source_unsolved" if screening.base_solved(index) else "base_unsolved"
        if (elsewhere := screening.used_elsewhere(index)) is not None:
            return elsewhere
        if index not in placed:
            return "beyond_max_pairs" if pair.split == "test" else "not_asked"
        return _unchanged_reason(pair, variable, change_only)

    return _counted(pairs, reason, left_out)


def count_pairs_before_screening(
    pairs: Mapping[int, ExpectedAnswers], change_only: bool, left_out: Sequence[LeftOutCount] = ()
) -> tuple[PairCount, ...]:
    """Counts all pairs before the model runs, as if it solved each of them and all were asked
    for.
    """
    return _counted(
        pairs, lambda _, pair, variable: _unchanged_reason(pair, variable, change_only), left_out
    )


def _unchanged_reason(pair: ExpectedAnswers, variable: str, change_only: bool) -> Reason | None:
    if not change_only or pair.split == "fit" or pair.changes(variable):
        return None
    return "same_first_token" if pair.is_ambiguous("", variable) else "keep"


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
            ambiguous = why is None and pair.split != "fit" and pair.is_ambiguous("", variable)
            found[variable, pair.split, pair.set, why, AMBIGUOUS if ambiguous else ""] += 1
        for left in left_out:
            found[variable, left.split, left.set, left.reason, left.detail] += left.pairs
    return tuple(
        PairCount(v, split, kind, why, n, detail)
        for (v, split, kind, why, detail), n in found.items()
    )
