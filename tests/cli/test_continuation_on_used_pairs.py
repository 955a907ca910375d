"""`resume --more-pairs` asks the store which runs have tested on the further pairs."""

import shutil
from pathlib import Path

import pytest

from raysearch.store.run_folder import RunFolder
from tests.cli.test_continuation import LOCAL, begun, call, found

MORE = ("--more-pairs", "40", *LOCAL)


def another(run: RunFolder) -> RunFolder:
    """A copy of the run in the same store, which goes on, on the further pairs of its number."""
    other = RunFolder.open(Path(shutil.copytree(run.path, f"{run.path}"[:-4] + "0000")))
    done = call("resume", other.place, *MORE, "-q")
    assert done.exit_code == 0, done.output
    return other


@pytest.mark.slow
def test_fresh_pairs_are_not_those_of_other_runs_when_a_run_goes_on(tmp_path: Path) -> None:
    run = begun(tmp_path, pairs={"fresh": True})
    other = another(run)
    refused = call("resume", run.place, *MORE)
    assert "(pairs.fresh)" in str(refused.exception)
    assert other.folder.name in str(refused.exception)
    assert not RunFolder.open(run.place).info.continued
    assert found(run)["undecided"] == 2


@pytest.mark.slow  # a whole job
def test_fresh_pairs_that_no_other_run_has_go_on(tmp_path: Path) -> None:
    run = begun(tmp_path, pairs={"fresh": True})
    said = call("resume", run.place, *MORE)
    assert said.exit_code == 0, said.output
    assert found(run).get("undecided", 0) == 0


@pytest.mark.slow  # two whole runs
def test_other_runs_on_the_further_pairs_are_named(tmp_path: Path) -> None:
    run = begun(tmp_path)
    assert not run.info.used_before
    other = another(run)
    said = call("resume", run.place, *MORE)
    assert said.exit_code == 0, said.output
    assert "other runs of this store have tested on some of these test pairs" in said.output
    assert other.folder.name in said.output
    assert other.folder.name in RunFolder.open(run.place).info.used_before
