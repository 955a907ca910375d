"""`runs` and `view` take their store as an argument and as --store; one that is not there is said,
and a run that cannot be read says why."""

import json
from pathlib import Path
from typing import Any

import click
import pytest

from raysearch.viewer import server
from tests.runner.finished import raysearch
from tests.viewer.books import few


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stores that `view` has shown, each until it was interrupted."""
    places: list[str] = []

    def serve_forever(self: Any, *_: object) -> None:
        places.append(self._store.place)
        raise KeyboardInterrupt

    monkeypatch.setattr(server.Viewer, "serve_forever", serve_forever)
    return places


def test_a_store_is_an_argument_or_a_flag_or_a_variable(
    tmp_path: Path, shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, store = few(tmp_path / "s"), str(tmp_path / "s")
    for words in ((store,), ("--store", store), ()):
        if not words:
            monkeypatch.setenv("RAYSEARCH_STORE", store)
        code, stdout, _ = raysearch("runs", *words, "-o", "json")
        assert (code, [line["id"] for line in json.loads(stdout)]) == (0, [run.info.id])
        code, stdout, _ = raysearch("view", *words)
        assert (code, stdout.startswith("http://127.0.0.1:")) == (0, True)
    assert shown == [store] * 3
    code, stdout, _ = raysearch("view", "--store", str(run.path))  # as the argument takes a run
    assert stdout.rstrip().endswith(f"/runs/{run.info.id}/")


@pytest.mark.parametrize("command", ["runs", "view"])
def test_a_store_that_is_not_there_is_one_line(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no store")
    named = [("nosuch",), ("--store", "nosuch"), ("file",), (f"file://{tmp_path}/nosuch",), ()]
    monkeypatch.chdir(tmp_path)
    for words in named:
        if not words:
            monkeypatch.setenv("RAYSEARCH_STORE", "nosuch")
        code, stdout, said = raysearch(command, *words)
        assert (code, stdout, said.count("\n")) == (1, "", 1), words
        assert said.startswith("raysearch: there is no store ")


def test_a_store_that_is_empty_or_not_begun_is_none_of_these(
    tmp_path: Path, shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in ((), (str(tmp_path),)):
        for command in ("runs", "view"):
            code, _, said = raysearch(command, *words)
            assert (code, "holds no runs yet" in said) == (0, True)
    assert len(shown) == 2


def test_two_stores_are_one_too_many(tmp_path: Path) -> None:
    for command in ("runs", "view"):
        with pytest.raises(click.UsageError, match="give one of both"):
            raysearch(command, str(tmp_path), "--store", str(tmp_path))


def test_a_run_that_cannot_be_read_says_why_to_a_script_too(tmp_path: Path) -> None:
    run = few(tmp_path)
    (run.path / "run.json").write_text("{")
    (line,) = json.loads(raysearch("runs", str(tmp_path), "-o", "json")[1])
    assert (line["state"], line["model"]) == ("unreadable", None)
    assert "run.json" in line["error"]
    assert line["error"] in raysearch("runs", str(tmp_path))[2]
