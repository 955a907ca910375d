"""Capitals: the texts, the table of countries, the counterfactuals, the drawn pairs."""

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from raysearch import draw_pairs
from raysearch.problems.capitals import COUNTRIES, FACTS, LEFT_OUT, POSITIONS, RELATIONS, problem
from tests.problems.refused import check_refused

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MODEL = Path(__file__).resolve().parents[2] / "models" / "SmolLM2-135M-Instruct"
VARIABLES = ("country", "relation", "answer")

needs_model = pytest.mark.skipif(
    not MODEL.is_dir(), reason=f"no {MODEL}; python scripts/fetch_smollm2.py makes it"
)


@pytest.fixture(scope="module")
def tokenizer() -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(MODEL)


@pytest.fixture
def one_thread() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _ids(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_every_span_cuts_out_its_own_word() -> None:
    capitals = problem()
    for country, relation in itertools.product(COUNTRIES, RELATIONS):
        shown = capitals.render({"country": country, "relation": relation})
        assert shown.text == f"In the country of {country}, the official {relation} is"
        words = [shown.text[start:end] for start, end in (shown.spans[name] for name in POSITIONS)]
        assert words == [country, ",", "the", "official", relation]
        assert tuple(shown.spans) == capitals.positions


def test_the_default_countries_are_those_of_the_table_that_are_not_left_out() -> None:
    left_out = list(itertools.chain.from_iterable(LEFT_OUT.values()))
    assert len(set(left_out)) == len(left_out)
    assert set(left_out) <= set(FACTS)
    assert set(COUNTRIES) == set(FACTS) - set(left_out)
    assert (len(FACTS), len(COUNTRIES)) == (121, 82)
    assert list(FACTS) == sorted(FACTS)


def test_counterfactuals_are_right_on_examples_written_by_hand() -> None:
    model = problem().model
    base = {"country": "Spain", "relation": "capital"}
    other = {"country": "Italy", "relation": "language"}
    assert model.run(base)["answer"] == "Madrid"
    assert model.run(other)["answer"] == "Italian"
    assert {v: model.interchange(base, {v: other}) for v in VARIABLES} == {
        "country": "Rome",
        "relation": "Spanish",
        "answer": "Italian",
    }
    same = {"country": "Egypt", "relation": "capital"}
    assert {v: model.interchange(base, {v: same}) for v in VARIABLES} == {
        "country": "Cairo",
        "relation": "Madrid",
        "answer": "Cairo",
    }


def test_answers_follow_the_text_with_a_blank() -> None:
    assert problem().answer("Madrid") == " Madrid"


def test_only_relation_ever_keeps_the_answer_of_the_base() -> None:
    for pair in draw_pairs(problem(), VARIABLES, {"fit": 0, "test": 400, "holdout": 100}, seed=1):
        changed = {v for v in VARIABLES if pair.counterfactual[v] != pair.answers["base"]}
        if pair.set == "same_relation":
            assert changed == {"country", "answer"}
            assert (
                pair.counterfactual["country"]
                == pair.counterfactual["answer"]
                == pair.answers["source"]
            )
        else:
            assert pair.set == "other_relation"
            assert changed == set(VARIABLES)
            assert pair.counterfactual["answer"] == pair.answers["source"]
            assert len(set(pair.counterfactual.values())) == 3


def test_three_of_four_pairs_have_a_source_of_the_other_relation() -> None:
    rng = random.Random(0)
    default, always, never = problem(), problem(other_relation=1), problem(other_relation=0)
    draws = [default.sample(rng) for _ in range(4000)]
    assert 0.72 < sum(b["relation"] != s["relation"] for b, s in draws) / len(draws) < 0.78
    assert 0.47 < sum(b["relation"] == "capital" for b, _ in draws) / len(draws) < 0.53
    assert {b["country"] for b, _ in draws} == {s["country"] for _, s in draws} == set(COUNTRIES)
    assert all(b["relation"] != s["relation"] for b, s in (always.sample(rng) for _ in range(50)))
    assert all(b["relation"] == s["relation"] for b, s in (never.sample(rng) for _ in range(50)))


def test_no_base_and_source_stand_in_two_splits() -> None:
    # Five countries: so few that every split draws the same ones again and again.
    few = problem(countries=["Spain", "Italy", "Japan", "Egypt", "Poland"])
    pairs = draw_pairs(few, VARIABLES, {"fit": 60, "test": 60, "holdout": 60}, seed=3)
    splits: dict[tuple[str, str], set[str]] = {}
    for pair in pairs:
        splits.setdefault((pair.base.text, pair.sources["source"].text), set()).add(pair.split)
    assert len(pairs) == 180
    assert len(splits) < 180, "some are drawn twice, else this shows nothing"
    assert all(len(s) == 1 for s in splits.values())


def test_the_same_seed_draws_the_same_pairs() -> None:
    counts = {"fit": 0, "test": 50, "holdout": 0}
    assert draw_pairs(problem(), VARIABLES, counts, 7) == draw_pairs(
        problem(), VARIABLES, counts, 7
    )
    assert draw_pairs(problem(), VARIABLES, counts, 7) != draw_pairs(
        problem(), VARIABLES, counts, 8
    )


def test_a_country_that_is_left_out_may_be_asked_about() -> None:
    some = problem(countries=["Turkey", "Japan", "Turkey"])
    assert some.model.run({"country": "Turkey", "relation": "capital"})["answer"] == "Ankara"
    assert some.model.variables[0].domain == ("Turkey", "Japan")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"countries": ["Spain", "Spian"]}, "'Spian' is not one of the 121 .* it could be Spain"),
        ({"countries": ["Spain", 7]}, "7 is not one of the 121 .* it could be Spain, Italy, Japan"),
        ({"countries": ["Spain", ["Italy"]]}, r"\['Italy'\] is not one of the 121"),
        ({"countries": "Spain"}, r"got 'Spain'; it must be a list, such as \[Spain, Italy\]"),
        ({"countries": []}, "an empty list: no two .* give at least two that do"),
        ({"countries": ["Spain", "Chile"]}, "Spain, Chile: no two of them differ"),
        ({"other_relation": 1.5}, "got 1.5; it must be a number from 0 to 1, such as 0.75"),
        ({"other_relation": True}, "got True; it must be a number from 0 to 1"),
        ({"other_relation": "most"}, "got 'most'; it must be a number from 0 to 1"),
    ],
)
def test_wrong_options_are_refused_in_one_line_that_names_what_would_do(
    options: dict[str, Any], expected: str
) -> None:
    check_refused(lambda: problem(**options), "capitals", expected)


@pytest.mark.model
@needs_model
def test_every_country_is_one_token_at_the_same_place(tokenizer: "PreTrainedTokenizerBase") -> None:
    for country, relation in itertools.product(FACTS, RELATIONS):
        shown = problem(countries=[country, "Japan", "Italy"]).render(
            {"country": country, "relation": relation}
        )
        encoded = tokenizer(shown.text, return_offsets_mapping=True)
        assert len(encoded["input_ids"]) == 10, shown.text
        ends = [end for _, end in encoded["offset_mapping"]]
        assert [ends.index(shown.spans[name][1]) for name in POSITIONS] == [4, 5, 6, 7, 8]


@pytest.mark.model
@needs_model
def test_the_default_answers_have_distinct_first_tokens_that_copy_no_country(
    tokenizer: "PreTrainedTokenizerBase",
) -> None:
    first: dict[int, str] = {}
    for country, relation in itertools.product(COUNTRIES, RELATIONS):
        answer = FACTS[country][relation]
        token = _ids(tokenizer, f" {answer}")[0]
        assert first.setdefault(token, answer) == answer, "two answers, one first token"
        assert token != _ids(tokenizer, f" {country}")[0]
    capitals = [FACTS[c]["capital"] for c in COUNTRIES]
    assert len(set(capitals)) == len(COUNTRIES)


@pytest.mark.slow
@pytest.mark.model
@needs_model
@pytest.mark.usefixtures("one_thread")
def test_the_model_knows_the_default_countries_and_not_those_left_out(
    tokenizer: "PreTrainedTokenizerBase",
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
    render = problem(countries=list(FACTS)).render
    right: dict[str, set[str]] = {}
    for relation in RELATIONS:
        ids = [_ids(tokenizer, render({"country": c, "relation": relation}).text) for c in FACTS]
        with torch.no_grad():
            said = model(torch.tensor(ids), logits_to_keep=1).logits[:, -1].argmax(-1).tolist()
        right[relation] = {
            c
            for c, s in zip(FACTS, said, strict=True)
            if s == _ids(tokenizer, f" {FACTS[c][relation]}")[0]
        }
    assert {relation: len(countries) for relation, countries in right.items()} == {
        "capital": 95,
        "language": 104,
    }
    both = set.intersection(*right.values())
    assert set(COUNTRIES) <= both
    wrong, *_ = LEFT_OUT.values()
    assert set(wrong) == set(FACTS) - both
