"""Tokens taken of a position, by index, and all of them: on prompts of any length, every path
agrees with plain forward passes."""

import random
from dataclasses import replace

import pytest
import torch

from raysearch import Input, Pair
from raysearch.causal import EVERY, ONE_SOURCE
from raysearch.core.events import Encoded, Measured, Task
from raysearch.core.runner_settings import RunnerSettings
from raysearch.engine.encoding.encode import encode
from raysearch.engine.replica import Replica
from raysearch.errors import PositionError
from tests.engine.worlds import (
    blocks_of,
    loaded,
    model_of,
    random_pairs,
    residual,
    shared_world,
    word_tokenizer,
)

TAKEN = ("here.first", "here.last", "here.align_right", "token_2")


def uneven_pairs() -> tuple[Pair, ...]:
    """Inputs of 3 to 9 words, "here" one to three of them."""
    rng = random.Random(5)

    def wider(one: Input) -> Input:
        start = one.spans["here"][0]
        words = one.text[start:].split(" ")[: rng.randint(1, 3)]
        return Input(one.text, {"here": (start, start + len(" ".join(words)))})

    return tuple(
        replace(p, base=wider(p.base), sources={ONE_SOURCE: wider(p.sources[ONE_SOURCE])})
        for p in random_pairs(5, 12, shortest=3)
    )


PAIRS = uneven_pairs()


def by_hand(model: torch.nn.Module, pair: Encoded, layer: int, position: str) -> int:
    """Two forward passes and one hook, in plain torch."""
    kept: list[torch.Tensor] = []
    ours, theirs = (
        list(pair.base_positions[position]),
        list(pair.source_positions[ONE_SOURCE][position]),
    )

    def lend(_module: object, _given: object, out: torch.Tensor) -> None:
        kept.append(out[0, theirs].clone())

    def take(_module: object, _given: object, out: torch.Tensor) -> torch.Tensor:
        out = out.clone()
        out[0, ours] = kept[0]
        return out

    with torch.no_grad():
        for hook, ids in ((lend, pair.sources[ONE_SOURCE]), (take, pair.base)):
            handle = model.model.layers[layer].register_forward_hook(hook)
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
            handle.remove()
    return int(logits.argmax())


@pytest.mark.parametrize("plain", [False, True])
def test_taken_tokens_of_prompts_of_any_length_are_measured_as_plain_forward_passes_say(
    plain: bool,
) -> None:
    model = model_of("llama")
    replica = Replica(loaded(model), PAIRS, TAKEN, ["x"], "w", settings=RunnerSettings(plain=plain))
    assert replica.opened.facts.path == ("plain" if plain else "replay")
    encoded = {e.index: e for e in replica.opened.encoded}
    assert len({len(e.base) for e in encoded.values()}) > 3
    assert len({len(e.base_positions["here.align_right"]) for e in encoded.values()}) > 1
    places = {
        residual((layer, position)).id: (layer, position) for layer in (0, 2) for position in TAKEN
    }
    asked = tuple(residual(place) for place in places.values())
    events = replica.do(Task(0, "measure", asked, blocks_of(PAIRS, 5)))
    seen = {
        (e.intervention, p): out
        for e in events
        if isinstance(e, Measured)
        for p, out in zip(e.pairs, e.outputs, strict=True)
    }
    assert len(seen) == len(places) * len(PAIRS)
    changed = 0
    for (intervention, index), (output,) in seen.items():
        wanted = by_hand(model, encoded[index], *places[intervention])
        assert output == wanted, (places[intervention], index)
        changed += wanted != int(shared_world("llama").plain(encoded[index].base).argmax())
    assert changed > len(seen) / 4


def test_without_a_take_spans_of_other_lengths_are_refused_by_their_pair() -> None:
    with pytest.raises(
        PositionError,
        match=r"pair \d+: position 'here' has \d tokens in the base and \d in the source",
    ):
        encode(PAIRS, word_tokenizer(), ["here"], ["x"])


def test_a_replica_says_how_many_tokens_there_are_where_all_are_positions() -> None:
    pairs = random_pairs(3, 4, shortest=4, longest=4)
    replica = Replica(loaded(model_of("llama")), pairs, (EVERY, "here"), ["x"], "w")
    assert replica.opened.facts.tokens == 4
    names = {"token_0", "token_1", "token_2", "token_3", "here", "last"}
    assert all(set(e.base_positions) == names for e in replica.opened.encoded)
    with pytest.raises(PositionError, match="positions: all needs"):
        Replica(loaded(model_of("llama")), PAIRS, (EVERY,), ["x"], "w")
