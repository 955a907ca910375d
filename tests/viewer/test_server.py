"""The server of a store: what it answers, to whom, and what it never does."""

import hashlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from raysearch.storage.folder import Folder
from raysearch.storage.open_folder import open_folder
from raysearch.store.ledger import RunLedger
from raysearch.store.run_folder import run_names
from raysearch.viewer import page as pages
from raysearch.viewer import run_list
from raysearch.viewer.page import write_page
from raysearch.viewer.run_list import RunList
from raysearch.viewer.server import Viewer
from tests.viewer.books import few

TOKEN = "t0ken-of-a-test"


@contextmanager
def serving(store: Path | Folder, token: str = "") -> Iterator[Viewer]:
    """A server on a free port of loopback, in a thread."""
    server = Viewer(open_folder(store), "127.0.0.1", 0, token)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ask(
    server: Viewer, path: str, method: str = "GET", **headers: str
) -> tuple[int, Mapping[str, str], str]:
    """Returns status, headers and text of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, dict(answer.getheaders()), text


def values(text: str) -> Any:
    found, _ = values_and_stamp(text)
    return found


def values_and_stamp(text: str) -> tuple[Any, str]:
    _, found, stamp = json.loads(f"[{text[text.index('(') + 1 : text.rindex(')')]}]")
    return found, stamp


@pytest.fixture(scope="module")
def served_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("served")
    few(store)
    few(store, accepted=2, name="second")
    return store


@pytest.fixture(scope="module")
def server(served_store: Path) -> Iterator[Viewer]:
    with serving(served_store) as server:
        yield server


def test_the_runs_of_a_store_are_listed_the_newest_first(
    server: Viewer, served_store: Path
) -> None:
    broken = served_store / "broken-20200101T000000Z-01234567"
    broken.mkdir()
    (broken / "run.json").write_text("{}")
    (broken / "job.yaml").write_text("")
    status, headers, text = ask(server, "/view/runs.js")
    assert (status, headers["Content-Type"]) == (200, "text/javascript; charset=utf-8")
    runs = values(text)["runs"]
    assert [run["state"] for run in runs] == ["done", "done", "unreadable"]
    assert {run["name"] for run in runs[:2]} == {"capitals", "second"}
    assert "schema_version" in runs[2]["error"]


def test_a_line_is_read_again_when_a_driver_goes_on(store: Folder) -> None:
    run, other = few(store), few(store, name="second")
    found = RunList(store, lambda: 0.0)

    def states() -> list[str]:
        return [line["state"] for line in found.read()["runs"]]

    assert states() == ["done", "done"]
    with run.lock():
        ledger = RunLedger(run)
        assert sorted(states()) == ["done", "running"]
        ledger.close("interrupted")
    assert sorted(states()) == ["done", "interrupted"]
    reads = found.read()["runs"]
    assert all(a is b for a, b in zip(found.read()["runs"], reads, strict=True)), "from memory"
    with other.lock():
        RunLedger(other).close("failed")
    assert sorted(states()) == ["failed", "interrupted"]


def test_a_list_that_takes_long_is_read_seldom(tmp_path: Path) -> None:
    few(tmp_path)
    times = iter([0.0, 2.0, 2.0, 11.9, 12.0, 12.0, 12.0])
    found = RunList(open_folder(tmp_path), lambda: next(times))
    found.read()
    few(tmp_path, name="second")
    assert len(found.read()["runs"]) == 1
    assert len(found.read()["runs"]) == 2


def test_of_many_runs_the_list_has_the_newest_and_says_how_many_there_are(
    served_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_list, "MOST_RUNS", 1)
    found = RunList(open_folder(served_store)).read()
    assert (len(found["runs"]), found["of"]) == (1, len(run_names(open_folder(served_store))))
    assert found["of"] > 1


def test_a_few_runs_are_in_memory_and_each_has_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raysearch.viewer.server.MOST_OPEN", 1)
    monkeypatch.setattr("raysearch.viewer.served_run.MOST_MADE", 2)
    runs = [few(tmp_path, name=name) for name in ("first", "second")]
    with serving(tmp_path) as server:
        for run in runs * 2:
            for part in ("index", "cells-0", "pairs-0", "report"):
                assert ask(server, f"/runs/{run.info.id}/view/{part}.js")[0] == 200
            assert list(server._runs) == [run.info.id]
            served = server.run(run.info.id)
            assert served is not None
            assert list(served._made) == ["index", "report"]


def test_a_run_has_a_page_and_its_data(server: Viewer, served_store: Path) -> None:
    name = next(path.name for path in served_store.iterdir() if path.name.startswith("second"))
    status, headers, html = ask(server, f"/runs/{name}/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in html
    assert headers["X-Content-Type-Options"] == "nosniff"
    index = values(ask(server, f"/runs/{name}/view/index.js")[2])
    assert index["hypotheses"]["verdict"] == "aar"
    cells = values(ask(server, f"/runs/{name}/view/cells-0.js")[2])
    assert [c["outcomes"]["test"] for c in cells["hypotheses"].values()] == ["+++", "+++", "+--"]
    assert ask(server, f"/runs/{name}/view/cells-7.js")[0] == 404


def test_an_answer_that_is_known_is_not_sent_again(server: Viewer) -> None:
    tag = ask(server, "/view/runs.js")[1]["ETag"]
    status, _, text = ask(server, "/view/runs.js", If_None_Match=tag)
    assert (status, text) == (304, "")


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/runs/../run.json",
        "/runs/%2e%2e/",
        "/runs/..%2f..%2fetc/view/index.js",
        "/runs/nothing/view/index.js",
        "/runs/{run}/run.json",
        "/runs/{run}/view/../run.json",
        "/runs/{run}/view/..%2frun.js",
        "/runs/{run}/journal/",
        "//runs/",
        "/favicon.ico",
    ],
)
def test_no_path_leads_anywhere_else(server: Viewer, served_store: Path, path: str) -> None:
    run = next(p.name for p in served_store.iterdir() if p.name.startswith("second"))
    assert ask(server, path.format(run=run))[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_there_is_only_get(server: Viewer, method: str) -> None:
    assert ask(server, "/", method)[0] == 501


def test_a_foreign_name_that_leads_here_is_refused(server: Viewer) -> None:
    assert ask(server, "/", Host="evil.example")[0] == 421
    assert ask(server, "/", Host=f"localhost:{server.port}")[0] == 200


def test_what_is_no_address_is_refused(
    served_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for token in ("", TOKEN):
        with serving(served_store, token) as server:
            assert ask(server, "/", Host="[")[0] == 421
            for address in (b"http://[/", b"http://[::1/view/runs.js"):
                with socket.create_connection(("127.0.0.1", server.port), timeout=60) as asked:
                    asked.sendall(b"GET " + address + b" HTTP/1.0\r\n\r\n")
                    assert asked.makefile("rb").readline().split()[1] == b"400"
    assert capsys.readouterr().err == ""


def test_with_a_token_nothing_is_told_without_it(served_store: Path) -> None:
    with serving(served_store, TOKEN) as server:
        for path in ("/", "/view/runs.js", "/?token=wrong", "/?token="):
            status, headers, text = ask(server, path)
            assert status == 401
            assert "Set-Cookie" not in headers
            assert TOKEN not in text
        assert ask(server, "/", Cookie=f"raysearch-token-{server.port}=wrong")[0] == 401
        assert ask(server, "/", Cookie=f"raysearch-token={TOKEN}")[0] == 401, "of another port"
        status, headers, _ = ask(server, f"/?token={TOKEN}")
        assert (status, headers["Location"]) == (303, "/")
        cookie = headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert ask(server, "/view/runs.js", Cookie=cookie.split(";")[0])[0] == 200
        assert ask(server, f"//evil.example/?token={TOKEN}")[1]["Location"] == "/"


def _content(served_store: Path) -> dict[str, str]:
    return {
        str(p): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in served_store.rglob("*")
        if p.is_file()
    }


def test_looking_writes_nothing(server: Viewer, served_store: Path) -> None:
    before = _content(served_store)
    for run in values(ask(server, "/view/runs.js")[2])["runs"][:2]:
        for name in ("index", "cells-0", "pairs-0"):
            assert ask(server, f"/runs/{run['id']}/view/{name}.js")[0] == 200
    assert _content(served_store) == before


@pytest.mark.parametrize("most", [10**6, 0], ids=["inside", "beside"])
def test_data_that_were_written_are_those_that_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    run = few(tmp_path)
    names = ("index", "cells-0", "pairs-0")
    with serving(tmp_path) as server:
        made = [ask(server, f"/runs/{run.info.id}/view/{name}.js") for name in names]
    monkeypatch.setattr(pages, "MAX_INSIDE", most)
    write_page(run.folder)
    monkeypatch.setattr("raysearch.viewer.served_run.RunView", None)
    with serving(tmp_path) as server:
        written = [ask(server, f"/runs/{run.info.id}/view/{name}.js") for name in names]
    assert [text for _, _, text in written] == [text for _, _, text in made]
    stamps = {values_and_stamp(text)[1] for _, _, text in written}
    assert stamps == {pages.stamp_of(run.folder)}, "of one state, and each says of which"


def test_a_store_is_shown_wherever_it_is(store: Folder) -> None:
    run = few(store)
    with serving(store) as server:
        for written in (False, True):
            if written:
                write_page(run.folder)
            (line,) = values(ask(server, "/view/runs.js")[2])["runs"]
            assert (line["id"], line["state"]) == (run.info.id, "done")
            index = values(ask(server, f"/runs/{run.info.id}/view/index.js")[2])
            assert index["hypotheses"]["verdict"] == "arr"
            assert ask(server, f"/runs/{run.info.id}/view/cells-0.js")[0] == 200
