"""The contract of a folder, on a disk and on an object store; and what only one of them has."""

import fcntl
import hashlib
import logging
import threading
import time
from pathlib import Path

import pytest

from raysearch.errors import StoreError
from raysearch.storage.folder import Folder
from raysearch.storage.local import LocalFolder, this_process
from raysearch.storage.local_copy import on_this_machine
from raysearch.storage.open_folder import open_folder
from raysearch.storage.retries import RetryPolicy
from raysearch.store.fit_store import FitStore
from tests.s3 import BUCKET, S3, SECRET, proxy_before


def test_what_is_written_is_read_and_a_later_write_takes_its_place(store: Folder) -> None:
    deep = store.at("a").at("b")
    deep.write("x.bin", b"one")
    deep.write("x.bin", b"\x00two")
    deep.write("empty", b"")
    assert (deep.read("x.bin"), deep.read("empty")) == (b"\x00two", b"")
    assert (deep.exists("x.bin"), deep.exists("y.bin"), store.exists("a")) == (True, False, False)


def test_files_and_folders_are_listed_apart_and_sorted(store: Folder) -> None:
    assert (store.names(), store.folders()) == ([], [])
    for name in ("b.txt", "a.txt"):
        store.write(name, b"1")
        store.at(name[0]).write("inner", b"2")
    assert (store.names(), store.folders()) == (["a.txt", "b.txt"], ["a", "b"])
    assert store.at("b").names() == ["inner"]


def test_what_is_deleted_is_gone_and_what_is_not_there_is_one_line(store: Folder) -> None:
    store.write("x", b"1")
    store.delete("x")
    assert not store.exists("x")
    with pytest.raises(StoreError, match=r"/x: cannot be read") as e:
        store.read("x")
    with pytest.raises(StoreError, match=r"/x: cannot be removed"):
        store.delete("x")
    assert "\n" not in str(e.value)
    assert SECRET not in str(e.value)


def test_many_files_come_in_their_order(store: Folder) -> None:
    names = [f"{i:03d}" for i in range(100)]
    for name in names[:: 1 if isinstance(store, LocalFolder) else 10]:
        store.write(name, name.encode())
    there = store.names()
    assert [content.decode() for content in store.read_each(there[::-1])] == there[::-1]
    with pytest.raises(StoreError, match="nowhere: cannot be read"):
        list(store.read_each([there[0], "nowhere"]))


def test_a_folder_is_claimed_once(store: Folder) -> None:
    first = store.claim("run")
    assert first is not None
    first.write("x", b"1")
    assert store.claim("run") is None


def test_a_log_keeps_its_batches_in_order(store: Folder) -> None:
    log = store.at("log").log(max_bytes=8)
    for batch in (b"one\n", b"two\n", b"three\n"):
        log.append(batch)
    log.close()
    written = store.at("log")
    assert b"".join(written.read_each(written.names())) == b"one\ntwo\nthree\n"
    assert len(written.names()) > 1


def test_fits_go_by_their_content(store: Folder) -> None:
    content = b"tensors"
    digest = hashlib.sha256(content).hexdigest()
    other = hashlib.sha256(b"other").hexdigest()
    fits = FitStore(store.at("interventions"))
    fits.write({digest: content, other: b"other"})
    assert fits.read(digest) == content
    fits.delete_others([digest])
    with pytest.raises(
        StoreError, match="the journal says that it was fit; restore it from a copy"
    ):
        fits.read(other)
    store.at("interventions").write(f"{digest}.safetensors", b"damaged")
    with pytest.raises(StoreError, match="is not what was written"):
        fits.read(digest)


def test_files_are_had_on_this_machine(store: Folder, tmp_path: Path) -> None:
    store.write("x", b"1")
    (path,) = on_this_machine(store, ["x"], tmp_path / "scratch")
    assert path.read_bytes() == b"1"
    assert (tmp_path / "scratch").exists() != isinstance(store, LocalFolder)


def test_a_small_file_is_one_put(s3: S3) -> None:
    with proxy_before(s3) as proxy:
        folder = open_folder(proxy.front.uri("one-put"))
        folder.write("x", b"1" * 100_000)
        assert proxy.seen == [("PUT", f"/{BUCKET}/one-put/x")]


def test_a_store_that_answers_errors_for_a_while_is_asked_again_and_it_is_said_once(
    s3: S3, caplog: pytest.LogCaptureFixture
) -> None:
    with proxy_before(s3) as proxy:
        folder = open_folder(proxy.front.uri("for-a-while"))
        proxy.down = True

        def answer_again() -> None:
            while (
                not caplog.records
            ):  # the AWS SDK tries by itself for some seconds before we hear of it
                time.sleep(0.05)
            proxy.down = False

        threading.Thread(target=answer_again, daemon=True).start()
        with caplog.at_level(logging.WARNING):
            folder.write("x", b"1")
            assert folder.at("y").names() == []
        assert folder.read("x") == b"1"
    (said,) = [r.getMessage() for r in caplog.records]
    assert said.startswith(f"s3://{BUCKET}/for-a-while?")
    assert "does not answer (AWS Error" in said
    assert SECRET not in said


def test_a_store_that_stays_away_is_given_up_with_the_way_to_go_on(s3: S3) -> None:
    with proxy_before(s3) as proxy:
        folder = open_folder(proxy.front.uri("away"), RetryPolicy(seconds=0.6))
        proxy.down = True
        with pytest.raises(
            StoreError,
            match=r"/away/x: cannot be written \(AWS Error .*\), 1 s long; when .*`resume`",
        ) as e:
            folder.write("x", b"1")
        assert "\n" not in str(e.value)
        assert SECRET not in str(e.value)
        proxy.down = False
        folder.write("x", b"2")
        assert folder.read("x") == b"2"


def test_what_a_store_refuses_for_good_is_not_asked_again(s3: S3) -> None:
    with proxy_before(s3) as proxy:
        with pytest.raises(StoreError, match="NO_SUCH_BUCKET"):
            open_folder(proxy.front.uri("x").replace(f"@{BUCKET}/", "@nobody/")).write("x", b"1")
        assert len(proxy.seen) == 1


def test_a_look_at_a_lock_refuses_nobody(tmp_path: Path) -> None:
    folder = LocalFolder(tmp_path)
    with folder.lock("a run"):
        pass
    with (tmp_path / "lock").open() as looked_at:
        fcntl.flock(looked_at, fcntl.LOCK_SH)
        threading.Timer(0.02, lambda: fcntl.flock(looked_at, fcntl.LOCK_UN)).start()
        with folder.lock("a run"):
            assert folder.holder() == this_process()
