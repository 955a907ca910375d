"""The page of a run on its way: written seldom, and never a reason to stop."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysearch.store.ledger import RunLedger
from raysearch.viewer.live_page import LEAST, REST, LivePage
from raysearch.viewer.page import FILE, data_in
from tests.store.books import new_run
from tests.viewer.books import decided, few, hypothesis, measured, proposed


@dataclass
class Clock:
    """A clock that stands still until it is set; reading it `step` seconds later each time."""

    now: float = 0.0
    step: float = 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def _index(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(data_in((run / FILE).read_text())[1]["index"])
    return found


def _verdicts(run: Path) -> str:
    return str(_index(run)["hypotheses"]["verdict"])


def test_it_is_written_now_and_then_and_at_an_early_end(tmp_path: Path) -> None:
    h = [hypothesis("country", layer) for layer in range(2)]
    run, clock = new_run(tmp_path), Clock()
    said: list[str] = []
    page = LivePage(run.folder, said.append, clock)
    with run.lock():
        ledger = RunLedger(run, max_seconds=0.0)
        clock.now = LEAST
        page.tick()
        assert not (run.path / FILE).exists(), "nothing is proposed yet"
        ledger.write_records([*proposed(h), measured(h[0])])
        page.tick()
        assert not (run.path / FILE).exists(), "it is too early"
        clock.now = 2 * LEAST
        page.tick()
        assert _verdicts(run.path) == ".."
        ledger.write_records([decided(h[0], "reject")])
        page.tick()
        assert _verdicts(run.path) == "..", "it is too early"
        ledger.close("interrupted")
        page.end()
    assert _verdicts(run.path) == "r."
    assert _index(run.path)["run"]["state"] == "interrupted"
    assert said == []


def test_it_takes_a_hundredth_of_the_time(tmp_path: Path) -> None:
    run, clock = few(tmp_path), Clock()
    page = LivePage(run.folder, print, clock)
    clock.now, clock.step = LEAST, 5.0
    page.tick()
    (run.path / FILE).unlink()
    clock.now += REST * 5.0 - 20
    page.tick()
    assert not (run.path / FILE).exists()
    clock.now += 40
    page.tick()
    assert (run.path / FILE).exists()


def test_a_page_that_cannot_be_written_is_said_once_and_stops_nothing(tmp_path: Path) -> None:
    run, clock = few(tmp_path), Clock(step=LEAST)
    (run.path / "pairs.parquet").write_bytes(b"damaged")
    said: list[str] = []
    page = LivePage(run.folder, said.append, clock)
    for _ in range(3):
        page.tick()
    page.end()
    (line,) = said
    assert "pairs.parquet" in line
    assert not (run.path / FILE).exists()


def test_the_page_of_an_earlier_driver_is_written_at_an_early_end_too(tmp_path: Path) -> None:
    run = few(tmp_path)
    LivePage(run.folder, print, Clock()).end()
    assert not (run.path / FILE).exists(), "no driver has written one"
    (run.path / FILE).write_text("a page that says: running")
    LivePage(run.folder, print, Clock()).end()
    assert _verdicts(run.path) == "arr"
