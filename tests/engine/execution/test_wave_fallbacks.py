"""A wave that fails, and further tokens that are computed in two ways: the same answers, and who
looks at the log or the metrics sees it."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from raysearch.core.events import Task
from raysearch.engine.execution.evaluate_swaps import TRIED
from raysearch.engine.execution.wave_executor import WaveExecutor
from raysearch.engine.replica import Replica
from tests.engine.execution.test_swaps import replica_on, row_by_row, told
from tests.engine.test_replica import BLOCKS, PLACES, measure, replica_of
from tests.engine.worlds import blocks_of, model_of, random_pairs

pytestmark = pytest.mark.usefixtures("checked_once")


def fails(*_: Any) -> Any:
    raise RuntimeError("no such\nluck")


class _Failing:
    """An executor whose waves fail, but not its rows."""

    swap_logits = staticmethod(fails)

    def __init__(self, executor: WaveExecutor) -> None:
        self._executor = executor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)


def test_a_wave_that_fails_is_said_once_with_its_reason_and_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = replica_of(model_of("llama"))
    wanted = told(measure(replica))
    assert replica.usage().failed_rows == 0
    swaps = replica._runner.swaps
    assert swaps is not None
    monkeypatch.setattr(swaps, "_executor", _Failing(swaps._executor))
    with caplog.at_level(logging.WARNING, "raysearch"):
        assert told(measure(replica)) == wanted
        assert told(measure(replica, blocks=BLOCKS[:1])) == wanted[:: len(BLOCKS)]
    (said,) = [r.getMessage() for r in caplog.records]
    assert "rows fails (RuntimeError: no such luck), so its rows are run one by one" in said
    moving = {
        row
        for block in BLOCKS
        for index in block.pairs
        for place in PLACES
        if not replica._runner.executor.is_free(
            row := replica._row(replica._runner, replica._pairs[index], place)
        )
    }
    assert replica.usage().failed_rows >= len(moving)


def test_so_is_a_base_that_fails(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = replica_of(model_of("llama"))
    monkeypatch.setattr(replica._runner.cache, "predictions", fails)
    with caplog.at_level(logging.WARNING, "raysearch"):
        measure(replica)
    (said,) = [r.getMessage() for r in caplog.records]
    assert "no such luck" in said
    assert replica.usage().failed_rows > 0


PAIRS = random_pairs(5, 10, shortest=6, longest=7)


def three_tokens(family: str, dtype: str) -> Replica:
    replica = replica_on(model_of(family).to(getattr(torch, dtype)), PAIRS, answer=3)
    replica.do(Task(1, "screen", (), blocks_of(PAIRS, 10)))
    return replica


def off_by(replica: Replica, noise: float, after: int = 0) -> list[Tensor]:
    """Makes further tokens that go on differ from those anew by up to `noise`, all but the first
    `after` of the waves; returns them."""
    swaps, seen = replica._runner.swaps, list[Tensor]()
    assert swaps is not None
    begin = swaps._executor.begin_swaps

    def begun(*given: Any) -> tuple[Tensor, Callable[..., Tensor]]:
        logits, go_on = begin(*given)

        def noisy(*more: Any) -> Tensor:
            seen.append(go_on(*more))
            draw = torch.Generator().manual_seed(len(seen))
            if len(seen) <= after:
                return seen[-1]
            return seen[-1] + noise * (torch.rand(seen[-1].shape, generator=draw) - 0.5)

        return logits, noisy

    swaps._executor.begin_swaps = begun  # type: ignore[method-assign]
    return seen


@pytest.mark.slow_unless(dtype=["bfloat16"])
@pytest.mark.parametrize(
    ("family", "dtype"), [("llama", "float32"), ("llama", "bfloat16"), ("gpt2", "float16")]
)
def test_what_rounding_may_decide_otherwise_is_run_anew(family: str, dtype: str) -> None:
    replica, blocks = three_tokens(family, dtype), blocks_of(PAIRS, 10)
    with row_by_row(replica):
        wanted = told(measure(replica, PLACES, blocks))
    swaps = replica._runner.swaps
    assert swaps is not None
    swaps._tolerance = 0.8  # some rows are closer, most are not
    seen = off_by(replica, 0.35)
    assert told(measure(replica, PLACES, blocks)) == wanted
    assert swaps._untried <= 0
    seen.clear()
    assert told(measure(replica, PLACES, blocks)) == wanted
    assert swaps._goes_on
    gaps = torch.cat([torch.diff(some.topk(2).values, dim=1).abs() for some in seen])
    assert 0 < float((gaps < 0.3).float().mean()) < 0.9


def test_what_differs_by_more_than_rounding_is_run_anew_from_then_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    replica, blocks = three_tokens("llama", "bfloat16"), blocks_of(PAIRS, 10)
    with row_by_row(replica):
        wanted = told(measure(replica, PLACES, blocks))
    seen = off_by(replica, 50.0)
    with caplog.at_level(logging.WARNING, "raysearch"):
        assert told(measure(replica, PLACES, blocks)) == wanted
        assert len(seen) == 1
        assert told(measure(replica, PLACES, blocks)) == wanted
    assert len(seen) == 1
    assert np.sum(["further tokens differ" in r.getMessage() for r in caplog.records]) == 1


def test_first_waves_of_few_rows_do_not_decide_for_all(caplog: pytest.LogCaptureFixture) -> None:
    """The first ten waves, of a row each, go on as they should, and those after them do not."""
    replica, blocks = three_tokens("llama", "float32"), blocks_of(PAIRS, 10)
    with row_by_row(replica):
        wanted = told(measure(replica, PLACES, blocks))
    replica._runner._limit.tokens = 1
    seen = off_by(replica, 50.0, after=10)
    with caplog.at_level(logging.WARNING, "raysearch"):
        assert told(measure(replica, PLACES, blocks)) == wanted
    assert [len(some) for some in seen] == [1] * 11
    assert np.sum(["further tokens differ" in r.getMessage() for r in caplog.records]) == 1


def test_rows_go_on_once_enough_have_been_compared() -> None:
    replica, blocks = three_tokens("llama", "float32"), blocks_of(PAIRS, 10)
    replica._runner._limit.tokens = 1
    swaps, seen = replica._runner.swaps, off_by(replica, 0.0)
    assert swaps is not None
    measure(replica, PLACES, blocks)
    assert swaps._goes_on
    assert swaps._untried == 0
    assert sum(len(some) for some in seen) > TRIED
