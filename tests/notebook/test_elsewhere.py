"""A job that is sent to a cluster, and the checks of `doctor`, from Python."""

from pathlib import Path

import pytest

import raysearch as rs
from raysearch.errors import ClusterError, StoreError
from tests.cli.conftest import QUICKSTART


def test_a_job_for_a_cluster_is_checked_before_anything_is_sent(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(StoreError, match=r"--store \./runs: dies with the job's folder"):
        rs.submit(QUICKSTART, "http://127.0.0.1:9", "./runs")
    with pytest.raises(ClusterError, match="cannot be reached"):
        rs.submit(QUICKSTART, "http://127.0.0.1:9", "/shared/runs", "none", sets=["pairs.test=8"])
    assert "--store /shared/runs: is a path on the head node" in capsys.readouterr().err


def test_the_checks_of_doctor_are_at_hand_in_python(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    found = {one.check: one for one in rs.doctor(QUICKSTART, file / "runs")}
    assert found["packages"].ok
    assert not found["store"].ok
    assert "layers" in found["model"].message
    assert found["mlflow"].message.startswith("kept out")
