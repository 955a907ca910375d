"""`raysearch doctor` on this machine: what is well, and what is not, each with what would mend it."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import QUICKSTART, Shell

ALWAYS = (
    "python",
    "packages",
    "raysearch",
    "devices",
    "memory",
    "/dev/shm",
    "disk",
    "cache",
    "store",
    "ray",
    "ray token",
    "ray jobs",
    "mlflow",
)
NOBODY = "127.0.0.1:1"


def ask(shell: Shell, *arguments: str, **environment: str) -> dict[str, dict[str, Any]]:
    """What each check found; the exit code agrees."""
    done = shell("doctor", "-o", "json", *arguments, **environment)
    found = json.loads(done.stdout)
    assert done.returncode == (0 if all(f["ok"] for f in found) else 1), done.stderr
    assert re.match("raysearch: (mend that; )?go on with: raysearch ", done.stderr)
    return {f["check"]: f for f in found}


def test_where_all_is_well_every_check_says_what_it_found(shell: Shell, tracking: str) -> None:
    found = ask(shell, "--tracking-uri", tracking, "--job", str(QUICKSTART))
    assert tuple(found) == (*ALWAYS, "model")
    for check in ("python", "packages", "store", "ray", "ray token", "ray jobs", "mlflow", "model"):
        assert found[check]["ok"], found[check]
    assert "layers" in found["model"]["message"]
    assert found["mlflow"]["message"].endswith("answers")
    assert f"{shell.folder / 'runs'} can be written" in found["store"]["message"]


@pytest.mark.slow  # a whole job
def test_what_is_down_is_said_with_what_would_mend_it_and_the_rest_is_tried_all_the_same(
    shell: Shell, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    found = ask(
        shell,
        *("--job", str(tmp_path / "absent.yaml"), "--store", str(tmp_path / "file" / "runs")),
        *("--tracking-uri", f"http://user:secret@{NOBODY}"),
        RAYSEARCH_ADDRESS=NOBODY,
        RAY_API_SERVER_ADDRESS=f"http://{NOBODY}",
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN_PATH=str(tmp_path / "no_token"),
    )
    mended = {
        "store": "give --store",
        "ray": "is it up? `ray start --head` prints its address",
        "ray token": "set RAY_AUTH_TOKEN",
        "ray jobs": "is the head up",
        "mlflow": "give --tracking-uri",
        "model": "absent.yaml",
    }
    assert {check for check, f in found.items() if not f["ok"]} >= set(mended)
    for check, fix in mended.items():
        assert fix in found[check]["message"], found[check]
        assert "\n" not in found[check]["message"]
    assert found["python"]["ok"]
    assert "secret" not in json.dumps(found)


def test_for_people_it_is_one_plain_line_for_each_check(shell: Shell) -> None:
    done = shell("doctor", "--tracking-uri", "none")
    lines = done.stdout.splitlines()
    assert [line[6:17].strip() for line in lines] == list(ALWAYS)
    assert {line[:5].strip() for line in lines} <= {"ok", "WRONG"}
    assert "\x1b" not in done.stdout
    assert "kept out" in lines[-1]


def test_it_makes_no_mlflow_database_where_there_is_none(shell: Shell) -> None:
    found = ask(shell)
    assert "is made by the first search" in found["mlflow"]["message"]
    assert not (shell.folder / "mlflow.db").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_keeps_no_mlflow_database(shell: Shell) -> None:
    found = ask(shell, "--tracking-uri", "sqlite:////proc/mlflow.db")
    assert not found["mlflow"]["ok"]


def test_an_mlflow_database_in_a_folder_that_is_not_there_is_said(shell: Shell) -> None:
    found = ask(shell, "--tracking-uri", "sqlite:///nowhere/mlflow.db")
    assert "is no folder that can be written" in found["mlflow"]["message"]
