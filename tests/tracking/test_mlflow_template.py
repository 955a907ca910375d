"""A new MLflow database is a copy of one that was migrated before."""

import os
import re
import sqlite3
import subprocess
import sys
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


def tables(file: Path) -> list[list[str]]:
    """The words of each table's and index's definition: MLflow's migrations write the constraints of
    a table in an order that differs between processes."""
    with sqlite3.connect(file) as db:
        definitions = db.execute("select sql from sqlite_master where sql is not null")
        return sorted(sorted(re.findall(r"\w+", sql)) for (sql,) in definitions)


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


@pytest.mark.slow  # a migration of MLflow in a new process
def test_a_template_made_first_of_all_warns_under_the_name_of_mlflow_alone(tmp_path: Path) -> None:
    """What MLflow's models warn of is an error here unless a module of MLflow says it, and would
    leave them broken in the process."""
    (script := tmp_path / "first.py").write_text(
        "import warnings\n"
        "warnings.simplefilter('error')\n"
        "warnings.filterwarnings('ignore', category=DeprecationWarning, module='mlflow')\n"
        "warnings.filterwarnings('ignore', category=FutureWarning, module='mlflow')\n"
        "from raysearch.tracking.mlflow_client import connect\n"
        "from raysearch.tracking.mlflow_template import make_from_template\n"
        f"make_from_template('sqlite:///{tmp_path / 'a.db'}')\n"
        f"print(connect('sqlite:///{tmp_path / 'a.db'}').create_experiment('x'))\n"
    )
    env = {**os.environ, "RAYSEARCH_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, str(script)], env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    assert list((tmp_path / "cache" / KIND).iterdir()), "MLflow has made the file itself"


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
