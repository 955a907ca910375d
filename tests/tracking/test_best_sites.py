"""The mean that MLflow shows of a variable is that of its best site, also when verdicts change. Real
MLflow, real SQLite."""

import json
from dataclasses import replace

import pyarrow as pa
import pytest

from raysearch.core.records import Decided
from raysearch.report.run_results import RunResults
from raysearch.tracking.best_sites import BestSite, rank_of
from raysearch.tracking.description import best_means, describe
from raysearch.tracking.mlflow import MlflowTracker
from raysearch.tracking.registry import _Installed
from raysearch.tracking.tracker import TrackedRun, TrackerKind
from tests.store.books import HYPOTHESES, decided
from tests.tracking.test_mlflow_pages import TAGS, client, row, tracked

FIRST = replace(HYPOTHESES[0], variable="country")
OTHER = replace(HYPOTHESES[1], variable="country")


def verdict(h: object, name: str, n: int, matches: int, low: float) -> Decided:
    return replace(decided(FIRST), hypothesis=h, verdict=name, n=n, matches=matches, low=low)  # type: ignore[arg-type]


def snapshot(pairs: int):  # type: ignore[no-untyped-def]
    from raysearch.core.records import Snapshot

    zero = dict.fromkeys(Snapshot.__dataclass_fields__, 0)
    return Snapshot(**{**zero, "pairs": pairs})  # type: ignore[arg-type]


def shown(uri: str, run_id: str | None) -> float:
    return float(client(uri).get_run(run_id).data.metrics["iia/country"])


def test_a_verdict_that_is_taken_back_lowers_the_mean(tracking: str) -> None:
    tracker = tracked(tracking, ["country"])
    tracker.write_records([verdict(FIRST, "undecided", 40, 36, 0.7)])
    tracker.snapshot(snapshot(40))
    tracker.write_records([verdict(FIRST, "reject", 80, 60, 0.6)])
    tracker.replayed(snapshot(80))
    assert tracker.close("interrupted"), tracker.why
    assert shown(tracking, tracker.run_id) == 0.75
    site = BestSite()
    site.take("a", "undecided", rank_of("undecided", 0.7, 0.9))
    site.take("a", "failed", None)
    assert site.mean is None


def test_an_accepted_site_is_before_an_undecided_one_with_a_higher_mean(tracking: str) -> None:
    tracker = tracked(tracking, ["country"])
    tracker.write_records(
        [verdict(FIRST, "accept", 100, 97, 0.9), verdict(OTHER, "undecided", 3, 3, 0.3)]
    )
    tracker.snapshot(snapshot(103))
    assert tracker.close("interrupted")
    assert shown(tracking, tracker.run_id) == 0.97


def test_the_end_has_the_mean_of_the_row_that_the_description_names(tracking: str) -> None:
    rows = [
        row("country", "reject", 0.99, low=0.97),
        row("country", "undecided", 1.0, low=0.4, n=3),
        row("country", "undecided", 0.95, low=0.7, n=40),
        row("country", "failed", 1.0, low=0.9),
    ]
    results = RunResults(pa.Table.from_pylist(rows))
    assert best_means(results) == {"country": 0.95}
    assert "IIA 0.95 (0.70 to 1.00)" in describe(results, "A claim.", "IIA")
    tracker = tracked(tracking, ["country"])
    tracker.write_records([verdict(FIRST, "reject", 10, 10, 0.9)])
    tracker.snapshot(snapshot(10))
    tracker.show_best(best_means(results))
    assert tracker.close("done")
    assert shown(tracking, tracker.run_id) == 0.95


def test_a_replay_mends_a_mean_that_was_sent_too_high_at_the_same_step(tracking: str) -> None:
    first = tracked(tracking, ["country"])
    first.show_best({"country": 0.9})
    first.snapshot(snapshot(80))
    assert first.close("done")
    for _ in range(2):
        run = TrackedRun(tracking, "raysearch/x", {}, TAGS, again=True, at=lambda: 1.0)
        again = MlflowTracker(run)
        again.replayed(snapshot(80))
        again.show_best({"country": 0.75})
        assert again.close("done"), again.why
        assert (again.run_id, shown(tracking, first.run_id)) == (first.run_id, 0.75)
    assert len(client(tracking).get_metric_history(first.run_id, "iia/country")) == 2


@pytest.mark.parametrize("gone", [False, True])
def test_a_run_that_was_deleted_gets_all_of_it_anew(tracking: str, gone: bool) -> None:
    first = tracked(tracking, ["country"])
    seen = [verdict(FIRST, "accept", 100, 97, 0.9)]
    first.write_records(seen)
    first.snapshot(snapshot(100))
    assert first.close("interrupted")
    if gone:
        client(tracking).delete_run(first.run_id)
    again = tracked(tracking, ["country"], run_id=first.run_id)
    again.write_records(seen, replayed=True)
    again.snapshot(snapshot(120))
    assert again.close("interrupted"), again.why
    run = client(tracking).get_run(again.run_id)
    best = [name for name in run.data.metrics if name.startswith("best_iia/country/")]
    assert (run.data.metrics["iia/country"], len(best)) == (0.97, 1)
    points = client(tracking).get_metric_history(again.run_id, "iia/country")
    assert [p.step for p in points] == [120 if gone else 100], "a run that is there has it"


def test_a_package_may_leave_out_what_has_a_default() -> None:
    class Least:
        name = title = example = credentials = "x"

        def open(self, run: object) -> object:
            return type("Shown", (), {"why": None, "run_id": json.dumps(run)})()

    kind: TrackerKind = _Installed(Least())
    shown = kind.open("a run")  # type: ignore[arg-type]
    shown.describe("text")
    shown.show_best({"country": 1.0})
    assert (kind.imports, shown.address, shown.run_id) == ((), None, '"a run"')
