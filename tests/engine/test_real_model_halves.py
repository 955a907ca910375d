"""SmolLM2-135M in bfloat16 and float16: the fast path is taken, answers are the canonical
computation's, and the rest is right."""

import pytest
import torch

from raysearch.core.events import Block, Task
from raysearch.core.hypothesis import Site, Unit
from raysearch.core.model_source import ModelSource
from raysearch.core.runner_settings import RunnerSettings
from raysearch.engine.execution.predict import predict
from raysearch.engine.loading.load import load
from raysearch.engine.loading.loaded_model import LoadedModel
from raysearch.engine.patching.build import build_row
from raysearch.engine.patching.generate import generate
from raysearch.engine.replica import Replica
from tests.engine import test_real_model
from tests.engine.test_real_model import FOLDER, PAIRS
from tests.engine.worlds import alike_products, residual

pytestmark = [*test_real_model.pytestmark, pytest.mark.slow]
BLOCK = Block("test", 0, (0, 1, 2, 3))
PLACES = [
    residual((layer, position)) for layer in (3, 12, 16, 28) for position in ("country", "last")
]


@pytest.fixture(scope="module", params=["bfloat16", "float16"])
def loaded(request: pytest.FixtureRequest) -> LoadedModel:
    return load(ModelSource(str(FOLDER), dtype=request.param))


@pytest.fixture(scope="module")
def replica(loaded: LoadedModel) -> Replica:
    return Replica(
        loaded, PAIRS, ["country"], ["country"], "worker-1", settings=RunnerSettings(rows=16)
    )


def test_it_takes_the_replay_path_and_says_what_the_canonical_computation_says(
    replica: Replica,
) -> None:
    facts, machine = replica.opened.facts, replica._runner
    assert (facts.path, facts.dtype) == (
        "replay",
        str(machine.network.model.dtype).removeprefix("torch."),
    )
    assert machine.tolerance <= 1.0
    if alike_products():  # a row has the same bits in every batch
        assert machine.near_tie == 0.0
    events = replica.do(Task(1, "measure", tuple(PLACES), (BLOCK,)))
    for event, place in zip(events, PLACES, strict=True):
        rows = [build_row(pair, place, machine.hook_points) for pair in replica.opened.encoded]
        with torch.inference_mode():
            canonical = [predict(machine.plain.logits([row]))[0].id for row in rows]
        assert [output[0] for output in event.outputs] == canonical
    own = tuple(e.answers["base"] for e in replica.opened.encoded)
    moved = tuple(e.counterfactual["country"] for e in replica.opened.encoded)
    assert [events[at].outputs for at in (0, 1, 6, 7)] == [moved, own, own, moved]


def test_attribution_finds_the_country_where_the_interchange_does(replica: Replica) -> None:
    units = tuple(
        Unit(Site(layer, "residual", position))
        for layer in (3, 28)
        for position in ("country", "last")
    )
    (event,) = replica.do(Task(2, "attribute", (), (BLOCK,), units=units))
    early, wrong, late_country, late = event.effects["country"]
    assert min(early, late) > 4 * max(abs(wrong), abs(late_country))


def test_generation_begins_with_what_is_measured(replica: Replica) -> None:
    machine = replica._runner
    for place, pair in (
        (PLACES[0], replica.opened.encoded[0]),
        (PLACES[7], replica.opened.encoded[1]),
    ):
        row = build_row(pair, place, machine.hook_points)
        assert (
            generate(machine.network, machine.hook_points, row, 1) == pair.counterfactual["country"]
        )
