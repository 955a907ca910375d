"""The problem a + b + c, and the planted model that solves it: spans, counterfactuals, and the
truth that is planted."""

import json
import random
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from raysearch import Pair, draw_pairs
from raysearch.causal import differing_shares
from raysearch.errors import CausalModelError
from raysearch.problems.add_three import problem

ROOT = Path(__file__).parents[2]
PLANTED = ROOT / "jobs" / "planted"
VARIABLES = ("a", "b", "c", "sum_ab", "total")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(PLANTED / "model")


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(PLANTED / "model").eval()


@pytest.fixture(scope="module")
def pairs() -> tuple[Pair, ...]:
    return draw_pairs(problem(), VARIABLES, {"test": 500}, seed=3)


def rendered(a: int, b: int, c: int, highest: int = 9):
    asked = problem(highest)
    return asked.render(asked.model.run({"a": a, "b": b, "c": c}))


@pytest.mark.parametrize(
    ("numbers", "highest"), [((3, 5, 4), 9), ((0, 0, 0), 9), ((12, 7, 100), 100)]
)
def test_each_span_cuts_out_exactly_its_word(numbers, highest):
    asked = rendered(*numbers, highest)
    a, b, c = (str(n) for n in numbers)
    assert asked.text == f"{a}+{b}+{c}="
    words = {name: asked.text[start:end] for name, (start, end) in asked.spans.items()}
    assert words == {"a": a, "plus1": "+", "b": b, "plus2": "+", "c": c}
    assert tuple(asked.spans) == problem().positions
    assert asked.spans["plus1"][0] < asked.spans["b"][0] < asked.spans["plus2"][0]


def test_an_input_carries_the_values_of_all_variables():
    assert dict(rendered(3, 5, 4).values) == {"a": 3, "b": 5, "c": 4, "sum_ab": 8, "total": 12}


@pytest.mark.parametrize(
    ("variable", "expected"),
    [("a", 1 + 5 + 4), ("b", 3 + 9 + 4), ("c", 3 + 5 + 7), ("sum_ab", 1 + 9 + 4), ("total", 17)],
)
def test_counterfactuals_are_those_worked_out_by_hand(variable, expected):
    base, source = {"a": 3, "b": 5, "c": 4}, {"a": 1, "b": 9, "c": 7}
    assert problem().model.interchange(base, {variable: source}) == expected


def test_answers_are_sums_written_as_text(pairs):
    for pair in pairs:
        for name, asked in {"base": pair.base, **pair.sources}.items():
            assert pair.answers[name] == str(
                asked.values["a"] + asked.values["b"] + asked.values["c"]
            )


def test_the_sampler_draws_base_and_source_independently_and_evenly():
    rng, sample = random.Random("evenly"), problem().sample
    drawn = [sample(rng) for _ in range(5000)]
    for name in ("a", "b", "c"):
        for side in (0, 1):
            values = [pair[side][name] for pair in drawn]
            assert all(400 <= values.count(n) <= 600 for n in range(10)), (
                f"{name} is drawn unevenly"
            )
        assert 400 <= sum(base[name] == source[name] for base, source in drawn) <= 600


def test_the_pairs_tell_every_two_variables_apart(pairs):
    assert min(differing_shares([pair.counterfactual for pair in pairs], VARIABLES).values()) > 0.85


@pytest.mark.parametrize("highest", [0, -1, 2.5, "9", True])
def test_a_highest_number_that_is_none_is_refused(highest):
    with pytest.raises(CausalModelError, match="whole number from 1 to 9999"):
        problem(highest)


def test_the_planted_model_is_under_two_megabytes():
    files = [
        path for path in PLANTED.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    ]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in files}
    assert sum(path.stat().st_size for path in files) < 2_000_000


def test_the_answer_is_one_token_and_leaves_the_tokens_of_the_text(tokenizer):
    for total in range(28):
        text = "9+0+4="
        alone, joined = tokenizer(text)["input_ids"], tokenizer(text + str(total))["input_ids"]
        assert joined[:-1] == alone
        assert tokenizer.decode(joined[-1:]) == str(total)
    assert tokenizer.decode(alone) == "9+0+4="


def test_every_position_is_one_token_by_the_offset_mapping(tokenizer, pairs):
    for pair in pairs[:50]:
        offsets = tokenizer(pair.base.text, return_offsets_mapping=True)["offset_mapping"]
        assert [tuple(o) for o in offsets[:-1]] == list(pair.base.spans.values())
        assert pair.base.text[slice(*offsets[-1])] == "="


def test_the_planted_model_solves_every_sum(model, tokenizer):
    numbers = list(product(range(10), repeat=3))
    ids = torch.tensor(tokenizer([f"{a}+{b}+{c}=" for a, b, c in numbers])["input_ids"])
    with torch.no_grad():
        answers = model(ids, use_cache=False).logits[:, -1].argmax(1)
    assert tokenizer.batch_decode(answers[:, None]) == [str(sum(row)) for row in numbers]


@torch.no_grad()
def swapped_answers(model, tokenizer, pairs, part: Tensor) -> list[str]:
    """The answers when `part` (a projection, [64, 64]) of the residual after layer 1 at "plus2" is
    the source's."""
    plus2, seen = 3, []
    base = torch.tensor(tokenizer([p.base.text for p in pairs])["input_ids"])
    source = torch.tensor(tokenizer([p.sources["source"].text for p in pairs])["input_ids"])

    def take(_module, _args, out):
        seen.append(out[:, plus2].clone())

    def put(_module, _args, out):
        out = out.clone()
        out[:, plus2] += (seen[0] - out[:, plus2]) @ part
        return out

    handle = model.model.layers[1].register_forward_hook(take)
    model(source, use_cache=False)
    handle.remove()
    handle = model.model.layers[1].register_forward_hook(put)
    logits = model(base, use_cache=False).logits
    handle.remove()
    return tokenizer.batch_decode(logits[:, -1].argmax(1)[:, None])


def share_of_change_pairs(answers: list[str], pairs: tuple[Pair, ...], variable: str) -> float:
    hits = [
        answer == pair.counterfactual[variable]
        for answer, pair in zip(answers, pairs, strict=True)
        if pair.counterfactual[variable] != pair.answers["base"]
    ]
    return sum(hits) / len(hits)


def test_a_full_swap_at_the_second_plus_carries_a_plus_b(model, tokenizer, pairs):
    answers = swapped_answers(model, tokenizer, pairs, torch.eye(64))
    assert share_of_change_pairs(answers, pairs, "sum_ab") >= 0.97
    assert (
        max(share_of_change_pairs(answers, pairs, other) for other in ("a", "b", "c", "total"))
        < 0.3
    )


def test_the_planted_subspace_alone_carries_a_plus_b_and_the_rest_carries_nothing(
    model, tokenizer, pairs
):
    basis = load_file(PLANTED / "subspace.safetensors")["basis"]
    assert basis.shape == (64, 16)
    torch.testing.assert_close(basis.T @ basis, torch.eye(16))
    inside = basis @ basis.T
    assert (
        share_of_change_pairs(swapped_answers(model, tokenizer, pairs, inside), pairs, "sum_ab")
        >= 0.97
    )
    outside = swapped_answers(model, tokenizer, pairs, torch.eye(64) - inside)
    assert sum(
        answer == pair.answers["base"] for answer, pair in zip(outside, pairs, strict=True)
    ) >= 0.97 * len(pairs)


def test_no_planted_cell_is_near_the_threshold():
    truth = json.loads((ROOT / "tests" / "planted_cells.json").read_text())
    cells = truth["cells"]
    assert (
        len({(c["variable"], c["layer"], c["position"]) for c in cells}) == len(cells) == 5 * 4 * 6
    )
    assert all(cell["iia"] >= 0.97 or cell["iia"] <= 0.6 for cell in cells)
    assert truth["true_cells"] == [cell for cell in cells if cell["iia"] > truth["threshold"]]
    assert {cell["variable"] for cell in truth["true_cells"]} == set(VARIABLES)
