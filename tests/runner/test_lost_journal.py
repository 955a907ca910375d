"""A driver's part of the journal that is lost is noticed before a resume searches again."""

import shutil
from pathlib import Path

import pytest

from raysearch.core.records import Snapshot
from raysearch.errors import ResumeError
from raysearch.runner.stored_run.resume_checks import check_journal
from raysearch.store.ledger import RunLedger
from raysearch.store.run_folder import RunFolder
from tests.store.books import Brain, go_on, new_run, replay, script

SEARCHING = Snapshot("searching", 3, 0, 0, 0, 0, 0, 9, 1, 1)


def driven(tmp_path: Path, counted: bool, rows: int) -> tuple[RunFolder, list[Path]]:
    """A run that two drivers worked on; `rows` of a part of a table."""
    run, batches = new_run(tmp_path), script(0)
    for at in (0, 1):
        brain, ledger = Brain(), RunLedger(run, max_rows=rows)
        replay(ledger, brain)
        go_on(ledger, brain, batches[at * 8 : at * 8 + 8])
        if counted:
            ledger.snapshot(SEARCHING)
        ledger.abandon()
    return run, sorted((run.path / "journal").iterdir())


@pytest.mark.parametrize(("counted", "rows"), [(True, 1000), (False, 1), (True, 1)])
def test_a_lost_part_of_the_last_driver_is_noticed(
    tmp_path: Path, counted: bool, rows: int
) -> None:
    run, (_, last) = driven(tmp_path, counted, rows)
    check_journal(run)
    shutil.rmtree(last)
    with pytest.raises(ResumeError, match=f"{last.name}: this part of the journal is lost") as e:
        check_journal(run)
    assert "\n" not in str(e.value)


def test_a_driver_that_wrote_nothing_but_its_journal_is_not_missed(tmp_path: Path) -> None:
    run, (_, last) = driven(tmp_path, counted=False, rows=1000)
    shutil.rmtree(last)
    check_journal(run)
