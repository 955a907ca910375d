"""Price tagging: the texts, the boundary variables, the drawn pairs; the small model that was trained on it."""

import random
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from raysearch.causal import draw_pairs
from raysearch.engine.encode import encode
from raysearch.errors import JobError
from raysearch.problems.price_tagging import POSITIONS, STATES, problem, state_of
from tests.problems.swaps import Small

VARIABLES = ("lower_bound_ok", "upper_bound_ok", "answer")
BELOW = {"lower": 200, "upper": 500, "price": 75}
BETWEEN = {"lower": 125, "upper": 825, "price": 825}
ABOVE = {"lower": 0, "upper": 25, "price": 975}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def small() -> Small:
    return Small("price_tagging")


def test_every_span_cuts_out_its_own_word() -> None:
    shown = problem().render(BETWEEN)
    assert shown.text == "Please say yes only if it costs between 1.25 and 8.25 dollars, otherwise no. 8.25 dollars:"
    words = [shown.text[start:end] for start, end in (shown.spans[name] for name in POSITIONS)]
    assert words == ["1.25", "and", "8.25", "dollars", "8.25", "dollars"]
    assert tuple(shown.spans) == problem().positions
    assert shown.spans["upper"][0] < shown.spans["price"][0]


def test_bounds_are_part_of_what_lies_between() -> None:
    run = problem().model.run
    for price, answer in ((100, False), (125, True), (300, True), (825, True), (850, False)):
        assert run({**BETWEEN, "price": price})["answer"] is answer


@pytest.mark.parametrize(
    ("base", "source", "expected"),
    [
        (BELOW, ABOVE, (True, False, False)),
        (ABOVE, BELOW, (False, True, False)),
        (BETWEEN, BELOW, (False, True, False)),
        (BETWEEN, ABOVE, (True, False, False)),
        (BELOW, BETWEEN, (True, False, True)),
        (ABOVE, BETWEEN, (False, True, True)),
    ],
)
def test_counterfactuals_are_those_worked_out_by_hand(
    base: dict[str, int], source: dict[str, int], expected: tuple[bool, ...]
) -> None:
    assert tuple(problem().model.interchange(base, {v: source}) for v in VARIABLES) == expected


def test_below_between_and_above_are_drawn_equally_often() -> None:
    rng, sample = random.Random("evenly"), problem().sample
    drawn = [sample(rng) for _ in range(2000)]
    for side in (0, 1):
        counts = Counter(state_of(pair[side]) for pair in drawn)
        assert all(600 < counts[state] < 740 for state in STATES)
    same = sum(state_of(base) == state_of(source) for base, source in drawn)
    assert 600 < same < 740
    assert all(0 <= values["lower"] < values["upper"] <= 975 for pair in drawn for values in pair)  # type: ignore[operator]


def test_copying_the_answer_of_the_source_does_not_pass_for_a_boundary() -> None:
    pairs = draw_pairs(problem(), VARIABLES, {"test": 2000}, seed=0)
    for variable in VARIABLES[:2]:
        changed = [p for p in pairs if p.counterfactual[variable] != p.answers["base"]]
        assert 0.3 < len(changed) / len(pairs) < 0.37
        copied = sum(p.counterfactual[variable] == p.answers["source"] for p in changed) / len(changed)
        assert 0.6 < copied < 0.73
    assert {p.set for p in pairs} == {f"{base}_{source}" for base in STATES for source in STATES}


def test_no_base_and_source_stand_in_two_splits() -> None:
    pairs = draw_pairs(problem(highest=75), VARIABLES, {"fit": 300, "test": 300, "holdout": 300}, seed=0)
    splits: dict[tuple[str, str], set[str]] = {}
    for pair in pairs:
        splits.setdefault((pair.base.text, pair.sources["source"].text), set()).add(pair.split)
    assert len(splits) < len(pairs), "some are drawn twice, else this shows nothing"
    assert all(len(s) == 1 for s in splits.values())


def test_three_prices_are_enough_and_two_are_not() -> None:
    states = {state_of(values) for values in problem(highest=2, step=1).sample(random.Random(0))}
    assert states <= set(STATES)
    with pytest.raises(JobError, match="leave 2 prices; need at least 3, such as highest 200"):
        problem(highest=100, step=100)


@pytest.mark.parametrize("options", [{"highest": 0}, {"step": 0}, {"step": 2.5}, {"highest": "9.75"}, {"step": True}])
def test_wrong_options_are_refused_in_one_line(options: dict[str, Any]) -> None:
    with pytest.raises(JobError, match=re.escape("must be a whole number of cents, at least 1")):
        problem(**options)


def test_every_word_of_a_text_is_one_token_and_answers_leave_them_alone(small: Small) -> None:
    pairs = draw_pairs(problem(), VARIABLES, {"test": 50}, seed=1)
    for pair, encoded in zip(pairs, encode(pairs, small.tokenizer, POSITIONS, VARIABLES), strict=True):
        assert len(encoded.base) == 19
        assert [encoded.base_positions[name] for name in (*POSITIONS, "last")] == [
            *((8,), (9,), (10,), (11,), (16,), (17,), (18,))
        ]
        assert small.tokenizer.decode(encoded.base) == pair.base.text
        assert small.tokenizer.decode(encoded.answers["base"]) == pair.answers["base"]
