"""A run knows the git commit of its job's folder, where there is one, and whether it is all."""

import subprocess
from pathlib import Path

import pytest

from raysearch.job import Job
from raysearch.runner.session.run import _commit
from raysearch.store.run_folder import RunFolder
from raysearch.store.source_commit import source_commit
from tests.store.books import new_run


@pytest.fixture(autouse=True)
def _git_of_this_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")


def git(folder: Path, *words: str) -> str:
    folder.mkdir(exist_ok=True)
    command = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    done = subprocess.run([*command, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def committed(folder: Path) -> str:
    """The commit of a repository with all files of a folder."""
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", "first")
    return git(folder, "rev-parse", "HEAD")


def test_a_run_has_the_commit_of_the_folder_it_was_started_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert source_commit() == {}, "no repository"
    here = Path.cwd()
    git(here, "init", "-q")
    assert source_commit() == {}, "no commit yet"
    commit = committed(here)
    run = new_run(tmp_path / "runs")
    assert RunFolder.open(run.folder).info.versions["commit"] == commit
    monkeypatch.setenv("PATH", "")
    assert source_commit() == {}, "no git"


def test_a_commit_that_is_not_all_that_runs_says_so(tmp_path: Path) -> None:
    folder, outside = tmp_path / "a", tmp_path / "outside.py"
    folder.mkdir()
    outside.write_text("")
    mine, ignored, late = (folder / name for name in ("mine.py", "ignored.py", "late.py"))
    mine.write_text("1")
    ignored.write_text("1")
    (folder / ".gitignore").write_text("ignored.py")
    commit = committed(folder)
    late.write_text("1")
    assert source_commit(folder, [mine]) == {"commit": commit}, "late.py is no part of it"
    for file in (late, ignored, outside):
        assert source_commit(folder, [mine, file]) == {"commit": f"{commit}-dirty"}, file
    mine.write_text("2")
    assert source_commit(folder) == {"commit": f"{commit}-dirty"}
    git(folder, "add", "-A")
    assert source_commit(folder) == {"commit": f"{commit}-dirty"}, "staged, not committed"


def test_it_is_of_the_folder_of_the_job_or_of_what_the_job_names(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "mine.py").write_text("")
    (folder / "job.yaml").write_text("")
    commit, here = committed(folder), committed(Path.cwd())
    assert commit != here
    keys = {"name": "x", "model": {"path": "org/model"}}
    own = Job(**keys, problem={"use": f"{folder / 'mine.py'}:problem"})
    ready = Job(**keys, problem={"use": "sums"})
    assert _commit(own, None) == {"commit": commit}
    assert _commit(ready, folder / "job.yaml") == {"commit": commit}
    assert _commit(ready, None) == {"commit": here}
    assert _commit(own, Path.cwd() / "job.yaml") == {"commit": f"{here}-dirty"}
