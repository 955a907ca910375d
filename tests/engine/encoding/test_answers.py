"""Answers of several tokens and answers that are chosen: held against decoding by hand, one full
forward pass and one hook at a time."""

import random
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from raysearch import Pair
from raysearch.causal import ONE_SOURCE
from raysearch.core.events import Encoded, Ids, Measured, Screened, Task
from raysearch.core.hypothesis import Intervention, Site, Unit
from raysearch.core.prompt_format import PromptFormat
from raysearch.core.runner_settings import RunnerSettings
from raysearch.engine.loading.loaded_model import LoadedModel
from raysearch.engine.networks.network import LanguageModel
from raysearch.engine.replica import Replica
from raysearch.errors import ModelError, PairsError
from tests.engine.worlds import (
    POSITIONS,
    WORDS,
    blocks_of,
    model_of,
    random_pairs,
    residual,
    word_tokenizer,
)

TOKENS = 3
PLACES = tuple((layer, position) for layer in (0, 1) for position in (*POSITIONS, "last"))
SEQUENCE = PromptFormat(compare="sequence")


def answered(pairs: tuple[Pair, ...], seed: int = 0) -> tuple[Pair, ...]:
    """With answers of one to three tokens, one of three in the first pair."""
    rng = random.Random(seed)

    def answer(words: int) -> str:
        return "".join(" " + rng.choice(WORDS[:18]) for _ in range(words))

    def longer(pair: Pair) -> Pair:
        answers = {name: answer(rng.randint(1, TOKENS)) for name in pair.answers}
        return replace(
            pair, answers=answers, counterfactual={"x": answer(TOKENS if pair.index == 0 else 1)}
        )

    return tuple(map(longer, pairs))


def replica_of(model, pairs, wording: PromptFormat, **settings) -> Replica:
    loaded = LoadedModel(model, word_tokenizer(before=True), "", "float32", wording)
    return Replica(loaded, pairs, POSITIONS, ["x"], "w", settings=RunnerSettings(**settings))


def hidden_in(output: object) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


@torch.inference_mode()
def by_hand(
    network: LanguageModel, pair: Encoded, layer: int, position: str, tokens: int, among: Ids = ()
) -> Ids:
    """Greedy: each token by a full pass of its own, the block's output at the position overwritten
    in each."""
    block, kept = network.blocks[layer], []
    handle = block.register_forward_hook(lambda m, i, o: kept.append(hidden_in(o)[0].clone()))
    network.plain(pair.sources[ONE_SOURCE])
    handle.remove()
    ours, theirs = pair.base_positions[position], pair.source_positions[ONE_SOURCE][position]

    def write(_m: object, _i: object, output: object) -> object:
        hidden = hidden_in(output).clone()
        hidden[0, list(ours)] = kept[0][list(theirs)]
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle, said = block.register_forward_hook(write), list(pair.base)
    for _ in range(tokens):
        logits = network.plain(tuple(said))
        said.append(max(among, key=lambda i: float(logits[i])) if among else int(logits.argmax()))
    handle.remove()
    return tuple(said[len(pair.base) :])


def measured(
    replica: Replica, pairs, places=PLACES, size: int = 4
) -> dict[tuple[int, str, int], Ids]:
    interventions = {residual(place): place for place in places}
    events = replica.do(Task(1, "measure", tuple(interventions), blocks_of(pairs, size)))
    assert all(isinstance(e, Measured) for e in events), events
    by_key = {i.key: place for i, place in interventions.items()}
    return {
        (*by_key[e.intervention], p): out
        for e in events
        for p, out in zip(e.pairs, e.outputs, strict=True)
    }


@pytest.mark.slow_unless(family=["llama", "bloom"])
@pytest.mark.parametrize(
    ("family", "path"),
    [("llama", "replay"), ("gpt2", "replay"), ("mistral", "replay"), ("bloom", "batched")],
)
def test_a_sequence_is_decoded_as_by_full_passes_with_the_intervention_in_force(
    family: str, path: str
) -> None:
    model, pairs = model_of(family), answered(random_pairs(1, 10))
    replica = replica_of(model, pairs, SEQUENCE)
    assert replica.opened.facts.path == path
    assert len({len(e.base) for e in replica.opened.encoded}) > 3  # prompts of several lengths
    network, encoded = LanguageModel(model), {e.index: e for e in replica.opened.encoded}
    said = measured(replica, pairs)
    assert {len(out) for out in said.values()} == {TOKENS}
    assert said == {key: by_hand(network, encoded[key[2]], *key[:2], TOKENS) for key in said}
    plain = replica_of(model, pairs, SEQUENCE, plain=True)
    assert measured(plain, pairs) == said
    left_alone = replica.do(Task(2, "screen", (), blocks_of(pairs, 4)))
    changed = [
        said[key] != out
        for e in left_alone
        for p, out in zip(e.pairs, e.base, strict=True)
        for key in said
        if key[2] == p
    ]
    assert any(changed)
    assert not all(changed)


@pytest.mark.slow
def test_a_sequence_of_near_ties_does_not_depend_on_company() -> None:
    model, pairs = model_of("llama", scale=0.05), answered(random_pairs(2, 8))
    replica = replica_of(model, pairs, SEQUENCE)
    network, encoded = LanguageModel(model), {e.index: e for e in replica.opened.encoded}
    said = measured(replica, pairs)
    assert said == measured(replica_of(model, pairs, SEQUENCE), pairs, PLACES[::-1], 3)
    assert said == {key: by_hand(network, encoded[key[2]], *key[:2], TOKENS) for key in said}


def test_screening_decodes_bases_and_sources_as_the_models_own_generation_does() -> None:
    model, pairs = model_of("llama"), answered(random_pairs(3, 8))
    replica = replica_of(model, pairs, SEQUENCE)
    encoded = {e.index: e for e in replica.opened.encoded}
    for event in replica.do(Task(1, "screen", (), blocks_of(pairs, 4))):
        assert isinstance(event, Screened)
        for index, base, source in zip(
            event.pairs, event.base, event.sources[ONE_SOURCE], strict=True
        ):
            for ids, out in (
                (encoded[index].base, base),
                (encoded[index].sources[ONE_SOURCE], source),
            ):
                generated = model.generate(
                    torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=TOKENS, do_sample=False,
                    eos_token_id=None, pad_token_id=0,
                )  # fmt: skip
                assert tuple(generated[0, len(ids) :].tolist()) == out


def test_an_intervention_that_fails_in_a_sequence_takes_nobody_with_it() -> None:
    pairs = answered(random_pairs(1, 4))
    replica = replica_of(model_of("llama"), pairs, SEQUENCE)
    wrong = Intervention((Unit(Site(0, "residual", "nowhere")),))
    events = replica.do(Task(1, "measure", (wrong, residual(PLACES[0])), blocks_of(pairs, 4)))
    assert [type(e).__name__ for e in events] == ["Failed", "Measured"]


def test_the_answer_itself_must_fit_the_model() -> None:
    pairs = answered(random_pairs(1, 2, shortest=30, longest=30))
    with pytest.raises(
        ModelError, match="pair 0: has 31 tokens and 2 of an answer; the model takes at most 32"
    ):
        replica_of(model_of("llama"), pairs, SEQUENCE)


def test_a_choice_is_the_best_of_what_the_pair_lists() -> None:
    rng = random.Random(0)
    pairs = []
    for pair in random_pairs(4, 10):
        listed = tuple(
            dict.fromkeys(
                [
                    *pair.answers.values(),
                    *pair.counterfactual.values(),
                    " " + rng.choice(WORDS[:18]),
                ]
            )
        )
        pairs.append(replace(pair, choices=listed))
    model, choices = model_of("llama"), PromptFormat(compare="choices")
    replica = replica_of(model, tuple(pairs), choices)
    network, encoded = LanguageModel(model), {e.index: e for e in replica.opened.encoded}
    said = measured(replica, pairs)
    for (layer, position, index), out in said.items():
        e = encoded[index]
        assert len(e.choices) == len(pairs[index].choices)
        assert out == by_hand(network, e, layer, position, 1, e.choices)
    assert any(
        out != by_hand(network, encoded[i], layer, position, 1)
        for (layer, position, i), out in said.items()
    )
    for event in replica.do(Task(1, "screen", (), blocks_of(pairs, 4))):
        for index, base, source in zip(
            event.pairs, event.base, event.sources[ONE_SOURCE], strict=True
        ):
            e = encoded[index]
            for ids, out in ((e.base, base), (e.sources[ONE_SOURCE], source)):
                assert out == (max(e.choices, key=lambda i: float(network.plain(ids)[i])),)
    assert measured(replica_of(model, tuple(pairs), choices, plain=True), pairs) == said


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        ((), "pair 0: lists no choices; answer.compare: choices needs at least two"),
        ((" w1", " w1"), "pair 0: lists ' w1', ' w1'; .* at least two"),
        ((" w1", " w2"), "pair 0: the answer of x, ' w3', is none of its choices: ' w1', ' w2'"),
        (
            (" w1", " w2", " w3", " w3 w4"),
            "pair 0: the choices ' w3' and ' w3 w4' begin with the same token",
        ),
    ],
)
def test_choices_that_cannot_be_chosen_among_are_refused(
    choices: tuple[str, ...], says: str
) -> None:
    (pair,) = random_pairs(0, 1)
    pair = replace(
        pair,
        answers={"base": " w1", ONE_SOURCE: " w2"},
        counterfactual={"x": " w3"},
        choices=choices,
    )
    with pytest.raises(PairsError, match=says):
        replica_of(model_of("llama"), (pair,), PromptFormat(compare="choices"))
