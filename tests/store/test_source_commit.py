"""A run knows the git commit of the folder that it was started in, where there is one."""

import subprocess
from pathlib import Path

import pytest

from raysearch.store.run_folder import RunFolder, source_commit
from tests.store.books import new_run


def test_a_run_has_the_commit_of_the_folder_it_was_started_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GIT_DIR", "GIT_WORK_TREE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert source_commit() == {}, "no repository"
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert source_commit() == {}, "no commit yet"
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    said = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    run = new_run(tmp_path / "runs")
    assert RunFolder.open(run.folder).info.versions["commit"] == said.stdout.strip()
    monkeypatch.setenv("PATH", "")
    assert source_commit() == {}, "no git"
