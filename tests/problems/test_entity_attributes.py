"""Attributes of cities: the sentences, disentangled counterfactuals, cause and isolate pairs, the
real tokens and model."""

import itertools
import random
from typing import Any

import pytest

from raysearch import Input, Pair, draw_pairs
from raysearch.causal import differing_shares
from raysearch.engine.encoding.encode import encode
from raysearch.problems.entity_attributes import ATTRIBUTES, FACTS, POSITIONS, problem
from tests.problems.real import (
    SMOLLM2,
    answer_ids,
    changed,
    check_splits,
    check_words,
    needs_smollm2,
    solved,
)
from tests.problems.refused import check_refused

VARIABLES = ("city", "asked", *ATTRIBUTES, "answer")
COUNTS = {"fit": 0, "test": 600, "holdout": 100}


def test_every_span_cuts_out_its_own_word() -> None:
    for city, asked in itertools.product(FACTS, ATTRIBUTES):
        shown = problem().render({"city": city, "asked": asked})
        assert [shown.text[slice(*shown.spans[name])] for name in POSITIONS] == [city, asked]
    check_words(draw_pairs(problem(), VARIABLES, COUNTS, seed=2), POSITIONS)


def test_the_table_has_enough_cities_and_is_right_on_some_that_everybody_knows() -> None:
    assert 40 <= len(FACTS) <= 100
    assert tuple(FACTS["Paris"].values()) == ("France", "French", "Europe")
    assert tuple(FACTS["Tokyo"].values()) == ("Japan", "Japanese", "Asia")
    assert tuple(FACTS["Cairo"].values()) == ("Egypt", "Arabic", "Africa")


def test_counterfactuals_are_right_on_examples_written_by_hand() -> None:
    model = problem().model
    base, source = {"city": "Paris", "asked": "country"}, {"city": "Tokyo", "asked": "language"}
    assert model.run(base)["answer"] == "France"
    assert model.run(source)["answer"] == "Japanese"
    assert {v: model.interchange(base, {v: source}) for v in VARIABLES} == {
        "city": "Japan",
        "asked": "French",
        "country": "Japan",
        "language": "France",
        "continent": "France",
        "answer": "Japanese",
    }


def test_a_variable_changes_the_answer_where_it_is_asked_and_nowhere_else() -> None:
    for pair in draw_pairs(problem(), VARIABLES, COUNTS, seed=1):
        asked, moved = pair.base.values["asked"], pair.sources["source"].values["asked"]
        assert pair.set == f"asks_{asked}"
        for attribute in ATTRIBUTES:
            cause = attribute == asked
            assert (pair.counterfactual[attribute] != pair.answers["base"]) == cause
            assert not cause or pair.counterfactual[attribute] == pair.counterfactual["city"]
        assert (pair.counterfactual["asked"] != pair.answers["base"]) == (asked != moved)
        assert pair.counterfactual["answer"] == pair.answers["source"] != pair.answers["base"]
        assert pair.counterfactual["city"] not in {
            pair.answers["base"],
            pair.counterfactual["asked"],
        }


def test_the_pairs_change_often_enough_and_tell_every_two_variables_apart() -> None:
    pairs = draw_pairs(problem(), VARIABLES, COUNTS, seed=1)
    assert changed(pairs, "city") == changed(pairs, "answer") == 1
    assert 0.7 < changed(pairs, "asked") < 0.8
    assert all(0.27 < changed(pairs, attribute) < 0.4 for attribute in ATTRIBUTES)
    assert min(differing_shares([p.counterfactual for p in pairs], VARIABLES).values()) > 0.5
    check_splits(pairs)


def test_the_cities_and_the_share_are_as_the_options_say() -> None:
    few = problem(cities=["Paris", "Tokyo", "Paris"], other_asked=0)
    assert few.model.variables[0].domain == ("Paris", "Tokyo")
    rng = random.Random(0)
    for base, source in (few.sample(rng) for _ in range(20)):
        assert base["asked"] == source["asked"]
        assert {base["city"], source["city"]} == {"Paris", "Tokyo"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"cities": ["Paris", "Tokio"]},
            "cities: 'Tokio' is not one of the .* known; it could be Tokyo",
        ),
        ({"cities": "Paris"}, "cities: got 'Paris'; it must be a list"),
        ({"cities": []}, "cities: got 0; it needs at least 1"),
        (
            {"cities": ["Paris", "Berlin"]},
            "Paris, Berlin: no two of them differ in country, language and continent",
        ),
        (
            {"other_asked": -0.5},
            "other_asked: got -0.5; it must be a number from 0 to 1, such as 0.75",
        ),
    ],
)
def test_wrong_options_are_refused_in_one_line_that_names_what_would_do(
    options: dict[str, Any], expected: str
) -> None:
    check_refused(lambda: problem(**options), "entity_attributes", expected)


@pytest.mark.model
@needs_smollm2
def test_every_city_is_one_token_and_different_answers_begin_differently() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(SMOLLM2)
    assert all(len(tokenizer(f" {city}")["input_ids"]) == 1 for city in FACTS)
    text = problem().render({"city": "Paris", "asked": "country"}).text
    first: dict[int, str] = {}
    for answer in sorted({value for values in FACTS.values() for value in values.values()}):
        token = answer_ids(tokenizer, text, f" {answer}")[0]
        assert first.setdefault(token, answer) == answer, "two answers, one first token"
    encode(draw_pairs(problem(), VARIABLES, COUNTS, 1), tokenizer, POSITIONS, VARIABLES)


@pytest.mark.slow
@pytest.mark.model
@needs_smollm2
def test_the_model_knows_every_attribute_of_every_city() -> None:
    def asked(city: str, attribute: str) -> Input:
        return problem().render({"city": city, "asked": attribute})

    answers = {
        attribute: {city: f" {FACTS[city][attribute]}" for city in FACTS}
        for attribute in ATTRIBUTES
    }
    pairs = [
        Pair(
            index=0,
            base=asked(city, attribute),
            sources={"source": asked(city, attribute)},
            answers={"base": answers[attribute][city], "source": answers[attribute][city]},
            counterfactual={},
            split="test",
        )
        for city, attribute in itertools.product(FACTS, ATTRIBUTES)
    ]
    assert solved(SMOLLM2, pairs) == 1
