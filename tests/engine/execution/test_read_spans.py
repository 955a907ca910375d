"""Of a run only what rows read is stored: bytes by formula at two lengths; what is asked for beyond
the plan is run again, and right."""

import pytest

from raysearch.core.events import Measured
from raysearch.core.hypothesis import Intervention, Site, Unit
from raysearch.core.runner_settings import RunnerSettings
from raysearch.engine.execution.read_spans import ReadSpan, ReadSpans
from raysearch.engine.patching.rows import Row
from raysearch.engine.replica import Replica
from tests.engine.execution.test_swaps import row_by_row
from tests.engine.test_replica import measure
from tests.engine.worlds import blocks_of, loaded, model_of, random_pairs

WIDTH, KEYS, LAYERS, ITEM = 32, 32, 4, 4
"""Of the tiny Llama: d_model, the keys and values of a token in a layer, layers, bytes."""


def replica_of(pairs, positions, layers) -> Replica:
    settings = RunnerSettings(layers=layers)
    return Replica(loaded(model_of("llama")), pairs, positions, ["x"], "w", "n", settings)


def at(layer: int, position: str = "here") -> Intervention:
    return Intervention((Unit(Site(layer, "residual", position)),))


@pytest.mark.parametrize("length", [8, 24])
@pytest.mark.parametrize("layers", [(2,), (1, 3), None])
def test_bytes_of_runs_are_those_of_the_layers_and_tokens_that_are_read(length, layers) -> None:
    pairs = random_pairs(length, 6, shortest=length, longest=length)
    replica = replica_of(pairs, ["here"], layers)
    cache, read = replica._runner.cache, range(LAYERS) if layers is None else layers
    cache._runs.clear()  # of the self-check, which stores all
    measure(replica, [at(layer) for layer in read], blocks_of(pairs, 6))
    found = 0
    for pair in replica.opened.encoded:
        (first,), (token,) = pair.base_positions["here"], pair.source_positions["source"]["here"]
        for given, tokens, keys in (
            (pair.base, length - first, first),
            (pair.sources["source"], 1, 0),
        ):
            cache._runs.clear()
            (run,) = cache.runs([Row(given)]).values()
            above = LAYERS - (0 if layers is None else min(layers))
            numbers = len(read) * WIDTH * tokens + KEYS * keys * above
            assert run.nbytes == ITEM * numbers, (given, first, token)
            found += run.nbytes
    whole = ITEM * 2 * len(pairs) * length * LAYERS * (WIDTH + KEYS)
    assert found < 0.6 * whole


def test_what_is_read_beyond_the_plan_is_run_again_and_right() -> None:
    pairs = random_pairs(3, 12, shortest=5, longest=9)
    replica = replica_of(pairs, ["here"], (2,))
    blocks, asked = blocks_of(pairs, 12), [at(2), at(1), at(3, "last"), at(0)]
    made, run = [], replica._runner.cache._run
    replica._runner.cache._run = lambda batch, blocks=None: made.extend(batch) or run(batch, blocks)
    for intervention in asked:
        (event,) = measure(replica, [intervention], blocks)
        with row_by_row(replica):
            (by_row,) = measure(replica, [intervention], blocks)
        assert isinstance(event, Measured)
        assert event.outputs == by_row.outputs
    assert len(made) > len(set(made)), "spans and layers grew"
    made.clear()
    measure(replica, asked, blocks)
    assert not made


def test_a_span_holds_what_is_read_of_an_input_as_base_and_as_source() -> None:
    pairs = random_pairs(0, 1, shortest=9, longest=9)
    (pair,) = replica_of(pairs, ["here", "last"], None).opened.encoded
    (first,), source = pair.base_positions["here"], pair.sources["source"]
    spans = ReadSpans([pair], ["here", "last"])
    assert spans.of(pair.base) == ReadSpan(first, 9, 8)
    assert spans.of((1, 2, 3)) == ReadSpan(0, 3, 3), "an input of no pair is stored whole"
    spans.grow((1, 2, 3), 2, 2, is_base=False)
    assert spans.of((1, 2, 3)) == ReadSpan(0, 3, 3)
    (here,) = pair.source_positions["source"]["here"]
    assert spans.of(source) == ReadSpan(here, 9, 0)
    spans.grow(source, 1, 5, is_base=True)
    assert spans.of(source) == ReadSpan(min(1, here), 9, 5)
