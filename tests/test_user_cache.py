"""What a user's machine remembers is found by what it follows from, or not at all."""

import json
import os
from pathlib import Path

import pytest

from raysearch.engine.loading import model_digest as digests
from raysearch.engine.loading.model_digest import file_digest
from raysearch.user_cache import (
    MOST,
    cache_folder,
    recall,
    recall_bytes,
    remember,
    remember_bytes,
    stamp,
)

KEY = {"file": "a", "size": 3}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAYSEARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_was_remembered_is_found_by_its_key_alone() -> None:
    remember("things", KEY, {"x": [1, 2.5, None]})
    assert recall("things", KEY) == {"x": [1, 2.5, None]}
    assert recall("things", dict(reversed(KEY.items()))) == {"x": [1, 2.5, None]}
    assert recall("things", {**KEY, "size": 4}) is None
    assert recall("others", KEY) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"key": 1}', b"[" * 100_000, b'{"value": {"x": 1}}'],
)
def test_a_broken_file_counts_as_none_and_is_written_anew(folder: Path, content: bytes) -> None:
    remember("things", KEY, "before")
    (file,) = (folder / "things").iterdir()
    file.write_bytes(content)
    assert recall("things", KEY) is None
    remember("things", KEY, "after")
    assert recall("things", KEY) == "after"


def test_a_changed_value_and_another_keys_file_count_as_none(folder: Path) -> None:
    remember("things", KEY, 0.5)
    (file,) = (folder / "things").iterdir()
    whole = file.read_text()
    file.write_text(json.dumps(json.loads(whole) | {"value": 0.75}))
    assert recall("things", KEY) is None
    file.write_text(whole)
    remember("things", {"file": "b"}, 1.0)
    (other,) = set((folder / "things").iterdir()) - {file}
    file.write_text(other.read_text())
    assert recall("things", KEY) is None


def test_a_file_that_was_cut_short_counts_as_none(folder: Path) -> None:
    remember_bytes("files", KEY, b"content" * 100)
    assert recall_bytes("files", KEY) == b"content" * 100
    (file,) = (folder / "files").glob("*.bin")
    file.write_bytes(b"content" * 99)
    assert recall_bytes("files", KEY) is None
    file.unlink()
    assert recall_bytes("files", KEY) is None


@pytest.mark.parametrize("word", ["off", "OFF", "0", "none", ""])
def test_a_variable_switches_it_off(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    remember("things", KEY, 1)
    monkeypatch.setenv("RAYSEARCH_CACHE", word)
    assert cache_folder() is None
    remember("things", KEY, 2)
    assert recall("things", KEY) is None


def test_its_folder_is_that_of_the_desktop_standard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAYSEARCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/raysearch")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the standard says: ignore it
    assert cache_folder() == Path.home() / ".cache" / "raysearch"


def test_a_folder_that_cannot_be_written_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RAYSEARCH_CACHE", str(tmp_path / "file" / "cache"))
    remember("things", KEY, 1)
    remember_bytes("things", KEY, b"1")
    assert recall("things", KEY) is None


def test_the_older_half_goes_when_there_are_too_many(folder: Path) -> None:
    for number in range(MOST + 1):
        remember("things", {"number": number}, number)
        (newest,) = {f for f in (folder / "things").iterdir() if f.stat().st_mtime > 1e9}
        os.utime(newest, (number, number))
    assert len(list((folder / "things").iterdir())) == MOST + 1 - (MOST + 1) // 2
    assert recall("things", {"number": MOST}) == MOST
    assert recall("things", {"number": 0}) is None


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A large file whose last change is long ago, to be hashed."""
    monkeypatch.setattr(digests, "SMALL", 4)
    monkeypatch.setattr(digests, "SETTLED", -1.0)
    (file := tmp_path / "model.safetensors").write_bytes(b"weights")
    return file


def test_a_large_file_is_hashed_once_while_it_is_the_same(
    weights: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = file_digest(weights)
    monkeypatch.setattr(digests.hashlib, "file_digest", lambda *_: pytest.fail("hashed again"))
    assert file_digest(weights) == first


@pytest.mark.parametrize("keeps", ["size and mtime", "size"])
def test_a_file_that_has_changed_is_hashed_again(weights: Path, keeps: str) -> None:
    first, before = file_digest(weights), weights.stat()
    weights.write_bytes(b"WEIGHTS")
    if keeps == "size and mtime":
        os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    second = file_digest(weights)
    assert second != first
    (copy := weights.with_name("copy.safetensors")).write_bytes(b"WEIGHTS")
    assert file_digest(copy) == second


def test_a_file_that_has_just_changed_is_not_remembered(
    weights: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File systems that count in seconds would show the next change as the same file."""
    monkeypatch.setattr(digests, "SETTLED", 2.0)
    file_digest(weights)
    assert recall(digests.KIND, {"file": stamp(weights)}) is None
