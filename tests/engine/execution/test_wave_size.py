"""A wave is as small as the device's rate allows; what a row answers does not depend on it."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raysearch.core.runner_settings import RunnerSettings
from raysearch.engine import model_runner
from raysearch.engine.execution import wave_size
from raysearch.engine.execution.memory import RowLimit
from raysearch.engine.execution.replay_executor import ReplayExecutor
from raysearch.engine.execution.wave import Wave
from raysearch.engine.execution.wave_executor import WaveExecutor
from raysearch.engine.execution.wave_size import (
    BLOCKS,
    FEWEST,
    GOOD,
    NO_LIMIT,
    RUNS,
    SECONDS,
    Timing,
    levels_off,
    measured_size,
    size_of,
    smallest_good,
)
from raysearch.engine.networks.network import LanguageModel
from raysearch.engine.patching.rows import Row
from raysearch.engine.patching.swaps import Swaps
from raysearch.engine.replica import Replica
from tests.engine.execution.test_swaps import replica_on, told
from tests.engine.test_replica import PAIRS, POSITIONS, loaded, measure
from tests.engine.worlds import blocks_of, model_of, random_pairs

some_timing = st.builds(Timing, st.integers(1, 10_000), st.floats(1e-6, 10.0))
timings = st.lists(some_timing, min_size=1, max_size=12)


def no_time() -> float:
    """A clock of a machine on which measuring takes no time, however busy this one is."""
    return 0.0


@given(timings, st.sampled_from([0.25, 1.0, 1024.0]))
def test_the_smallest_size_near_the_best_rate_is_taken(measured: list[Timing], unit: float) -> None:
    size = smallest_good(measured)
    best = max(timing.rate for timing in measured)
    good = [timing.tokens for timing in measured if timing.rate >= GOOD * best]
    assert size == min(good)
    assert max(t.rate for t in measured if t.tokens == size) >= GOOD * best
    otherwise = [Timing(t.tokens, unit * t.seconds) for t in reversed(measured)]
    assert smallest_good(otherwise) == size, "in another unit and order"


@given(st.floats(1e-4, 1e-2), st.floats(1e-6, 1e-4), st.integers(1, 32))
def test_of_a_fixed_and_a_growing_cost_nearly_the_best_rate_is_reached(
    fixed: float, a_token: float, tokens: int
) -> None:
    """Time = fixed + tokens x a_token, whose rate nears 1 / a_token from below."""
    size = size_of(lambda rows: 1e-6 * (fixed + rows * tokens * a_token), tokens, 2**40, no_time)
    assert size / (fixed + size * a_token) >= 0.9 / a_token
    assert size <= max(tokens, FEWEST) or (size / 2) / (fixed + size / 2 * a_token) < GOOD / a_token


@given(st.integers(0, 8), st.integers(FEWEST, 32))
def test_a_size_beyond_which_the_rate_falls_is_not_exceeded(best: int, tokens: int) -> None:
    """The rate doubles with the size up to a size and halves beyond, as where a cache overflows."""

    def seconds_of(rows: int) -> float:
        times = rows.bit_length() - 1
        return 1e-6 * rows / 2.0 ** (times if times <= best else 2 * best - times)

    assert size_of(seconds_of, tokens, 2**20, no_time) == tokens * 2**best


@given(st.integers(1, 500), st.integers(1, 32))
def test_a_rate_that_still_rises_at_the_limit_of_rows_sets_no_other(most: int, tokens: int) -> None:
    tried: list[int] = []

    def seconds_of(rows: int) -> float:
        tried.append(rows)
        return 1e-3

    assert size_of(seconds_of, tokens, most, no_time) == NO_LIMIT
    first = min(most, max(1, FEWEST // tokens))
    assert tried == [first * 2**at for at in range((most // first).bit_length())]


@given(st.integers(0, 6), st.integers(FEWEST, 32))
def test_a_size_that_does_not_fit_into_memory_is_not_taken(fits: int, tokens: int) -> None:
    def seconds_of(rows: int) -> float:
        if rows > 2**fits:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: 12 bytes")
        return 1e-3

    assert size_of(seconds_of, tokens, 4096, no_time) == tokens * 2**fits


def test_a_measurement_ends_by_the_time_that_it_took() -> None:
    """Not by the shortest runs: here each size takes a quarter of the time, and says less."""
    tried: list[int] = []

    def seconds_of(rows: int) -> float:
        tried.append(rows)
        return 1e-3

    assert size_of(seconds_of, 16, 2**20, lambda: len(tried) * SECONDS / 4) == NO_LIMIT
    assert tried == [1, 2, 4, 8]


def test_an_error_of_the_measurement_is_said_in_a_line_and_there_is_no_limit(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("broken\nhere")

    monkeypatch.setattr(wave_size, "_seconds", fails)
    with caplog.at_level(logging.WARNING, "raysearch"):
        replica = replica_with("", tokens="auto")
    assert replica.opened.facts.wave_tokens == NO_LIMIT
    (said,) = [record.getMessage() for record in caplog.records]
    assert "the size of waves cannot be measured (RuntimeError: broken here), so" in said
    assert told(measure(replica)) == told(measure(replica_with("")))


@given(st.lists(some_timing, min_size=3, max_size=12))
def test_a_level_curve_ends_the_measurement(measured: list[Timing]) -> None:
    before, last = measured[:-2], measured[-2:]
    is_faster = GOOD * max(t.rate for t in last) > max(t.rate for t in before)
    assert levels_off(measured) is not is_faster


@given(st.integers(1, 100), st.integers(0, 1000), st.integers(1, 200))
def test_a_wave_has_no_more_tokens_than_the_limit_and_at_least_a_row(
    rows: int, tokens: int, each: int
) -> None:
    most = RowLimit(rows, tokens).of_wave(each)
    assert 1 <= most <= rows
    assert not tokens or most * each <= tokens or most == 1
    assert most == rows or (most + 1) * each > tokens > 0


@pytest.fixture
def waves(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Hears how many tokens each wave computes."""
    heard: list[int] = []
    make = WaveExecutor._wave

    def counted(self: WaveExecutor, swaps: Swaps) -> Wave:
        heard.append(int((swaps.lengths() - swaps.starts()).sum()))
        return make(self, swaps)

    monkeypatch.setattr(WaveExecutor, "_wave", counted)
    return heard


@pytest.mark.slow_unless(dtype=[torch.float32])
@pytest.mark.parametrize(("dtype", "answer"), [(torch.float32, 1), (torch.bfloat16, 2)], ids=str)
def test_events_do_not_depend_on_the_size_of_waves(
    dtype: torch.dtype, answer: int, waves: list[int]
) -> None:
    pairs, model = random_pairs(3, 8, shortest=4, longest=9), model_of("llama").to(dtype)
    replica = replica_on(model, pairs, answer)
    longest = max(len(pair.base) for pair in replica.opened.encoded) + answer - 1  # type: ignore[arg-type]
    events, largest = [], {}
    for tokens in (NO_LIMIT, 1, 7, 30):
        replica._runner._limit.tokens = tokens
        waves.clear()
        events.append(told(measure(replica, blocks=blocks_of(pairs, 4))))
        largest[tokens] = max(waves)
    assert events[0] == events[1] == events[2] == events[3]
    assert largest[1] <= longest
    # Waves are made by the first token; a row run anew has each further one, too.
    assert largest[7] <= max(7 * answer, longest) < largest[NO_LIMIT]
    assert largest[30] <= max(30 * answer, longest)


def replica_with(digest: str, **settings: Any) -> Replica:
    drawn = replace(loaded(model_of("llama")), digest=digest)
    return Replica(drawn, PAIRS, POSITIONS, ["x"], "w", settings=RunnerSettings(**settings))


def test_a_replica_chooses_by_a_measurement_and_the_next_one_remembers_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waves: list[int]
) -> None:
    monkeypatch.setenv("RAYSEARCH_CACHE", str(tmp_path / "cache"))
    sizes = []

    def counted(*given: Any) -> int:
        sizes.append(measured_size(*given))
        return sizes[-1]

    monkeypatch.setattr(model_runner, "measured_size", counted)
    given = replica_with("d", tokens=11)
    assert given.opened.facts.wave_tokens == 11
    assert not sizes, "a number is taken as it is"
    first = replica_with("d", tokens="auto")
    assert sizes == [first.opened.facts.wave_tokens]
    waves.clear()
    second = replica_with("d", tokens="auto")
    assert second.opened.facts.wave_tokens == sizes[0]
    assert not waves, "the second one runs no wave"
    assert len(sizes) == 1
    assert replica_with("d").opened.facts.wave_tokens == NO_LIMIT
    replica_with("e", tokens="auto")
    assert len(sizes) == 2, "another model is measured"
    assert told(measure(first)) == told(measure(second)) == told(measure(given))


def test_the_size_that_was_measured_is_that_of_the_waves(
    monkeypatch: pytest.MonkeyPatch, waves: list[int]
) -> None:
    """A clock that says that 16 tokens are as fast as any larger number."""
    monkeypatch.setattr(wave_size, "size_of", lambda seconds_of, tokens, most: 16)
    replica = replica_with("", tokens="auto")
    waves.clear()
    measure(replica, blocks=blocks_of(PAIRS, len(PAIRS)))
    assert replica.opened.facts.wave_tokens == 16
    assert 8 < max(waves) <= 16


def test_a_measurement_runs_the_last_blocks_alone_on_runs_that_are_there() -> None:
    replica = replica_with("")
    runner = replica._runner
    ran = [0] * len(runner.network.blocks)

    def hear(layer: int) -> Any:
        def count(*_: Any) -> None:
            ran[layer] += 1

        return count

    hooks = [b.register_forward_hook(hear(at)) for at, b in enumerate(runner.network.blocks)]
    assert isinstance(runner.executor, ReplayExecutor)
    assert isinstance(runner.network, LanguageModel)
    rows = runner._selfcheck_rows(replica._every_pair, ("residual",), "float32")
    runner.executor.want_rows([row for row in rows if row.patches])
    runner.cache.runs([Row(row.base) for row in rows])
    ran[:] = [0] * len(ran)
    measured_size(runner.network, runner.executor, rows, RowLimit(64))
    for hook in hooks:
        hook.remove()
    assert not any(ran[: -BLOCKS - 1]), "nothing is captured, and the last blocks alone run"
    assert ran[-1] == ran[-BLOCKS] >= RUNS
