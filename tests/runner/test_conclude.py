"""The end of a run: its results are read once, and pictures are drawn unless they are off."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import raysearch as rs
from raysearch import driver
from raysearch.report import margins, results_table
from raysearch.viewer.page import data_in
from tests.cli.conftest import QUICKSTART
from tests.cli.test_runs import FEWER
from tests.command import HEATMAPS


def _run(store: Path) -> rs.Run:
    return rs.run(rs.Job.load(QUICKSTART, [*FEWER[1::2]]), store=store, quiet=True)


def test_results_and_what_they_rest_on_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def counted(module: object, name: str) -> None:
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given: (calls.append(name), real(*given))[1])

    counted(results_table, "_with_warnings")
    counted(results_table, "read_margins")
    counted(margins, "read_encoded")
    run = _run(tmp_path)
    assert sorted(calls) == ["_with_warnings", "read_encoded", "read_margins"]
    assert len(run.alignment) == 3
    assert not (Path(run.place) / "heatmaps").exists()


@pytest.mark.slow
def test_heat_maps_are_drawn_unless_they_are_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(HEATMAPS)
    heatmaps = Path(_run(tmp_path).place) / "heatmaps"
    assert {path.name for path in heatmaps.iterdir()} == {"sum_ab.png", "total.png"}


@pytest.mark.slow  # a whole job
def test_the_page_of_a_run_that_fails_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = driver.drive

    def broken(search: Any, pool: Any, ledger: Any, show: Callable[[Any], None]) -> None:
        def show_and_fail(snapshot: Any) -> None:
            show(snapshot)
            if snapshot.rejected:
                run = next(tmp_path.glob("*/run.json")).parent
                (run / "report.html").write_text("a page that says: running")
                raise RuntimeError("the driver broke")

        real(search, pool, ledger, show_and_fail)

    monkeypatch.setattr(driver, "drive", broken)
    with pytest.raises(RuntimeError, match="the driver broke"):
        _run(tmp_path)
    _, inside = data_in(next(tmp_path.glob("*/report.html")).read_text())
    assert json.loads(inside["index"])["run"]["state"] == "failed"
