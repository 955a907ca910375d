"""Multiple choice: the questions, pointer and token told apart, the shuffled letters, the tokens,
the trained model."""

import random
from typing import Any

import pytest
from transformers import AutoTokenizer

from raysearch import draw_pairs
from raysearch.causal import differing_shares
from raysearch.engine.encoding.encode import encode
from raysearch.problems.multiple_choice import COLORS, CUE, LETTERS, THINGS, problem
from tests.problems.real import (
    SMOLLM2,
    TRAINED,
    answer_ids,
    changed,
    check_splits,
    check_words,
    needs_smollm2,
    solved,
)
from tests.problems.refused import check_refused

MODEL = TRAINED / "multiple_choice"
VARIABLES = ("color", "answer_pointer", "answer_token")
COUNTS = {"fit": 0, "test": 400, "holdout": 100}
BASE = {
    "thing": "ball",
    "color": "red",
    "choices": ("blue", "red", "green", "white"),
    "letters": ("Q", "X", "B", "K"),
}
SOURCE = {
    "thing": "hat",
    "color": "white",
    "choices": ("red", "green", "white", "blue"),
    "letters": ("A", "Z", "F", "M"),
}


def test_every_span_cuts_out_its_own_word() -> None:
    shown = problem().render(problem().model.run(BASE))
    lines = "Q. blue\nX. red\nB. green\nK. white"
    assert shown.text == f"The ball is red. What color is the ball?\n{lines}\nAnswer:"
    words = {name: shown.text[slice(*span)] for name, span in shown.spans.items()}
    assert words["color"] == words["right_choice"] == "red"
    assert words["right_letter"] == "X"
    assert [words[f"letter{slot}"] for slot in (1, 2, 3, 4)] == ["Q", "X", "B", "K"]
    assert [words[f"choice{slot}"] for slot in (1, 2, 3, 4)] == ["blue", "red", "green", "white"]
    assert shown.spans["right_choice"] == shown.spans["choice2"]
    assert shown.spans["right_letter"] == shown.spans["letter2"]
    assert set(shown.spans) == set(problem().positions)
    check_words(draw_pairs(problem(), VARIABLES, {"test": 50}, seed=2), problem().positions)


def test_counterfactuals_are_right_on_examples_written_by_hand() -> None:
    model = problem().model
    assert (model.run(BASE)["answer_pointer"], model.run(BASE)["answer_token"]) == (2, "X")
    assert (model.run(SOURCE)["answer_pointer"], model.run(SOURCE)["answer_token"]) == (3, "F")
    expected = {
        "color": "K",
        "answer_pointer": "B",
        "answer_token": "F",
        "letters": "Z",
        "choices": "Q",
        "thing": "X",
    }
    assert {v: model.interchange(BASE, {v: SOURCE}) for v in expected} == expected


def test_base_and_source_share_the_colors_and_no_letter() -> None:
    for pair in draw_pairs(problem(), VARIABLES, COUNTS, seed=1):
        base, source = pair.base.values, pair.sources["source"].values
        assert set(base["choices"]) == set(source["choices"])  # type: ignore[call-overload]
        assert not set(base["letters"]) & set(source["letters"])  # type: ignore[call-overload]
        moved = base["answer_pointer"] != source["answer_pointer"]
        assert pair.set == ("other_slot" if moved else "same_slot")
        assert (pair.counterfactual["answer_pointer"] != pair.answers["base"]) == moved
        assert pair.counterfactual["answer_token"] == pair.answers["source"]


def test_letters_and_slots_are_shuffled_evenly() -> None:
    rng, sample = random.Random(0), problem().sample
    drawn = [sample(rng) for _ in range(4000)]
    for side in (0, 1):
        asked = [pair[side] for pair in drawn]
        slots = [values["choices"].index(values["color"]) for values in asked]  # type: ignore[attr-defined]
        assert all(900 < slots.count(slot) < 1100 for slot in range(4))
        letters = [values["letters"][0] for values in asked]  # type: ignore[index]
        assert all(90 < letters.count(letter) < 220 for letter in LETTERS)
        assert {values["color"] for values in asked} == set(COLORS)
        assert {values["thing"] for values in asked} == set(THINGS)


def test_the_pairs_change_often_enough_and_tell_every_two_variables_apart() -> None:
    pairs = draw_pairs(problem(), VARIABLES, COUNTS, seed=1)
    assert 0.7 < changed(pairs, "answer_pointer") < 0.8
    assert 0.65 < changed(pairs, "color") < 0.85
    assert changed(pairs, "answer_token") == 1
    assert min(differing_shares([p.counterfactual for p in pairs], VARIABLES).values()) > 0.5
    check_splits(pairs)


def test_fewer_choices_have_fewer_positions() -> None:
    two = problem(
        choices=2,
        letters=["A", "B", "C", "D"],
        colors=["red", "blue"],
        things=["ball"],
        other_slot=1,
    )
    assert two.positions == (
        "color",
        "letter1",
        "choice1",
        "letter2",
        "choice2",
        "right_letter",
        "right_choice",
    )
    for base, source in (two.sample(random.Random(n)) for n in range(20)):
        assert two.set_of is not None
        assert two.set_of(base, source) == "other_slot"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"choices": 1}, "choices: got 1; it must be a whole number from 2 to 8, such as 4"),
        ({"choices": True}, "choices: got True"),
        ({"letters": ["A", "B", "C"]}, "letters: got 3; it needs at least 8, such as"),
        ({"letters": "ABCDEFGH"}, "letters: got 'ABCDEFGH'; it must be a list"),
        ({"colors": ["red", "blue", "light green", "gray"]}, "colors: 'light green' is no word"),
        ({"things": []}, "things: got 0; it needs at least 1"),
        ({"other_slot": "all"}, "other_slot: got 'all'; it must be a number from 0 to 1"),
    ],
)
def test_wrong_options_are_refused_in_one_line_that_names_what_would_do(
    options: dict[str, Any], expected: str
) -> None:
    check_refused(lambda: problem(**options), "multiple_choice", expected)


def test_the_trained_model_is_small_and_solves_the_pairs() -> None:
    files = [path for path in MODEL.rglob("*") if path.is_file()]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in files}
    assert sum(path.stat().st_size for path in files) < 2_000_000
    assert solved(MODEL, draw_pairs(problem(), VARIABLES, {"test": 100}, seed=0)) >= 0.9


@pytest.mark.parametrize(
    "folder", [MODEL, pytest.param(SMOLLM2, marks=[pytest.mark.model, needs_smollm2])]
)
def test_every_position_and_answer_is_one_token(folder: Any) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    pairs = draw_pairs(problem(), VARIABLES, COUNTS, 1)
    for pair, encoded in zip(
        pairs, encode(pairs, tokenizer, problem().positions, VARIABLES), strict=True
    ):
        assert all(len(ids) == 1 for ids in encoded.base_positions.values())
        assert all(
            len(answer_ids(tokenizer, pair.base.text, a)) == 1 for a in pair.counterfactual.values()
        )


def test_three_sets_tell_slot_and_letters_apart_and_each_pair_lists_its_letters() -> None:
    pairs = draw_pairs(problem(same_letters=0.3, cue=""), VARIABLES, {"test": 300}, seed=1)
    assert {pair.set for pair in pairs} == {"same_slot", "other_slot", "other_slot_same_letters"}
    for pair in pairs:
        base, source = pair.base.values, pair.sources["source"].values
        shared = set(base["letters"]) & set(source["letters"])  # type: ignore[call-overload]
        assert (
            bool(shared)
            == (base["letters"] == source["letters"])
            == (pair.set == "other_slot_same_letters")
        )
        moved = base["answer_pointer"] != source["answer_pointer"]
        assert moved == (pair.set != "same_slot")
        assert {*pair.answers.values(), *pair.counterfactual.values()} <= set(pair.choices)
        assert len(pair.choices) == (4 if shared else 8)
        assert not pair.base.text.endswith("Answer:")


def test_the_models_chat_template_is_the_form_that_it_was_trained_in() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    for pair in draw_pairs(problem(), VARIABLES, {"test": 5}, seed=1):
        asked = [{"role": "user", "content": pair.base.text.removesuffix(CUE)}]
        assert (
            tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
            == pair.base.text
        )
