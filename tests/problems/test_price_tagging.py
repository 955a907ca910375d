"""Price tagging: the texts, the boundary variables, the drawn pairs; the small model that was
trained to have them at a known place."""

import random
from collections import Counter
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from raysearch import Pair, draw_pairs
from raysearch.engine.encoding.encode import encode
from raysearch.errors import JobError
from raysearch.problems.price_tagging import POSITIONS, STATES, problem, state_of
from tests.problems.swaps import Small

VARIABLES = ("lower_bound_ok", "upper_bound_ok", "answer")
BELOW = {"lower": 200, "upper": 500, "price": 75}
BETWEEN = {"lower": 125, "upper": 825, "price": 825}
ABOVE = {"lower": 0, "upper": 25, "price": 975}
LAYER, PRICE, LAST = 1, 16, 18
"""Where the boundary variables are: after the second block, at the price; and the colon."""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def small() -> Small:
    return Small("price_tagging")


@pytest.fixture(scope="module")
def directions(small: Small) -> dict[str, Tensor]:
    return load_file(small.folder / "planted.safetensors")


@pytest.fixture(scope="module")
def pairs() -> tuple[Pair, ...]:
    return draw_pairs(problem(), VARIABLES, {"test": 600}, seed=11)


def test_every_span_cuts_out_its_own_word() -> None:
    shown = problem().render(BETWEEN)
    assert (
        shown.text
        == "Please say yes only if it costs between 1.25 and 8.25 dollars, otherwise no. 8.25 "
        "dollars:"
    )
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
        copied = sum(p.counterfactual[variable] == p.answers["source"] for p in changed) / len(
            changed
        )
        assert 0.6 < copied < 0.73
    assert {p.set for p in pairs} == {f"{base}_{source}" for base in STATES for source in STATES}


def test_no_base_and_source_stand_in_two_splits() -> None:
    pairs = draw_pairs(
        problem(highest=75), VARIABLES, {"fit": 300, "test": 300, "holdout": 300}, seed=0
    )
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


@pytest.mark.parametrize(
    "options",
    [
        {"highest": 0},
        {"step": 0},
        {"step": 2.5},
        {"highest": "9.75"},
        {"step": True},
        {"highest": 10**12},
    ],
)
def test_wrong_options_are_refused_in_one_line(options: dict[str, Any]) -> None:
    with pytest.raises(
        JobError, match=r"it must be a whole number from 1 to 99999, such as (975|25)$"
    ):
        problem(**options)


def test_every_word_of_a_text_is_one_token_and_answers_leave_them_alone(small: Small) -> None:
    pairs = draw_pairs(problem(), VARIABLES, {"test": 50}, seed=1)
    for pair, encoded in zip(
        pairs, encode(pairs, small.tokenizer, POSITIONS, VARIABLES), strict=True
    ):
        assert len(encoded.base) == 19
        assert [encoded.base_positions[name] for name in (*POSITIONS, "last")] == [
            *((8,), (9,), (10,), (11,), (16,), (17,), (18,))
        ]
        assert small.tokenizer.decode(encoded.base) == pair.base.text
        assert small.tokenizer.decode(encoded.answers["base"]) == pair.answers["base"]


def test_the_directions_are_four_for_each_boundary_and_one_for_the_answer(
    directions: dict[str, Tensor],
) -> None:
    assert {name: columns.shape for name, columns in directions.items()} == {
        "lower_bound_ok": (64, 4),
        "upper_bound_ok": (64, 4),
        "answer": (64, 1),
    }
    every = torch.cat(list(directions.values()), dim=1)
    torch.testing.assert_close(every.T @ every, torch.eye(9), atol=1e-5, rtol=0)


@pytest.mark.parametrize("variable", VARIABLES[:2])
def test_a_swap_in_the_directions_of_a_boundary_gives_its_counterfactual(
    small: Small, directions: dict[str, Tensor], pairs: tuple[Pair, ...], variable: str
) -> None:
    said = small.answers(small.swapped(pairs, LAYER, PRICE, directions[variable]))
    right = {True: [0, 0], False: [0, 0]}
    for answer, pair in zip(said, pairs, strict=True):
        wanted = pair.counterfactual[variable]
        right[wanted != pair.answers["base"]][answer == wanted] += 1
    assert all(hits / (hits + misses) >= 0.95 for misses, hits in right.values()), (
        "where it changes and where not"
    )


def test_the_whole_vector_carries_both_boundaries_and_so_neither(
    small: Small, pairs: tuple[Pair, ...]
) -> None:
    assert small.iia(pairs, "answer", LAYER, PRICE) >= 0.95
    for variable in VARIABLES[:2]:
        assert small.iia(pairs, variable, LAYER, PRICE) < 0.75


def test_the_directions_of_one_boundary_do_not_carry_the_other(
    small: Small, directions: dict[str, Tensor], pairs: tuple[Pair, ...]
) -> None:
    lower, upper = VARIABLES[:2]
    assert small.iia(pairs, lower, LAYER, PRICE, directions[upper]) < 0.2
    assert small.iia(pairs, upper, LAYER, PRICE, directions[lower]) < 0.2


def test_beside_the_directions_a_swap_changes_no_answer(
    small: Small, directions: dict[str, Tensor], pairs: tuple[Pair, ...]
) -> None:
    plain = small.answers(small.plain([pair.base for pair in pairs]))
    for layer, token, names in ((LAYER, PRICE, VARIABLES[:2]), (2, LAST, VARIABLES[2:])):
        rest = _complement(torch.cat([directions[name] for name in names], dim=1))
        kept = small.answers(small.swapped(pairs, layer, token, rest))
        assert sum(map(str.__eq__, kept, plain)) / len(pairs) >= 0.95


def test_later_the_answer_alone_is_carried_in_one_direction_at_the_colon(
    small: Small, directions: dict[str, Tensor], pairs: tuple[Pair, ...]
) -> None:
    assert small.iia(pairs, "answer", 2, LAST, directions["answer"]) >= 0.95
    for variable in VARIABLES[:2]:
        assert small.iia(pairs, variable, 2, LAST, directions["answer"]) < 0.75


@pytest.mark.slow
@pytest.mark.parametrize("variable", VARIABLES[:2])
def test_no_whole_vector_elsewhere_carries_a_boundary(
    small: Small, pairs: tuple[Pair, ...], variable: str
) -> None:
    few = pairs[:200]
    for layer in range(4):
        for token in (8, 9, 10, 11, 16, 17, 18):
            assert small.iia(few, variable, layer, token) < 0.8


def _complement(directions: Tensor) -> Tensor:
    """Orthonormal columns that are orthogonal to these."""
    q, _ = torch.linalg.qr(directions, mode="complete")
    return q[:, directions.shape[1] :]
