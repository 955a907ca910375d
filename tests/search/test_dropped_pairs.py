"""Pairs that do not count: each is counted by the first reason that holds, and the counts add up to
what was drawn."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from raysearch.causal import SPLITS, LeftOutCount
from raysearch.core.events import Screened
from raysearch.core.pair_counts import REASON_TEXTS, PairCount, summarise_counts
from raysearch.core.records import Blocked
from raysearch.search.pair_blocks import ExpectedAnswers
from raysearch.search.pair_filters import count_pairs, count_pairs_before_screening
from raysearch.search.screening import Screening, ScreeningPlan
from raysearch.store.table_rows import dropped_rows

_PAIR = st.builds(
    lambda split, base, v, w, kind, ambiguous: ExpectedAnswers(
        split,
        (base,),
        {"source": (v,)},
        {"v": (v,), "w": (w,)},
        kind,
        ambiguous=frozenset({("", "v")} if ambiguous else ()),
    ),
    st.sampled_from(SPLITS),
    *[st.integers(0, 2)] * 3,
    st.sampled_from([None, "a", "b"]),
    st.booleans(),
)
_LEFT = st.builds(
    LeftOutCount,
    st.sampled_from(["beyond", "disjoint"]),
    st.sampled_from([*SPLITS, None]),
    st.none(),
    st.integers(1, 9),
)


def _screened(
    pairs: dict[int, ExpectedAnswers], plan: ScreeningPlan, answers: dict[int, tuple[int, int]]
) -> Screening:
    screening = Screening(pairs, plan)
    task = 0
    while not screening.done:
        asked = screening.ask(task)
        assert asked is not None
        (block,) = asked.blocks
        base = tuple((answers[p][0],) for p in block.pairs)
        source = tuple((answers[p][1],) for p in block.pairs)
        screening.tell(
            Screened(
                task,
                block.split,
                block.index,
                block.pairs,
                base,
                {"source": source},
                0,
                0.0,
                "cpu",
                "w",
                0,
            )
        )
        task += 1
    return screening


@given(
    st.data(),
    st.lists(_PAIR, max_size=25),
    st.lists(_LEFT, max_size=3),
    st.booleans(),
    st.booleans(),
)
def test_whatever_is_drawn_is_used_or_counted_as_left_out_for_each_variable_and_set(
    data: st.DataObject,
    drawn: list[ExpectedAnswers],
    left: list[LeftOutCount],
    change_only: bool,
    solved_only: bool,
) -> None:
    pairs = dict(enumerate(drawn))
    answers = {p: (data.draw(st.integers(0, 2)), data.draw(st.integers(0, 2))) for p in pairs}
    wanted = {split: data.draw(st.integers(0, 8)) for split in SPLITS}
    screening = _screened(
        pairs,
        ScreeningPlan(wanted, data.draw(st.integers(1, 8)), solved_only, left_out=tuple(left)),
        answers,
    )
    there = Counter((e.split, e.set) for e in drawn) + Counter({(x.split, x.set): 0 for x in left})
    for x in left:
        there[x.split, x.set] += x.pairs
    for counts in (
        count_pairs(pairs, screening, change_only, left),
        count_pairs_before_screening(pairs, change_only, left),
    ):
        for variable in ("v", "w") if pairs else ():
            own = [c for c in counts if c.variable == variable]
            found: Counter[tuple[str | None, str | None]] = Counter()
            for c in own:
                found[c.split, c.set] += c.pairs
            assert found == there
        for row in dropped_rows(Blocked((), counts)):
            same = [
                c
                for c in counts
                if (c.variable, c.split, c.set) == (row["variable"], row["split"], row["set"])
            ]
            assert row["drawn"] == sum(c.pairs for c in same)
            assert row["used"] == sum(c.pairs for c in same if c.reason is None)
            assert row["way_out"]


@given(st.data(), st.lists(_PAIR, min_size=1, max_size=25))
def test_what_is_used_is_what_a_verdict_can_count(
    data: st.DataObject, drawn: list[ExpectedAnswers]
) -> None:
    pairs = dict(enumerate(drawn))
    answers = {p: (data.draw(st.integers(0, 2)), data.draw(st.integers(0, 2))) for p in pairs}
    screening = _screened(pairs, ScreeningPlan(dict.fromkeys(SPLITS, 8), 5, True), answers)
    blocked = [p for block in screening.blocks("test") for p in block.pairs]
    for variable in ("v", "w"):
        counts = count_pairs(pairs, screening, True)
        used = sum(
            c.pairs for c in counts if (c.variable, c.split, c.reason) == (variable, "test", None)
        )
        assert used == sum(pairs[p].changes(variable) for p in blocked)


def test_each_reason_is_the_first_that_holds_and_says_the_way_out() -> None:
    def pair(base: int, v: int, *ambiguous: tuple[str, str]) -> ExpectedAnswers:
        return ExpectedAnswers(
            "test", (base,), {"source": (5,)}, {"v": (v,)}, ambiguous=frozenset(ambiguous)
        )

    pairs = dict(
        enumerate(
            [
                pair(0, 1),
                pair(0, 1),
                pair(0, 1),
                pair(0, 0, ("", "v")),
                pair(0, 0),
                pair(0, 1),
                pair(0, 1),
            ]
        )
    )
    answers = {0: (9, 5), 1: (0, 9), **dict.fromkeys(range(2, 7), (0, 5))}
    screening = _screened(pairs, ScreeningPlan({"test": 4}, 3, True), answers)
    counts = count_pairs(pairs, screening, True)
    assert {c.reason: c.pairs for c in counts} == {
        "base_unsolved": 1,
        "source_unsolved": 1,
        None: 1,
        "same_first_token": 1,
        "keep": 1,
        "beyond_max_pairs": 1,
        "not_asked": 1,
    }
    (line,) = summarise_counts(counts, "test")
    assert line.startswith("v: 1 of 6 test pairs count; ")
    assert "1: the counterfactual begins with the same token" in line
    assert "(answer.compare: sequence)" in line
    assert "test.max_pairs" in line
    assert all(why and out for why, out in REASON_TEXTS.values())


def test_where_keep_pairs_decide_too_those_that_only_look_so_are_said() -> None:
    pairs = {0: ExpectedAnswers("test", (0,), {}, {"v": (0,)}, ambiguous=frozenset({("", "v")}))}
    (line,) = summarise_counts(count_pairs_before_screening(pairs, change_only=False), "test")
    assert (
        "1 of 1 test pairs count; 1: they count, though the counterfactual begins with the same "
        "token" in line
    )


def test_several_variables_share_a_line_in_which_each_of_several_reasons_has_its_number() -> None:
    def counts(variable: str, keep: int, trained: int) -> list[PairCount]:
        by = (("keep", keep), ("trained_on", trained), (None, 9 - keep - trained))
        return [PairCount(variable, "holdout", None, reason, n) for reason, n in by if n]

    (line,) = summarise_counts([*counts("a", 1, 1), *counts("b", 4, 1)], "holdout")
    assert line == (
        "4 (b) to 7 (a) of 9 holdout pairs count; 1 to 4: the variable leaves the base's answer as "
        "it is (pairs.kinds: both lets them decide too); 1: they are pairs that subspaces are "
        "trained on (a larger domain, or a smaller pairs.fit, leaves more)"
    )
    (line,) = summarise_counts(counts("a", 2, 0), "holdout")
    assert "7 of 9 holdout pairs count; others: the variable leaves" in line
