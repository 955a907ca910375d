"""`resume` of a run that is done says so and shows its results: no model is loaded, nothing is
written."""

import shutil
from pathlib import Path

import pytest

import raysearch as rs
from raysearch.storage.open_folder import open_folder
from raysearch.viewer.page import data_in, html_page, stamp_of
from tests.cli.conftest import QUICKSTART, Shell
from tests.edited import unended
from tests.once import Once

FEWER = ("--set", "space.variables=[sum_ab,total]", "--set", "pairs.test=128")


@pytest.fixture
def done_run(once: Once, tmp_path: Path) -> Path:
    """A copy of a run that is done, in a store of this test's own."""
    made = once.searched(QUICKSTART, *FEWER)
    shutil.copytree(made, tmp_path / "runs" / made.name)
    return tmp_path / "runs" / made.name


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def _files(run: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_a_run_that_is_done_is_said_to_be_and_shown_without_a_ray_or_a_model(
    done_run: Path, shell: Shell
) -> None:
    before = _files(done_run)
    shown = shell("resume", "latest")  # on a Ray of its own, were there anything to do
    assert shown.returncode == 0, shown.stderr
    said = shown.stderr.splitlines()
    assert said[0] == f"raysearch: run {done_run.name} is done"
    assert not [line for line in said if line.startswith(("ray ", "loading"))]
    assert said[-2].split() == ["more", "raysearch", "results", str(done_run)]
    assert said[-1].startswith("raysearch: go on with: raysearch export ")
    assert "Alignment: accepted hypotheses" in shown.stdout
    assert _files(done_run) == before


@pytest.mark.parametrize("retry_failed", [False, True])
def test_so_does_python(
    done_run: Path, retry_failed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _files(done_run)
    run = rs.resume(store=done_run.parent, retry_failed=retry_failed)
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(f"raysearch: run {done_run.name} is done")
    assert not [line for line in said if line.startswith(("ray ", "loading", "replayed"))]
    assert run.info.id == done_run.name
    assert _files(done_run) == before


def test_a_run_whose_summary_is_missing_is_finished(done_run: Path, shell: Shell) -> None:
    (done_run / "report.html").unlink()
    done = shell("resume", "latest", "--pool", "local")
    assert done.returncode == 0, done.stderr
    assert "is done" not in done.stderr
    assert (done_run / "report.html").exists()


@pytest.mark.slow
def test_a_page_of_the_search_on_its_way_is_no_sign_of_the_end(
    done_run: Path, shell: Shell
) -> None:
    page = done_run / "report.html"
    last = page.read_text()
    page.write_text(html_page("run", done_run.name, {}, "of an earlier state"))
    done = shell("resume", "latest", "--pool", "local")
    assert done.returncode == 0, done.stderr
    assert "is done" not in done.stderr
    assert data_in(page.read_text())[0] == stamp_of(open_folder(done_run)) != ""
    page.write_text(last.replace(data_in(last)[0], ""))
    again = shell("resume", "latest")
    assert again.stderr.startswith(f"raysearch: run {done_run.name} is done"), again.stderr


@pytest.mark.slow
def test_a_run_whose_driver_was_killed_is_gone_on_with(done_run: Path, shell: Shell) -> None:
    unended(done_run)
    done = shell("resume", "latest", "--pool", "local")
    assert done.returncode == 0, done.stderr
    assert "replayed" in done.stderr
    again = shell("resume", "latest", "--pool", "local")
    assert again.stderr.startswith(f"raysearch: run {done_run.name} is done\n")
