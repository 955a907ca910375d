"""What a wave costs besides the model's products, counted on the CPU through a replica: kernels,
waits for the device, captures; and that one which does not fit is halved."""

from collections import Counter
from dataclasses import replace

import pytest
from transformers import LlamaConfig

from raysearch.core.hypothesis import Intervention, Site, Unit
from raysearch.engine.replica import Replica
from tests.engine.execution.test_memory import ON_A_GPU, short_of_memory
from tests.engine.execution.test_swaps import replica_on, told
from tests.engine.test_replica import PLACES, measure
from tests.engine.training.test_step_costs import Kernels, counted_waits
from tests.engine.worlds import blocks_of, model_from, model_of, random_pairs

CONFIG = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip
AT_LAST = [Intervention((Unit(Site(0, "residual", "last")),))]
OF_A_LAYER = 38
"""Kernels of a block of Llama on a wave, its seven products and its attention in two parts among
them."""


def wave_replica(layers: int, pairs: int) -> Replica:
    """One whose next task on `AT_LAST` is one wave: everything is captured and tried, and nothing
    is a near-tie."""
    config = LlamaConfig(**CONFIG, num_hidden_layers=layers)
    given = random_pairs(3, pairs, shortest=7, longest=7)
    replica = replica_on(model_from(config), given, rows=1_000)
    replica._runner.evaluator.near_tie = 0.0
    replica._runner.cache.set_tolerance(0.0)
    measure(replica, AT_LAST, blocks_of(given, pairs))
    return replica


def counted(replica: Replica, pairs: int) -> tuple[Counter[str], int]:
    """Kernels of a task of one wave, and its rows."""
    blocks = blocks_of(random_pairs(3, pairs, shortest=7, longest=7), pairs)
    with Kernels() as seen:
        (event,) = measure(replica, AT_LAST, blocks)
    return seen.counts, event.rows


def test_kernels_of_a_wave_grow_with_layers_alone() -> None:
    found = {
        (layers, pairs): counted(wave_replica(layers, pairs), pairs)
        for layers in (2, 5)
        for pairs in (6, 24)
    }
    assert {pairs: rows for (_, pairs), (_, rows) in found.items()} == {6: 6, 24: 24}
    least = _computing(found[2, 6][0])
    for (layers, _), (kernels, _) in found.items():
        more = _computing(kernels) - least
        assert _computing(kernels).total() == least.total() + OF_A_LAYER * (layers - 2), more
        gathering = kernels["index"] + kernels["index_select"]
        assert gathering <= 15, "of stored runs, whatever the layers and rows"


def _computing(kernels: Counter[str]) -> Counter[str]:
    """Without what gathers stored runs: that depends on how many batches they were captured in."""
    gathers = "index", "index_select"
    return Counter({name: count for name, count in kernels.items() if name not in gathers})


@pytest.mark.parametrize("choices", [(), (1, 2, 3)], ids=["free", "choices"])
def test_a_wave_waits_for_the_device_once(
    choices: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = wave_replica(3, 24)
    if choices:
        replica._pairs = {at: replace(pair, choices=choices) for at, pair in replica._pairs.items()}
    seen = counted_waits(monkeypatch)
    kernels, rows = counted(replica, 24)
    assert rows > 12
    assert seen == Counter(cpu=1, numpy=1)
    assert not {"_local_scalar_dense", "nonzero", "masked_select"} & set(kernels)


@pytest.mark.parametrize("tokens", [1, 3])
def test_a_wave_that_does_not_fit_is_halved_and_no_row_is_run_by_itself(tokens: int) -> None:
    model, pairs = model_of("llama"), random_pairs(5, 18, shortest=6, longest=7)
    replica, blocks = replica_on(model, pairs, answer=tokens, rows=64), blocks_of(pairs, 18)
    wanted = told(measure(replica, PLACES, blocks))
    got = short_of_memory(model, 4, ON_A_GPU)
    assert told(measure(replica, PLACES, blocks)) == wanted
    assert max(got) > 4, "a wave did not fit"
    assert replica.usage().failed_rows == 0
    assert replica._runner.evaluator.limit.rows <= 4
