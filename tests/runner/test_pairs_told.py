"""What the end of a run says of its pairs agrees with what its page and its tables say."""

import re
from pathlib import Path

import pytest

import raysearch as rs
from raysearch.report.run_data import cost_of
from raysearch.storage.open_folder import open_folder
from tests.cli.conftest import QUICKSTART


def test_pairs_that_came_back_after_their_verdict_are_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = rs.run(QUICKSTART, store=tmp_path, pool="local")
    told = " ".join("".join(capsys.readouterr()).split())
    found = re.search(r"(\d+) pairs evaluated \((\d+) of them came back after the verdict\)", told)
    assert found is not None, told
    evaluated, late = map(int, found.groups())
    counted = cost_of(open_folder(run.place)).pairs
    assert evaluated - late == counted > late > 0
    page = (Path(run.place) / "report.html").read_text()
    assert "pairs counted" in page
    assert f"{counted} (interventions" in page
    assert "pairs evaluated" not in page
