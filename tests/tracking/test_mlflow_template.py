"""A new MLflow database is a copy of one that was migrated before."""

import sqlite3
from pathlib import Path

import pytest

from raysearch.tracking import mlflow_template
from raysearch.tracking.mlflow_client import connect
from raysearch.tracking.mlflow_template import KIND, make_from_template


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAYSEARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / KIND


@pytest.fixture
def known(cache: Path, migrated_db: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The template, made of the tests' own migrated database."""
    monkeypatch.setattr(mlflow_template, "_migrated", migrated_db.read_bytes)
    return migrated_db.read_bytes()


def tables(file: Path) -> list[str]:
    with sqlite3.connect(file) as db:
        return sorted(str(sql) for (sql,) in db.execute("select sql from sqlite_master"))


def test_the_template_is_what_mlflow_makes_without_rows_of_a_place(migrated_db: Path) -> None:
    content = mlflow_template._migrated()
    assert content is not None
    (file := migrated_db.with_name("template.db")).write_bytes(content)
    try:
        assert tables(file) == tables(migrated_db)
        with sqlite3.connect(file) as db:
            assert db.execute("select count(*) from experiments").fetchone() == (0,)
    finally:
        file.unlink()


def test_a_new_file_is_made_once_and_works(
    tmp_path: Path, known: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_from_template(f"sqlite:///{tmp_path / 'a.db'}")
    monkeypatch.setattr(mlflow_template, "_migrated", lambda: pytest.fail("made again"))
    make_from_template(f"sqlite:///{tmp_path / 'b.db'}?timeout=5")
    assert (tmp_path / "a.db").read_bytes() == (tmp_path / "b.db").read_bytes() == known
    client = connect(f"sqlite:///{tmp_path / 'b.db'}")
    assert client.get_experiment(client.create_experiment("x")).name == "x"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.db", "b.db", "cache"]


def test_a_file_that_exists_is_left_as_it_is(tmp_path: Path, known: bytes) -> None:
    (file := tmp_path / "a.db").write_bytes(b"")
    make_from_template(f"sqlite:///{file}")
    make_from_template("http://mlflow:5000")
    make_from_template(f"sqlite:///{tmp_path / 'none' / 'a.db'}")
    assert file.read_bytes() == b""


def test_a_damaged_template_is_made_anew(tmp_path: Path, cache: Path, known: bytes) -> None:
    make_from_template(f"sqlite:///{tmp_path / 'a.db'}")
    (template,) = cache.glob("*.bin")
    template.write_bytes(known[:1000])
    make_from_template(f"sqlite:///{tmp_path / 'b.db'}")
    assert (tmp_path / "b.db").read_bytes() == known
