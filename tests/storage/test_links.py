"""Links, pipes and second names that somebody else has put into a run folder: none is followed, and
what they lead to stays as it was."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from raysearch.errors import StoreError
from raysearch.runner.stored_run.resume_checks import files_of
from raysearch.storage.atomic_write import write_bytes_whole
from raysearch.storage.local import LocalFolder
from raysearch.storage.local_copy import on_this_machine
from raysearch.store.run_folder import RunFolder, find_run
from tests.store.books import new_run

MINE = b"what is mine"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A file of whoever runs the search, outside the store."""
    path = tmp_path / "home" / "mine"
    path.parent.mkdir()
    path.write_bytes(MINE)
    return path


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return new_run(tmp_path / "runs")


def _untouched(mine: Path) -> None:
    assert mine.read_bytes() == MINE
    assert [p.name for p in mine.parent.iterdir()] == [mine.name]


@pytest.mark.parametrize("plant", [os.symlink, os.link])
def test_a_lock_that_leads_elsewhere_is_refused_and_empties_nothing(
    run: RunFolder, mine: Path, plant: Callable[[Path, Path], None]
) -> None:
    (run.path / "lock").unlink(missing_ok=True)
    plant(mine, run.path / "lock")
    with (
        pytest.raises(StoreError, match=r"lock: cannot be opened .*(link|second name)"),
        run.lock(),
    ):
        pass
    _untouched(mine)


@pytest.mark.parametrize("name", ["report.html", "run.json", "job.yaml"])
def test_a_file_that_is_written_takes_the_place_of_a_link_and_not_of_what_it_leads_to(
    run: RunFolder, mine: Path, name: str
) -> None:
    (run.path / name).unlink(missing_ok=True)
    for planted in (run.path / name, run.path / f".{name}.tmp"):
        planted.symlink_to(mine)
    run.folder.write(name, b"ours")
    assert not (run.path / name).is_symlink()
    assert (run.path / name).read_bytes() == b"ours"
    _untouched(mine)


@pytest.mark.parametrize("name", ["journal", "tables", "heatmaps", "interventions", "files"])
def test_a_folder_that_is_a_link_is_refused_by_all_that_would_write_in_it(
    run: RunFolder, mine: Path, name: str
) -> None:
    folder = run.folder.at(name)
    if (run.path / name).exists():
        (run.path / name).rename(run.path / "before")
    (run.path / name).symlink_to(mine.parent)
    writes: list[Callable[[], object]] = [
        lambda: folder.write("x", b"1"),
        lambda: folder.claim("x"),
        lambda: folder.at("deeper").write("x", b"1"),
        lambda: folder.log(100).append(b"1"),
        lambda: folder.delete("mine"),
        lambda: folder.read("mine"),
    ]
    for write in writes:
        with pytest.raises(StoreError, match=f"{name} is a link, and none is followed here"):
            write()
    _untouched(mine)


def test_a_link_in_place_of_a_file_that_is_read_is_said(
    run: RunFolder, mine: Path, tmp_path: Path
) -> None:
    (run.path / "heatmaps").mkdir(exist_ok=True)
    (run.path / "heatmaps" / "a.png").symlink_to(mine)
    assert run.heatmaps.names() == ["a.png"]  # missed aloud, not passed over
    for read in (
        lambda: run.heatmaps.read("a.png"),
        lambda: on_this_machine(run.heatmaps, ["a.png"], tmp_path / "scratch"),
    ):
        with pytest.raises(StoreError, match=r"a\.png: cannot be read \(a\.png is a link"):
            read()


def test_a_pipe_in_place_of_a_file_holds_nobody_up(run: RunFolder) -> None:
    (run.path / "run.json").unlink()
    os.mkfifo(run.path / "run.json")
    with pytest.raises(StoreError, match="no plain file"):
        run.folder.read("run.json")
    (run.path / "lock").unlink(missing_ok=True)
    os.mkfifo(run.path / "lock")
    with pytest.raises(StoreError, match="no plain file"), run.lock():
        pass


def test_a_run_of_a_store_that_is_a_link_is_refused_and_one_that_is_named_is_not(
    run: RunFolder, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / run.path.name).symlink_to(run.path)
    with pytest.raises(StoreError, match="is a link"):
        find_run(other, run.path.name)
    assert find_run(other, str(other / run.path.name)).info == run.info


def test_files_that_came_along_are_no_links(run: RunFolder, mine: Path) -> None:
    (run.path / "files" / "deep").mkdir(parents=True)
    (run.path / "files" / "deep" / "helper.py").symlink_to(mine)
    with pytest.raises(StoreError, match=r"helper\.py: is a link"), files_of(run):
        pass


def test_what_fails_leaves_no_half_file(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "in it").touch()
    with pytest.raises(StoreError, match="x: cannot be written"):
        write_bytes_whole(tmp_path / "x", b"1")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_rights_are_those_of_the_user_s_own_mask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        LocalFolder(tmp_path).at("a").write("x", b"1")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a" / "x").stat().st_mode) == 0o640
