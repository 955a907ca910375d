"""What is refused before anything is sent to a cluster, and what is put into the job that is."""

from pathlib import Path
from typing import Any

import pytest

from raysearch.cluster.job_environment import JobEnvironment, job_environment
from raysearch.errors import ClusterError, JobError, RaysearchError, StoreError
from raysearch.runner.submission.submit import Submission, resume_command, resume_job, submit_job
from tests.cli.conftest import QUICKSTART, Shell

RUN = "/shared/runs/mine-20261123T160247Z-7dda25f5"


def _sending(**changes: Any) -> Submission:
    given: dict[str, Any] = {
        "address": "http://127.0.0.1:9",
        "store": "/tmp/shared/runs",
        "tracking_uri": "none",
        "fail_on_error": 0.05,
        "tracked_children": 20,
        "quiet": False,
        "verbose": False,
        "no_color": False,
        "runtime": "tree",
        "env": (),
    }
    return Submission(**{**given, **changes})


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        (
            {"store": "./runs"},
            StoreError,
            r"--store \./runs: dies with the job's folder.*/shared/runs",
        ),
        (
            {"tracking_uri": "sqlite:///mlflow.db"},
            StoreError,
            r"sqlite:///mlflow\.db: dies.*http://mlflow:5000.*none",
        ),
        ({"tracking_uri": "mlruns"}, StoreError, "mlruns: dies with the job's folder"),
        (
            {"tracking_uri": "http://me:hidden@host"},
            JobError,
            r"--tracking-uri http://host: holds a password.*--env",
        ),
        (
            {"tracking_uri": "postgresql://host/db?user=me&password=hidden"},
            JobError,
            "holds a password",
        ),
        (
            {"store": "s3://key:hidden@bucket/runs"},
            JobError,
            r"--store s3://bucket/runs: holds a password",
        ),
        ({"env": ("NOT_SET_ANYWHERE",)}, JobError, "--env NOT_SET_ANYWHERE: is not set here"),
        ({"env": ("NAME=hidden",)}, JobError, "--env NAME: takes the name of a variable alone"),
        (
            {"address": "http://me:hidden@127.0.0.1:9"},
            ClusterError,
            "give the address without user and password",
        ),
        ({}, ClusterError, r"127\.0\.0\.1:9 cannot be reached"),
    ],
)
def test_what_cannot_work_or_would_be_seen_is_refused(
    changes: dict[str, Any], error: type[RaysearchError], says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        submit_job(QUICKSTART, (), (), (), _sending(**changes))
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("run", "error", "says"),
    [
        ("mine-20261123T160247Z-7dda25f5", StoreError, r"--store \./runs: dies"),
        ("runs/mine-20261123T160247Z-7dda25f5", StoreError, "give its absolute path"),
        ("/shared/runs/mine", StoreError, "is no name of a run"),
        (f"s3://key:hidden@bucket{RUN}", JobError, "RUN s3://bucket/shared.*holds a password"),
        (RUN, ClusterError, "cannot be reached"),
    ],
)
def test_a_run_is_gone_on_with_where_the_cluster_finds_it(
    run: str, error: type[RaysearchError], says: str
) -> None:
    with pytest.raises(error, match=says):
        resume_job(run, _sending(store="./runs", tracking_uri=None))


def test_what_failed_is_tried_again_on_the_cluster_too(shell: Shell) -> None:
    assert resume_command(RUN, _sending(), retry=True)[:4] == [
        "resume",
        RUN,
        "--retry-failed",
        "--address",
    ]
    assert "--retry-failed" not in resume_command(RUN, _sending(), retry=False)
    done = shell("resume", RUN, "--retry-failed", "--address", "http://127.0.0.1:9")
    assert done.returncode == 4
    assert "cannot be reached" in done.stderr


def test_a_driver_knows_the_job_that_it_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert job_environment() is None
    config = '{"runtime_env": {}, "metadata": {"job_submission_id": "raysearch-x", "raysearch.address": "http://head:8265"}}'
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", config)
    assert job_environment() == JobEnvironment("raysearch-x", "http://head:8265")


def test_a_job_that_is_too_large_or_relative_is_one_line_of_the_command(shell: Shell) -> None:
    (shell.folder / "model").mkdir()
    with (shell.folder / "model/weights.safetensors").open("wb") as file:
        file.truncate(2**30)
    text = QUICKSTART.read_text().replace("planted/model", "model")
    Path(shell.folder / "job.yaml").write_text(text)
    where = ("--address", "http://127.0.0.1:9", "--tracking-uri", "none")
    large = shell("submit", "job.yaml", *where, "--store", "s3://bucket/runs")
    assert (large.returncode, len(large.stderr.splitlines())) == (2, 1)
    assert "1024.0 MiB" in large.stderr
    relative = shell("submit", "job.yaml", *where)
    assert (relative.returncode, len(relative.stderr.splitlines())) == (2, 1)
    assert "--store ./runs: dies with the job's folder" in relative.stderr


def test_flags_of_a_ray_job_are_not_ignored_where_there_is_none(shell: Shell) -> None:
    for flag in ("--no-wait", "--env=HOME", "--on-nodes=/shared", "--runtime=pip"):
        done = shell("submit", str(QUICKSTART), flag)
        assert done.returncode == 2
        assert f"{flag.partition('=')[0]} is about a Ray job" in done.stderr
