"""A self-check that has passed is not repeated for the same model, rows and device."""

from dataclasses import replace
from pathlib import Path

import pytest
from transformers import PreTrainedModel

from raysearch.core.events import Event, Measured
from raysearch.engine import model_runner
from raysearch.engine.execution.selfcheck_cache import KIND
from raysearch.engine.replica import Replica
from tests.engine.test_replica import PAIRS, POSITIONS, loaded, measure
from tests.engine.worlds import model_of


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAYSEARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / KIND


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each self-check."""
    made: list[int] = []
    check = model_runner.select_executor

    def counted(*given, **more):  # type: ignore[no-untyped-def]
        made.append(1)
        return check(*given, **more)

    monkeypatch.setattr(model_runner, "select_executor", counted)
    return made


def replica_of(model: PreTrainedModel, digest: str) -> Replica:
    return Replica(replace(loaded(model), digest=digest), PAIRS, POSITIONS, ["x"], "worker-1")


def untimed(events: list[Event]) -> list[Event]:
    return [replace(e, seconds=0.0) if isinstance(e, Measured) else e for e in events]


def test_the_second_replica_of_a_model_checks_nothing_and_answers_the_same(
    cache: Path, checks: list[int]
) -> None:
    model = model_of("llama")
    first, second = replica_of(model, digest="d"), replica_of(model, digest="d")
    assert len(checks) == 1
    assert first._runner.executor.name == second._runner.executor.name == "replay"
    assert first._runner.near_tie == second._runner.near_tie
    assert first._runner.tolerance == second._runner.tolerance
    assert first._runner.plain.canonical.resumes == second._runner.plain.canonical.resumes
    assert untimed(measure(first)) == untimed(measure(second))


def test_another_model_and_a_model_without_a_digest_are_checked(
    cache: Path, checks: list[int]
) -> None:
    model = model_of("llama")
    for digest in ("d", "e", "", ""):
        replica_of(model, digest=digest)
    assert len(checks) == 4


def test_a_broken_entry_leads_to_a_check(cache: Path, checks: list[int]) -> None:
    model = model_of("llama")
    replica_of(model, digest="d")
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:-9])
    replica_of(model, digest="d")
    assert len(checks) == 2


def test_a_model_that_is_not_run_fast_is_checked_and_warned_of_each_time(
    cache: Path, checks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of("llama")
    monkeypatch.setattr("raysearch.engine.execution.selfcheck.MOST", -1.0)
    monkeypatch.setattr("raysearch.engine.execution.selfcheck.least_near_tie", lambda *_: -1.0)
    for _ in range(2):
        assert replica_of(model, digest="d")._runner.executor.name == "plain"
    assert len(checks) == 2
