"""The indirect object: the sentences, the counterfactuals of position and token, the drawn pairs,
the real tokens."""

import random
from typing import Any

import pytest

from raysearch import draw_pairs
from raysearch.causal import differing_shares
from raysearch.engine.encoding.encode import encode
from raysearch.problems.indirect_object import NAMES, POSITIONS, TEMPLATES, problem
from tests.problems.real import SMOLLM2, changed, check_splits, check_words, needs_smollm2, solved
from tests.problems.refused import check_refused

VARIABLES = ("first", "second", "io_position", "io_token")
COUNTS = {"fit": 0, "test": 400, "holdout": 100}
BASE = {"template": "store", "first": "Mary", "second": "John", "io_position": "first"}
SOURCE = {"template": "store", "first": "Anna", "second": "Paul", "io_position": "second"}


def test_every_span_cuts_out_its_own_word() -> None:
    shown = problem().render(problem().model.run(BASE))
    assert shown.text == "When Mary and John went to the store, John gave a drink to"
    words = {name: shown.text[slice(*shown.spans[name])] for name in POSITIONS}
    assert list(words.values()) == ["Mary", "and", "John", "John", "gave", "drink"]
    assert shown.spans["second"][0] < shown.spans["repeated"][0]
    for template in TEMPLATES:
        pairs = draw_pairs(problem(templates=[template]), VARIABLES, {"test": 20}, seed=2)
        check_words(pairs, POSITIONS)


def test_counterfactuals_are_right_on_examples_written_by_hand() -> None:
    model = problem().model
    assert model.run(BASE)["io_token"] == "Mary"
    assert model.run(SOURCE)["io_token"] == "Paul"
    expected = {"first": "Anna", "second": "Mary", "io_position": "John", "io_token": "Paul"}
    assert {v: model.interchange(BASE, {v: SOURCE}) for v in VARIABLES} == expected
    same = {**SOURCE, "io_position": "first"}
    expected = {"first": "Anna", "second": "Mary", "io_position": "Mary", "io_token": "Anna"}
    assert {v: model.interchange(BASE, {v: same}) for v in VARIABLES} == expected


def test_the_one_who_acts_is_never_the_answer_and_is_named_twice() -> None:
    for pair in draw_pairs(problem(), VARIABLES, COUNTS, seed=1):
        for shown, answer in (
            (pair.base, pair.answers["base"]),
            (pair.sources["source"], pair.answers["source"]),
        ):
            actor = shown.text[slice(*shown.spans["repeated"])]
            assert shown.text.split().count(actor) == 2
            assert shown.text.split().count(answer.strip()) == 1
            assert answer == f" {shown.values[str(shown.values['io_position'])]}"


def test_the_position_gives_the_other_name_of_the_base_and_the_token_that_of_the_source() -> None:
    for pair in draw_pairs(problem(), VARIABLES, COUNTS, seed=1):
        moved = pair.counterfactual["io_position"] != pair.answers["base"]
        assert pair.set == ("other_position" if moved else "same_position")
        assert pair.counterfactual["io_position"].strip() in {
            pair.base.values["first"],
            pair.base.values["second"],
        }
        assert pair.counterfactual["io_token"] == pair.answers["source"]
        assert (
            len({*pair.base.values.values()} & {*NAMES} & {*pair.sources["source"].values.values()})
            == 0
        )


def test_the_pairs_change_often_enough_and_tell_every_two_variables_apart() -> None:
    pairs = draw_pairs(problem(), VARIABLES, COUNTS, seed=1)
    assert 0.7 < changed(pairs, "io_position") < 0.8
    assert changed(pairs, "io_token") == 1
    assert 0.4 < changed(pairs, "first") < 0.6
    assert min(differing_shares([p.counterfactual for p in pairs], VARIABLES).values()) > 0.4
    check_splits(pairs)


def test_the_shares_and_the_names_are_as_the_options_say() -> None:
    rng = random.Random(0)
    few = problem(names=["Ada", "Bea", "Cid", "Dov"], templates=["park"], other_position=1)
    for base, source in (few.sample(rng) for _ in range(50)):
        assert base["template"] == source["template"] == "park"
        assert base["io_position"] != source["io_position"]
        assert {base["first"], base["second"], source["first"], source["second"]} == {
            "Ada",
            "Bea",
            "Cid",
            "Dov",
        }


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"names": "Mary"},
            r"names: got 'Mary'; it must be a list, such as \[Mary, John, Tom, James\]",
        ),
        ({"names": ["Mary", "John", "Tom", "Tom"]}, "names: got 3; it needs at least 4"),
        ({"names": ["Mary", "John", "Tom", 7]}, "names: 7 is no word"),
        (
            {"names": ["Mary", "John", "Tom", "Mary Ann"]},
            "names: 'Mary Ann' is no word; give text without blanks",
        ),
        ({"templates": ["stor"]}, "templates: 'stor' is not one of the 4 known; it could be store"),
        ({"templates": []}, "templates: got 0; it needs at least 1"),
        (
            {"other_position": 2},
            "other_position: got 2; it must be a number from 0 to 1, such as 0.75",
        ),
    ],
)
def test_wrong_options_are_refused_in_one_line_that_names_what_would_do(
    options: dict[str, Any], expected: str
) -> None:
    check_refused(lambda: problem(**options), "indirect_object", expected)


@pytest.mark.model
@needs_smollm2
def test_every_name_is_one_token_and_every_pair_can_be_encoded() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(SMOLLM2)
    assert len({*NAMES}) == len(NAMES)
    assert all(len(tokenizer(f" {name}")["input_ids"]) == 1 for name in NAMES)
    for encoded in encode(
        draw_pairs(problem(), VARIABLES, COUNTS, 1), tokenizer, POSITIONS, VARIABLES
    ):
        assert all(len(ids) == 1 for ids in encoded.base_positions.values())


@pytest.mark.slow
@pytest.mark.model
@needs_smollm2
def test_the_model_solves_the_pairs() -> None:
    assert solved(SMOLLM2, draw_pairs(problem(), VARIABLES, {"test": 32}, seed=0)) >= 0.3
