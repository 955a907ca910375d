"""Two-digit addition: the texts, the carry, counterfactuals worked out by hand, the tokens, the
trained model."""

import random
from itertools import product
from typing import Any

import pytest

from raysearch import draw_pairs
from raysearch.causal import differing_shares
from raysearch.engine.encoding.encode import encode
from raysearch.errors import CausalModelError, JobError
from raysearch.problems.two_digit_addition import POSITIONS, problem
from tests.problems.real import (
    SMOLLM2,
    TRAINED,
    answer_ids,
    changed,
    check_splits,
    needs_smollm2,
    solved,
)

MODEL = TRAINED / "two_digit_addition"
VARIABLES = ("carry", "ones", "tens", "total")
COUNTS = {"fit": 0, "test": 400, "holdout": 100}


def numbers(a: int, b: int, asked: str) -> dict[str, Any]:
    return {
        "asked": asked,
        "a_tens": a // 10,
        "a_ones": a % 10,
        "b_tens": b // 10,
        "b_ones": b % 10,
    }


@pytest.mark.parametrize(("asked", "text"), [("tens", "47+35="), ("ones", "47+35=8")])
def test_every_span_cuts_out_its_own_character(asked: str, text: str) -> None:
    shown = problem().render(problem().model.run(numbers(47, 35, asked)))
    assert shown.text == text
    assert [shown.text[slice(*shown.spans[name])] for name in POSITIONS] == list("47+35=")
    assert [shown.spans[name][0] for name in POSITIONS] == list(range(6))


def test_every_sum_has_its_digits() -> None:
    asked = problem()
    for a, b in product(range(10, 50), repeat=2):
        for digit, right in (("tens", (a + b) // 10), ("ones", (a + b) % 10)):
            values = asked.model.run(numbers(a, b, digit))
            assert (values["digit"], values["total"]) == (right, a + b)
            assert values["carry"] == (a % 10 + b % 10 > 9)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        # 47 + 35 = 82 carries, 21 + 12 = 33 does not.
        ("tens", {"carry": 7, "ones": 8, "tens": 3, "total": 3, "a_tens": 6, "a_ones": 7}),
        ("ones", {"carry": 2, "ones": 3, "tens": 2, "total": 3, "a_tens": 2, "a_ones": 6}),
    ],
)
def test_counterfactuals_are_those_worked_out_by_hand(asked: str, expected: dict[str, int]) -> None:
    base, source = numbers(47, 35, asked), numbers(21, 12, asked)
    model = problem().model
    assert {v: model.interchange(base, {v: source}) for v in expected} == expected


def test_what_is_asked_decides_which_variables_change_the_answer() -> None:
    pairs = draw_pairs(problem(), VARIABLES, COUNTS, seed=1)
    for pair in pairs:
        said = pair.answers["base"]
        asked, carries = str(pair.set).split(", ")
        if asked == "tens":
            assert pair.counterfactual["ones"] == said
            assert (pair.counterfactual["carry"] != said) == (carries == "other carry")
            assert pair.counterfactual["tens"] == pair.counterfactual["total"]
        else:
            assert pair.counterfactual["carry"] == pair.counterfactual["tens"] == said
            assert pair.counterfactual["ones"] == pair.counterfactual["total"]
        assert pair.base.values["asked"] == pair.sources["source"].values["asked"] == asked
    assert 0.2 < changed(pairs, "carry") < 0.3
    assert changed(pairs, "tens") > 0.4
    assert changed(pairs, "ones") > 0.4
    assert min(differing_shares([p.counterfactual for p in pairs], VARIABLES).values()) > 0.3
    check_splits(pairs)


def test_every_variable_can_be_interchanged_on_every_pair() -> None:
    names = problem().model.names
    for pair in draw_pairs(problem(), names, {"test": 200}, seed=5):
        assert all(len(answer) == 1 for answer in pair.counterfactual.values())


def test_the_shares_are_as_the_options_say() -> None:
    rng = random.Random(0)
    tens = problem(asks_ones=0, other_carry=1)
    for base, source in (tens.sample(rng) for _ in range(50)):
        assert base["asked"] == source["asked"] == "tens"
        assert tens.set_of is not None
        assert tens.set_of(base, source) == "tens, other carry"


@pytest.mark.parametrize("option", ["asks_ones", "other_carry"])
def test_a_share_that_is_none_is_refused(option: str) -> None:
    with pytest.raises(
        JobError, match=f"two_digit_addition: {option}: got -1; it must be a number from 0 to 1"
    ):
        problem(**{option: -1})


def test_the_trained_model_is_small_and_solves_every_pair() -> None:
    files = [path for path in MODEL.rglob("*") if path.is_file()]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in files}
    assert sum(path.stat().st_size for path in files) < 2_000_000
    assert solved(MODEL, draw_pairs(problem(), VARIABLES, {"test": 100}, seed=0)) >= 0.99


@pytest.mark.parametrize(
    "folder", [MODEL, pytest.param(SMOLLM2, marks=[pytest.mark.model, needs_smollm2])]
)
def test_every_digit_is_a_token_and_every_pair_can_be_encoded(folder: Any) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    pairs = draw_pairs(problem(), VARIABLES, COUNTS, 1)
    for pair, encoded in zip(pairs, encode(pairs, tokenizer, POSITIONS, VARIABLES), strict=True):
        assert len(encoded.base) == len(pair.base.text)
        assert all(
            len(answer_ids(tokenizer, pair.base.text, a)) == 1 for a in pair.counterfactual.values()
        )


def test_the_whole_sum_is_an_answer_of_two_tokens() -> None:
    asked = problem(whole=True)
    base, source = numbers(47, 35, "sum"), numbers(21, 12, "sum")
    expected = {"carry": 72, "ones": 83, "tens": 32, "total": 33}
    assert {v: asked.model.interchange(base, {v: source}) for v in expected} == expected
    for pair in draw_pairs(asked, VARIABLES, {"test": 50}, seed=1):
        assert eval(pair.base.text.rstrip("=")) == int(pair.answers["base"])
        assert pair.set in ("sum, same carry", "sum, other carry")


def test_whole_is_true_or_false() -> None:
    with pytest.raises(CausalModelError, match="whole: got 'yes'; it must be true or false"):
        problem(whole="yes")  # type: ignore[arg-type]
