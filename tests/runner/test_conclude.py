"""The end of a run: its results are read once, and pictures are drawn unless they are off."""

from pathlib import Path

import pytest

import raysearch as rs
from raysearch.report import margins, results_table
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


def test_heat_maps_are_drawn_unless_they_are_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(HEATMAPS)
    heatmaps = Path(_run(tmp_path).place) / "heatmaps"
    assert {path.name for path in heatmaps.iterdir()} == {"sum_ab.png", "total.png"}
