"""Memory by formula: what is kept of an input is, to the byte, what the engine keeps; the rest adds
up."""

from pathlib import Path

import pytest
import torch

from raysearch.core.events import Encoded
from raysearch.core.runner_settings import RunnerSettings
from raysearch.engine.execution.usage import UsageMeter
from raysearch.engine.loading.load import load
from raysearch.engine.loading.model_summary import ModelSummary
from raysearch.engine.model_runner import ModelRunner
from raysearch.engine.networks.half_precision import keep_copies
from raysearch.engine.patching.rows import Row
from raysearch.job import Job
from raysearch.runner.plans.memory_estimate import A_HYPOTHESIS, MemoryEstimate, estimate_memory
from raysearch.runner.plans.plan import model_summary
from raysearch.runner.plans.plan_report import memory_words
from raysearch.runner.resolution.resolve import resolve

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "jobs" / "quickstart.yaml"


def _asked(*keys: str) -> tuple[ModelSummary, tuple[Encoded, ...], MemoryEstimate]:
    question = resolve(Job.load(QUICKSTART, (*keys, "pairs.test=40", "pairs.holdout=4")))
    looked = model_summary(question)
    encoded = looked.encode(question.pairs, question.positions, question.variables)
    test = [p.index for p in question.pairs if p.split == "test"][:40]
    return (
        looked,
        encoded,
        estimate_memory(
            *(looked, encoded, test),
            rows=8,
            memory=None,
            models=2,
            hypotheses=100,
            positions=question.positions,
            layers=question.layers,
        ),
    )


KEYS = {
    "residual": (),
    "head": ("space.components=[head, mlp_activation]",),
    "value": ("space.components=[residual, value]",),
    "a layer": ("space.layers=[1]",),
    "the last token": ("space.layers=[1]", "space.positions=[last]"),
}


@pytest.mark.slow_unless(keys=[KEYS["head"], KEYS["the last token"]])
@pytest.mark.parametrize("keys", KEYS.values(), ids=KEYS)
def test_what_is_kept_of_an_input_is_what_the_engine_keeps(keys: tuple[str, ...]) -> None:
    looked, encoded, told = _asked(*keys)
    question = resolve(Job.load(QUICKSTART, keys))
    loaded = load(question.job.source)
    network, _ = loaded.open(question.pairs)
    names = tuple(c.name for c in looked.components)
    settings = RunnerSettings(rows=8, layers=question.layers)
    machine = ModelRunner(
        *(network, "float32", encoded, names, settings, UsageMeter()), positions=question.positions
    )
    assert machine.executor.name == looked.path == "replay"
    longest = max(
        (e.base for e in encoded), key=lambda given: len(given) if isinstance(given, tuple) else 0
    )
    machine.cache._runs.clear()  # of the self-check, which keeps all
    (run,) = machine.cache.runs([Row(longest)]).values()
    assert told.run == run.nbytes


def test_a_block_is_its_inputs_and_a_replica_its_parts() -> None:
    looked, encoded, told = _asked()
    pairs = {e.index: e for e in encoded}
    inputs = {given for e in encoded for given in (e.base, *e.sources.values())}
    assert all(e.tokens == 6 for e in pairs.values()), (
        "all of one length, so that sums are products"
    )
    assert told.inputs < len(inputs) * told.run, "of sources less is kept than of bases"
    assert told.run < told.block < told.inputs_of_block * told.run
    assert told.inputs_of_block == 4, "the largest block of 40 pairs is the first, of two"
    assert told.weights == 2 * looked.weight_bytes
    assert told.kept == told.inputs
    assert told.replica > told.weights + told.kept + told.batch
    assert told.driver == 200 * 2**20 + 100 * A_HYPOTHESIS


def test_copies_of_half_precision_weights_count_on_a_cpu_and_are_what_a_replica_keeps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    question = resolve(
        Job.load(QUICKSTART, ("model.dtype=bfloat16", "pairs.test=8", "pairs.holdout=4"))
    )
    looked = model_summary(question)
    encoded = looked.encode(question.pairs, question.positions, question.variables)
    told = {
        cpu: estimate_memory(
            looked, encoded, [encoded[0].index], 8, None, models=2, hypotheses=1, on_cpu=cpu
        )
        for cpu in (True, False)
    }
    loaded = load(question.job.source)
    assert keep_copies(loaded.model, 2**30) == (looked.copied_bytes, looked.copied_bytes)
    assert looked.copied_bytes > looked.weight_bytes
    assert told[True].copies == 2 * looked.copied_bytes
    assert told[True].replica - told[False].replica == told[True].copies
    assert told[False].weights == 2 * looked.weight_bytes
    assert "float32 copies" in " ".join(memory_words(told[True], question.job))
    assert "float32 copies" not in " ".join(memory_words(told[False], question.job))


def test_what_a_hypothesis_takes_of_the_driver_is_what_was_measured() -> None:
    measured = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    assert f"{A_HYPOTHESIS:,} bytes a hypothesis" in measured
    page = (ROOT / "docs" / "explanation" / "scale.md").read_text()
    assert f"{A_HYPOTHESIS / 1000:.1f} KB a hypothesis" in page


def test_no_more_is_kept_than_the_job_allows() -> None:
    looked, encoded, _ = _asked()
    told = estimate_memory(
        looked, encoded, [encoded[0].index], rows=8, memory=1e-6, models=1, hypotheses=1
    )
    assert told.kept == int(1e-6 * 2**30)
    assert told.kept < told.inputs
