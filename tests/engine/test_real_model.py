"""The engine on a real language model, SmolLM2-135M: it knows capitals, and batched rows are the
oracle's."""

from dataclasses import replace
from pathlib import Path

import pytest

from raysearch import Input, Pair
from raysearch.causal import ONE_SOURCE
from raysearch.core.events import Block, Task
from raysearch.core.hypothesis import Intervention, Site, Unit
from raysearch.core.model_source import ModelSource
from raysearch.core.runner_settings import RunnerSettings
from raysearch.engine.encoding.encode import encode
from raysearch.engine.execution.predict import NEAR_TIE
from raysearch.engine.loading.load import load
from raysearch.engine.loading.loaded_model import LoadedModel
from raysearch.engine.patching.build import build_row
from raysearch.engine.replica import Replica
from tests.engine.worlds import residual, world_of

FOLDER = Path(__file__).parents[2] / "models" / "SmolLM2-135M-Instruct"
pytestmark = [
    pytest.mark.slow,  # .ci/run searches it by `make demo`
    pytest.mark.model,
    pytest.mark.skipif(
        not (FOLDER / "config.json").is_file(),
        reason=f"no model in {FOLDER}: make install fetches it",
    ),
]

CAPITALS = {
    "Italy": " Rome",
    "France": " Paris",
    "Germany": " Berlin",
    "England": " London",
}


def asked(country: str, before: str = "") -> Input:
    text = f"{before}The capital of {country} is the city of"
    start = text.index(country)
    return Input(text, {"country": (start, start + len(country))})


def pairs_of(*countries: tuple[str, str]) -> tuple[Pair, ...]:
    return tuple(
        Pair(
            index,
            asked(base),
            {ONE_SOURCE: asked(source)},
            {"base": CAPITALS[base], ONE_SOURCE: CAPITALS[source]},
            {"country": CAPITALS[source]},
            "test",
        )
        for index, (base, source) in enumerate(countries)
    )


PAIRS = pairs_of(
    ("Italy", "France"), ("France", "Germany"), ("Germany", "England"), ("England", "Italy")
)


@pytest.fixture(scope="module")
def smollm() -> LoadedModel:
    return load(ModelSource(str(FOLDER)))


@pytest.fixture(scope="module")
def replica(smollm: LoadedModel) -> Replica:
    return Replica(
        smollm, PAIRS, ["country"], ["country"], "worker-1", settings=RunnerSettings(rows=16)
    )


def decoded(smollm: LoadedModel, outputs: tuple[tuple[int, ...], ...]) -> list[str]:
    return [smollm.tokenizer.decode(list(ids)) for ids in outputs]


def test_it_goes_on_from_the_capital_of_spain_to_madrid(smollm: LoadedModel) -> None:
    spain = Input("The capital of Spain is", {"country": (15, 20)})
    pair = Pair(
        0,
        spain,
        {ONE_SOURCE: spain},
        {"base": " Madrid", ONE_SOURCE: " Madrid"},
        {"country": " Madrid"},
        "test",
    )
    alone = Replica(smollm, [pair], ["country"], ["country"], "w")
    (screened,) = alone.do(Task(0, "screen", (), (Block("test", 0, (0,)),)))
    assert decoded(smollm, screened.base) == [" Madrid"]
    assert screened.base[0] == alone.opened.encoded[0].answers["base"]


def test_it_passes_its_own_check_and_solves_the_capitals(
    smollm: LoadedModel, replica: Replica
) -> None:
    facts = replica.opened.facts
    assert (facts.layers, facts.width, facts.heads, facts.path) == (30, 576, 9, "replay")
    (screened,) = replica.do(Task(0, "screen", (), (Block("test", 0, (0, 1, 2, 3)),)))
    assert decoded(smollm, screened.base) == [p.answers["base"] for p in PAIRS]


def test_the_country_is_at_its_word_in_early_layers_and_at_the_last_in_late_ones(
    replica: Replica,
) -> None:
    places = [residual((layer, position)) for layer in (3, 28) for position in ("country", "last")]
    events = replica.do(Task(1, "measure", tuple(places), (Block("test", 0, (0, 1, 2, 3)),)))
    own = tuple(e.answers["base"] for e in replica.opened.encoded)
    moved = tuple(e.counterfactual["country"] for e in replica.opened.encoded)
    assert [e.outputs for e in events] == [moved, own, own, moved]


def test_fast_rows_equal_the_oracle_on_a_real_model(smollm: LoadedModel, record_property) -> None:
    world = world_of(smollm.model)
    longer = [
        replace(
            p,
            base=asked(name, before),
            sources={ONE_SOURCE: asked("Italy", "Now, as everybody knows: ")},
        )
        for p, name, before in zip(
            PAIRS, CAPITALS, ("Well, ", "", "It is said that ", "So. "), strict=False
        )
    ]
    encoded = encode(longer, smollm.tokenizer, ["country"], ["country"])
    places = [residual((layer, at)) for layer in (0, 14, 29) for at in ("country", "last")]
    places += [
        Intervention((Unit(Site(9, c, "country", head)),))
        for c, head in (("head", 4), ("value", 1), ("mlp_activation", None))
    ]
    rows = [build_row(p, place, world.taps) for p in encoded for place in places]
    wanted = {row: world.oracle(row) for row in rows}
    worst = 0.0
    for path in world.fast(16):
        for batch in path.batches(rows):
            for row, ours in zip(batch, path.logits(batch), strict=True):
                worst = max(worst, float((ours - wanted[row]).abs().max()))
    record_property("max_abs_logit_difference", worst)
    print(f"max |difference of a logit| = {worst:.2g}")
    assert worst <= NEAR_TIE["float32"] / 4
