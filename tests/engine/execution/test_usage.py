"""What a replica says it has used: phases that add up, tokens, memory as the kernel has it."""

from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from raysearch.cluster.local_pool import open_replica
from raysearch.core.events import Block, Measured, Task
from raysearch.core.runner_settings import RunnerSettings
from raysearch.engine.execution.memory import _share_of_host, memory_in_use
from raysearch.engine.execution.usage import Memory, Usage, UsageMeter
from raysearch.engine.replica import Replica
from tests.cluster.contract import at
from tests.cluster.worlds import planted_work

NOTHING = Memory(0, 0, 0.0, 0.0)


class _Clock:
    """Stands still until it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_an_inner_phase_takes_is_not_the_outers_and_an_error_has_counted() -> None:
    clock = _Clock()
    meter = UsageMeter(clock)
    clock.now += 5  # nobody's
    with meter.phase("other"):
        clock.now += 1
        with pytest.raises(ZeroDivisionError):
            _fail_within(meter, clock)
        clock.now += 8
    clock.now += 16  # nobody's
    meter.ran(3)
    meter.ran(4)
    assert meter.take(NOTHING) == Usage({"other": 9.0, "fit": 2.0, "capture": 4.0}, 7, NOTHING)
    assert meter.take(NOTHING) == Usage({}, 0, NOTHING)


def _fail_within(meter: UsageMeter, clock: _Clock) -> None:
    with meter.phase("fit"):
        clock.now += 2
        with meter.phase("capture"):
            clock.now += 4
        raise ZeroDivisionError


def _replica(**settings: object) -> Replica:
    work = planted_work(test=8, holdout=0)
    spec = replace(work, settings=RunnerSettings(**settings))  # type: ignore[arg-type]
    return open_replica(spec, "w", "cpu")


@pytest.mark.parametrize(("plain", "path"), [(False, "replay"), (True, "plain")])
def test_a_replica_tells_loading_checks_captures_and_the_path_apart(plain: bool, path: str) -> None:
    replica = _replica(plain=plain)
    opening = replica.usage()
    checks = set() if plain else {"check", "capture"}
    assert set(opening.phases) == {"load"} | checks
    block = Block("test", 0, tuple(e.index for e in replica.opened.encoded[:4]))
    swapped = [
        e for e in replica.opened.encoded[:4] if e.base != e.sources["source"]
    ]  # the others need not be run
    events = replica.do(Task(1, "measure", (at(0), at(1)), (block,)))
    used = replica.usage()
    assert path in used.phases
    assert all(seconds > 0 for seconds in used.phases.values())
    assert used.seconds >= sum(e.seconds for e in events if isinstance(e, Measured))
    assert used.tokens >= 2 * sum(e.tokens for e in swapped) > 0
    assert replica.usage().seconds == 0


def test_screening_counts_each_input_once() -> None:
    replica = _replica()
    replica.usage()
    encoded = replica.opened.encoded
    inputs = {ids for e in encoded for ids in (e.base, *e.sources.values())}
    task = Task(1, "screen", (), (Block("test", 0, tuple(e.index for e in encoded)),))
    replica.do(task)
    first = replica.usage().tokens
    replica.do(task)  # known by now
    assert 0 < first <= sum(map(len, inputs))  # type: ignore[arg-type]
    assert replica.usage().tokens == 0


def test_memory_is_what_the_process_and_the_machine_say() -> None:
    here = memory_in_use()
    assert here.process == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
    assert 0 < here.host < 1
    assert (here.gpu > 0) == (here.device > 0)


@pytest.mark.parametrize(("limit", "share"), [("1000000", 0.3), ("500000", 0.6)])
def test_a_container_has_its_own_limit_and_its_file_cache_is_free(
    tmp_path: Path, limit: str, share: float
) -> None:
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text("450000\n")
    (tmp_path / "memory.stat").write_text("anon 300000\ninactive_file 150000\n")
    assert _share_of_host(tmp_path) == pytest.approx(share)


@pytest.mark.parametrize("limit", ["max", str(2**62)])
def test_without_a_limit_the_machine_stands(tmp_path: Path, limit: str) -> None:
    (tmp_path / "memory.max").write_text(limit)
    machine = psutil.virtual_memory()
    assert _share_of_host(tmp_path) == pytest.approx(1 - machine.available / machine.total, abs=0.1)
    assert _share_of_host(tmp_path / "nowhere") == pytest.approx(
        1 - machine.available / machine.total, abs=0.1
    )
