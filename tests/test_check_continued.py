"""docs/check_run.py derives the verdicts of a run that was continued, and sees what was falsified."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from raysearch.proposers.base import Proposer
from raysearch.search.criteria import DecisionRule
from raysearch.store.run_folder import RunFolder
from tests.search.sick import Sick, sick_of
from tests.search.worlds import Cluster, World
from tests.test_check_run import OpenEnded, check, everything, forge_journal, new_run, rows, write

RATES = lambda layer: (0.0, 0.74, 0.78, 0.82, 0.88, 1.0)[layer % 6]  # noqa: E731
WORLDS = {
    "drawn": World(3, test=40, max_pairs=30, more=(60, 80), rates=RATES, solved=0.9, controls=("placebo",)),
    "at hand": World(4, test=110, max_pairs=30, rates=RATES, these_pairs=True),
    "both": World(
        6, test=60, max_pairs=60, more=(50, 70), rates=RATES, spares=lambda layer: 0.9,
        rule=DecisionRule("both", keep_threshold=0.7),
    ),
    "one look, open": World(
        8, test=40, max_pairs=40, more=(60, 80), rates=RATES, rule=DecisionRule(at_end=True)
    ),
    "fixed": World(
        7, test=40, max_pairs=40, more=(60, 80), rates=RATES,
        rule=DecisionRule(at_end=True, fixed_horizon=True, reserve=0.4),
    ),
}  # fmt: skip


def continued(
    world: World,
    folder: Path,
    proposer: Callable[[], Proposer | None] = lambda: None,
    cluster: Cluster | None = None,
) -> RunFolder:
    """A run that was continued twice, by 40 and by 50 pairs."""
    cluster = cluster or Cluster(world, 3, 5, lost=0.1, twice=0.2, otherwise=False)
    search = cluster.drive(world.search(proposer(), continued=True))
    run = new_run(world, search, None if proposer() else len(world.space), folder)
    write(run, world.search(proposer(), continued=True), cluster.told)
    for pairs in (40, 50):
        event = search.continuation(pairs)
        assert event.hypotheses
        search.tell([event])
        more = Cluster(world, 2, pairs)
        more.drive(search)
        write(run, world.search(proposer(), continued=True), more.told, event)
    return run


@pytest.fixture(scope="module", params=WORLDS)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return continued(WORLDS[request.param], tmp_path_factory.mktemp("run")).path


@pytest.mark.slow_unless(written=["drawn"])
def test_all_follows_of_a_run_that_was_continued_twice(written: Path) -> None:
    assert {row["verdict"] for row in rows(written, "verdicts")} & {"accept", "undecided"}
    assert everything(written) == ([], [])


@pytest.mark.slow
def test_generations_that_went_on_on_pairs_of_their_own_follow(tmp_path: Path) -> None:
    world = World(
        12,
        layers=9,
        test=240,
        max_pairs=24,
        more=(300, 300),
        rates=lambda layer: (0.6, 0.8, 0.97)[layer % 3],
    )
    run = continued(world, tmp_path, lambda: OpenEnded(world))
    assert everything(run.path) == ([], [])


@pytest.mark.slow
def test_what_failed_before_a_continuation_and_was_tried_again_after_it_follows(
    tmp_path: Path,
) -> None:
    import random

    world = WORLDS["drawn"]
    sick = Sick(world, 3, 1, sick=sick_of(world, random.Random(4)))
    run = continued(world, tmp_path, cluster=sick)
    assert check(run.path) == []
    ledger_search = world.search(continued=True)
    from raysearch.store.ledger import RunLedger

    ledger = RunLedger(run)
    for batch in ledger.history():
        ledger_search.tell(batch)
    ledger.abandon()
    event = ledger_search.failed
    ledger_search.tell([event])
    mended = Cluster(world, 3, 1)
    mended.drive(ledger_search)
    write(run, world.search(continued=True), mended.told, event)
    assert "failed" not in {row["verdict"] for row in rows(run.path, "verdicts")}
    assert check(run.path) == []


@pytest.mark.parametrize("what", ["pairs", "hypotheses"])
def test_a_continuation_that_was_changed_is_seen(what: str, tmp_path: Path) -> None:
    run = continued(WORLDS["drawn"], tmp_path / "runs").path
    forged = Path(shutil.copytree(run, tmp_path / "forged"))

    def change(lines: list[dict]) -> None:  # type: ignore[type-arg]
        for line in lines:
            if line["entry"]["type"] == "continued":
                line["entry"][what] = 5 if what == "pairs" else line["entry"][what][1:]

    forge_journal(forged, change)
    assert check(forged)
