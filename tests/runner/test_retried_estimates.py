"""A retry of estimates alone leaves what the whole search had accepted."""

from dataclasses import dataclass
from pathlib import Path

from raysearch import driver
from raysearch.core.events import Task
from raysearch.search.search import Search
from raysearch.store.ledger import RunLedger
from raysearch.store.run_folder import RunFolder
from tests.runner.test_retry import Hands, plain
from tests.search.sick import Sick
from tests.search.worlds import World
from tests.store.books import new_run

WORLD = World(6, layers=2, test=24, holdout=16, max_pairs=24, threshold=0.3, rates=lambda _: 1.0)


@dataclass
class SickOnHoldout(Sick):
    """Workers on which every block of the holdout fails."""

    def _begins(self, key: str, task: Task) -> int | None:
        return 0 if task.kind == "estimate" else super()._begins(key, task)


def drive(run: RunFolder, workers: Sick, retry: bool = False) -> Search:
    ledger, search = RunLedger(run, max_rows=3), WORLD.search()
    if retry:
        before = WORLD.search()
        for batch in ledger.history():
            before.tell(batch)
        assert before.failed.estimates
        assert not before.failed.hypotheses
        ledger.request(before.failed)
    driver.replay(search, ledger.replay(), ledger)
    driver.drive(search, Hands(workers), ledger, lambda _: None)
    ledger.close("done")
    return search


def test_a_retry_of_estimates_alone_leaves_the_selection_of_the_search(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    drive(run, SickOnHoldout(WORLD, 2, 0))
    selection = plain(run)["selection"]
    assert selection
    search = drive(run, Sick(WORLD, 2, 0), retry=True)
    assert all(estimate.n for estimate in search.estimates.values())
    assert plain(run)["selection"] == selection
