"""Names that can be no file's, stores without a bucket, outputs that are no plain file: one line each."""

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from raysearch.cli.main import main
from raysearch.errors import JobError
from raysearch.job import Job
from tests.runner.finished import make, raysearch

LONG = "/" + 5000 * "a"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("finished"))


def job(folder: Path, **keys: Any) -> Path:
    """A job file with these keys in place of the usual ones."""
    whole = {
        "name": "places",
        "model": {"path": "x"},
        "problem": {"use": "raysearch.problems.add_three"},
        **keys,
    }
    path = folder / "job.yaml"
    path.write_text(json.dumps(whole))
    return path


@pytest.mark.parametrize("name", [LONG, "a\0b", "~no_such_user/x"])
@pytest.mark.parametrize(
    ("key", "keys"),
    [
        ("model.path", {"model": {"path": "%s.py:f"}}),
        ("model.path", {"model": {"path": "%s"}}),
        ("problem.use", {"problem": {"use": "%s.py:f"}}),
        ("problem.pairs", {"problem": {"pairs": "%s"}}),
        ("propose.use", {"propose": {"use": "%s.py:F"}}),
    ],
)
def test_a_path_that_can_be_none_is_named_by_its_key(
    tmp_path: Path, key: str, keys: dict[str, dict[str, str]], name: str
) -> None:
    named = {of: {k: text % name for k, text in some.items()} for of, some in keys.items()}
    with pytest.raises(JobError, match=rf"{key}: .* can be no path here \(") as e:
        Job.load(job(tmp_path, **named))
    assert len(str(e.value)) < 500


@pytest.mark.parametrize("command", ["results", "report", "status", "compact", "repair", "sync"])
def test_a_run_or_store_whose_name_is_too_long_is_one_line(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["raysearch", command, LONG])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert said.count("\n") == 1
    assert said.endswith("File name too long; give another place\n")
    assert len(said) < 300


@pytest.mark.parametrize("store", ["s3://", "gs:///runs", "abfs://"])
def test_a_store_without_a_bucket_is_refused_at_once(store: str) -> None:
    code, _, said = raysearch("results", "latest", "--store", store)
    assert code == 2
    assert f"{store}: names no bucket; give {store.partition(':')[0]}://BUCKET/PREFIX" in said


@pytest.mark.slow
def test_a_page_goes_into_a_pipe_or_a_link_and_puts_no_file_in_their_place(
    finished: Path, tmp_path: Path
) -> None:
    pipe, page, link = tmp_path / "pipe", tmp_path / "page.html", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(page)
    assert raysearch("report", str(finished), "--to", str(link))[0] == 0
    assert link.is_symlink()
    end = os.open(pipe, os.O_RDWR)  # so that the writer waits for nobody
    try:
        os.set_blocking(end, False)
        if page.stat().st_size < 60_000:  # what a pipe takes
            assert raysearch("report", str(finished), "--to", str(pipe))[0] == 0
            assert os.read(end, 10**6) == page.read_bytes()
    finally:
        os.close(end)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.slow
def test_a_full_device_is_one_line_and_stays_one(finished: Path, tmp_path: Path) -> None:
    link = tmp_path / "full"
    link.symlink_to("/dev/full")
    code, _, said = raysearch("report", str(finished), "--to", str(link))
    assert code == 2
    assert "cannot be written (No space left on device)" in said
    assert link.is_symlink()


def test_more_rows_than_any_number_are_all_of_them(finished: Path) -> None:
    every = raysearch("results", str(finished), "-o", "jsonl")[1]
    assert raysearch("results", str(finished), "-o", "jsonl", "--top", "9" * 40)[1] == every


def test_an_unreadable_place_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuses(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/somewhere/run.json")

    monkeypatch.setattr("raysearch.store.run_folder.find_run", refuses)
    monkeypatch.setattr(sys, "argv", ["raysearch", "results", "latest"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert said == "raysearch: /somewhere/run.json: Permission denied; give another place\n"
