"""Outputs are read as answers: of several tokens, of several lengths, under aliases."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysearch.core.answers import EXACT_MATCH, answer_matcher
from raysearch.core.events import Encoded, Ids
from raysearch.errors import PairsError
from raysearch.search.pair_blocks import expected_answers

IDS = st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple)


def pair(*answers: Ids, aliases: tuple[tuple[Ids, Ids], ...] = ()) -> Encoded:
    base, source, *counterfactuals = answers
    named = {f"v{at}": ids for at, ids in enumerate(counterfactuals)}
    return Encoded(
        0, (0,), {"source": (1,)}, {}, {}, {"base": base, "source": source}, named, aliases
    )


@given(
    st.lists(IDS, min_size=2, max_size=6),
    st.lists(st.integers(0, 3), min_size=3, max_size=3).map(tuple),
)
def test_an_output_is_the_longest_answer_that_it_begins_with(
    answers: list[Ids], output: Ids
) -> None:
    output = output[: max(map(len, answers))]
    beginnings = [a for a in answers if output[: len(a)] == a]
    assert answer_matcher([pair(*answers)]).read(output) == (
        max(beginnings, key=len) if beginnings else output
    )


def test_answers_of_one_token_are_read_as_they_are() -> None:
    assert answer_matcher([pair((1,), (2,)), pair((3,), (1,))]) is EXACT_MATCH


def test_an_alias_is_its_answer_and_so_is_solved_and_matched() -> None:
    encoded = pair((1,), (2,), (3,), aliases=(((7, 8), (1,)), ((9,), (3,))))
    pairs = expected_answers(encoded, "test", matcher=answer_matcher([encoded]))
    assert [pairs.read(ids) for ids in ((7, 8, 0), (7, 0, 0), (9, 9), (3, 1), (2,))] == [
        (1,),
        (7, 0, 0),
        (3,),
        (3,),
        (2,),
    ]


def test_an_alias_that_is_another_answer_is_refused() -> None:
    with pytest.raises(
        PairsError, match=r"pair 0: an alias \(answer.aliases\) is another answer too, .*\[2\]"
    ):
        answer_matcher([pair((1,), (2,), aliases=(((2,), (1,)),))])
