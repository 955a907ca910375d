"""Damage to the files of a run: named by whoever reads, and mended from the journal."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import raysearch as rs
from raysearch.errors import StoreError
from raysearch.runner.stored_run.repair import repair
from raysearch.storage.digests_json import FILE, each_checked
from raysearch.storage.open_folder import open_folder
from raysearch.store.journal_codec import Sealed
from raysearch.store.progress_file import FILE as PROGRESS
from raysearch.store.run_folder import RunFolder
from raysearch.store.run_history import read_entries
from tests.runner.finished import JOB, PROPOSER, files, make, raysearch
from tests.s3 import S3

TOUCHED = ("lock", "journal/", "run.json", "report.html", "heatmaps/")
"""What a repair writes, or nobody reads."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / finished.name))


def parts(run: Path) -> list[Path]:
    return sorted(run.glob("tables/*/*.parquet"))


def flipped(content: bytes, rng: random.Random) -> bytes:
    bit = rng.randrange(8 * len(content))
    at = bit // 8
    return content[:at] + bytes([content[at] ^ 1 << bit % 8]) + content[at + 1 :]


@pytest.mark.slow_unless(flips=[20])
@pytest.mark.parametrize("flips", [20, 400])
def test_each_of_many_flipped_bits_leaves_the_results_as_they_were_or_is_one_line_that_names_the_file(
    copied: Path, flips: int
) -> None:
    _, expected, _ = raysearch("results", str(copied), "-o", "json")
    rng = random.Random(f"{flips} flips")
    every = [p for p in sorted(copied.rglob("*")) if p.is_file() and p.stat().st_size]
    tables, rest = parts(copied), [p for p in every if p.parent.name != "tables"]
    refused = 0
    for i in range(flips):
        path = rng.choice(tables if i % 2 else rest)
        content = path.read_bytes()
        path.write_bytes(flipped(content, rng))
        code, said, error = raysearch("results", str(copied), "-o", "json")
        path.write_bytes(content)
        if code == 0:
            assert said == expected, path
        else:
            refused += 1
            assert code == 2
            assert path.name in error
            assert error.count("\n") == 1
    assert refused > flips / 4
    assert raysearch("results", str(copied), "-o", "json")[1] == expected


@pytest.mark.parametrize("command", ["results", "report", "compact", "export", "status"])
@pytest.mark.parametrize("how", ["lost", "damaged"])
def test_a_part_that_is_wrong_is_named_by_all_who_read_it(
    copied: Path, command: str, how: str, tmp_path: Path
) -> None:
    table = {
        "results": "verdicts",
        "report": "observations",
        "compact": "verdicts",
        "export": "hypotheses",
    }.get(command, "observations")
    found = sorted((copied / "tables" / table).iterdir())
    part = found[len(found) // 2]
    if how == "lost":
        part.unlink()
    else:
        part.write_bytes(flipped(part.read_bytes(), random.Random(0)))
    arguments = ["0", "--to", str(tmp_path / "to")] if command == "export" else []
    code, _, error = raysearch(command, str(copied), *arguments)
    assert code == 2
    assert part.name in error
    assert f"is {how}" in error
    assert "raysearch repair" in error
    assert len([line for line in error.splitlines() if "->" not in line]) == 1


def test_what_is_lost_of_a_finished_run_is_never_shown_as_nothing(copied: Path) -> None:
    shutil.rmtree(copied / "tables")
    for command in ("results", "report"):
        code, said, error = raysearch(command, str(copied))
        assert (code, said) == (2, "")
        assert "is lost, though the journal says" in error
    with pytest.raises(StoreError, match="is lost"):
        rs.Run.open(str(copied)).to_arrow()
    assert raysearch("repair", str(copied))[0] == 0
    assert raysearch("results", str(copied))[0] == 0


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32))
def test_whatever_is_damaged_or_lost_comes_back_with_the_bytes_that_it_had(
    finished: Path, seed: int
) -> None:
    rng = random.Random(seed)
    run = finished.parent / "broken" / finished.name
    shutil.rmtree(run.parent, ignore_errors=True)
    shutil.copytree(finished, run)
    before = files(run, TOUCHED)
    broken = [
        run / path.relative_to(finished)
        for path in rng.sample([*parts(finished), finished / FILE], rng.randint(1, 5))
    ]
    for path in broken:
        match rng.choice(["lost", "empty", "flipped", "cut"]):
            case "lost":
                path.unlink()
            case "empty":
                path.write_bytes(b"")
            case "flipped":
                path.write_bytes(flipped(path.read_bytes(), rng))
            case "cut":
                path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])
    code, _, said = raysearch("repair", str(run))
    assert code == 0, said
    assert {line.split()[1] for line in said.splitlines() if line.startswith("repaired")} == {
        path.relative_to(run).as_posix() for path in broken
    }
    assert files(run, TOUCHED) == before
    assert raysearch("repair", str(run))[2].count("repaired") == 0


def test_a_run_on_an_object_store_is_repaired_in_the_same_way(finished: Path, s3: S3) -> None:
    store = open_folder(s3.uri("repair"))
    for name, content in files(finished, ("lock",)).items():
        folder, _, file = name.rpartition("/")
        at = store.at(finished.name)
        for step in folder.split("/") if folder else ():
            at = at.at(step)
        at.write(file, content)
    run = RunFolder.open(store.at(finished.name))
    verdicts = run.tables.at("verdicts")
    name = verdicts.names()[0]
    content = verdicts.read(name)
    verdicts.write(name, flipped(content, random.Random(1)))
    with pytest.raises(StoreError, match=f"{name}: is damaged"):
        list(each_checked(run.folder, "verdicts"))
    assert repair(run).files == (f"tables/verdicts/{name}",)
    assert verdicts.read(name) == content


@pytest.mark.parametrize("file", ["pairs.parquet", "run.json"])
def test_what_the_journal_does_not_hold_is_named_and_wants_a_copy(copied: Path, file: str) -> None:
    path = copied / file
    path.write_bytes(flipped(path.read_bytes(), random.Random(2)))
    for command in ("report", "repair", *(["status"] if file == "run.json" else [])):
        code, _, error = raysearch(command, str(copied))
        assert code == 2, command
        assert file in error
        assert "a copy" in error


def test_a_job_that_was_damaged_or_edited_is_no_text_for_a_page(copied: Path) -> None:
    path = copied / "job.yaml"
    path.write_text(path.read_text().replace("max_pairs: 32", "max_pairs: 33"))
    for command in ("report", "results", "repair"):
        broken = next((copied / "tables/verdicts").iterdir())
        if command == "repair":
            broken.unlink()
        code, _, error = raysearch(command, str(copied))
        assert code == 2
        assert "job.yaml: was edited since the run began" in error


@pytest.mark.parametrize("content", [b"a: \0", b"a: [", b"- a\n", b"\xff\xfe"])
def test_a_job_of_an_earlier_run_that_cannot_be_read_is_one_line(
    copied: Path, content: bytes
) -> None:
    RunFolder.open(copied).update(job_sha256=None)
    (copied / "job.yaml").write_bytes(content)
    for command in ("report", "results", "repair"):
        code, _, error = raysearch(command, str(copied))
        # repair ends by naming the next command
        assert (code, error.count("\n")) == ((2, 1) if command != "repair" else (0, 2)), error
        assert "job.yaml: cannot be read" in error or command == "repair"


def test_merged_parts_have_digests_too_and_are_repaired(copied: Path) -> None:
    _, expected, _ = raysearch("results", str(copied), "-o", "json")
    assert raysearch("compact", str(copied))[0] == 0
    assert raysearch("results", str(copied), "-o", "json")[1] == expected
    merged = next((copied / "tables/verdicts").iterdir())
    merged.write_bytes(flipped(merged.read_bytes(), random.Random(3)))
    code, _, error = raysearch("results", str(copied))
    assert code == 2
    assert f"{merged.name}: is damaged" in error
    assert raysearch("repair", str(copied))[0] == 0
    assert raysearch("results", str(copied), "-o", "json")[1] == expected
    merged = next((copied / "tables/hypotheses").iterdir())
    merged.unlink()
    assert raysearch("results", str(copied))[0] == 2


def test_a_part_that_the_journal_does_not_know_is_no_part_of_a_table(copied: Path) -> None:
    _, expected, _ = raysearch("results", str(copied), "-o", "json")
    first = sorted((copied / "tables/verdicts").iterdir())[0]
    shutil.copy(first, first.with_name(f"9{first.name[1:]}"))
    assert raysearch("results", str(copied), "-o", "json")[1] == expected


def test_the_journal_has_the_digest_of_every_part(copied: Path) -> None:
    sealed = {
        e.file: e.digest
        for batch in read_entries(RunFolder.open(copied))
        for e in batch
        if isinstance(e, Sealed)
    }
    assert {path.relative_to(copied).as_posix() for path in parts(copied)} == {
        f for f in sealed if "/" in f
    }
    assert "pairs.parquet" in sealed
    assert json.loads((copied / FILE).read_text())["files"] == sealed


def test_a_run_of_before_has_no_digests_and_opens_as_it_did_and_gets_them_by_a_repair(
    copied: Path,
) -> None:
    _, expected, _ = raysearch("results", str(copied), "-o", "json")
    (copied / FILE).unlink()
    raw = json.loads((copied / "run.json").read_text())
    del raw["sealed"], raw["sum"]
    (copied / "run.json").write_text(json.dumps(raw))
    for command in ("results", "status", "report"):
        assert raysearch(command, str(copied))[0] == 0
    assert raysearch("repair", str(copied))[0] == 0
    assert (copied / FILE).exists()
    assert raysearch("results", str(copied), "-o", "json")[1] == expected


@pytest.mark.slow
def test_looking_at_a_run_never_runs_its_proposer(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PROPOSER)
    job: dict[str, Any] = {**JOB, "propose": {"use": "mine.py:Proposer"}}
    run = make(tmp_path, job)
    mark = tmp_path / "ran"
    assert mark.exists()
    mark.unlink()
    before = files(run, TOUCHED)
    for arguments in (
        ["status", str(run)],
        ["results", str(run), "--where", "layer = 3"],
        ["report", str(run)],
        ["sync", str(run), "--tracking-uri", f"sqlite:///{tmp_path / 'mlflow.db'}"],
    ):
        code, _, error = raysearch(*arguments)
        assert code == 0, error
        assert not mark.exists(), arguments
    rs.Run.open(str(run)).results()
    assert "stage     done" in raysearch("status", str(run))[1]
    shutil.rmtree(run / "tables")
    (tmp_path / "mine.py").unlink()
    assert raysearch("repair", str(run))[0] == 0
    assert not mark.exists()
    assert files(run, TOUCHED) == before


@pytest.mark.slow
def test_of_a_run_of_before_whose_proposer_alone_could_say_it_the_tables_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(PROPOSER)
    with monkeypatch.context() as patch:
        patch.setattr(
            "raysearch.runner.session.run.with_recording", lambda proposer, question: proposer
        )
        run = make(tmp_path, {**JOB, "propose": {"use": "mine.py:Proposer"}})
    (tmp_path / "ran").unlink()
    (run / PROGRESS).unlink()
    code, said, _ = raysearch("status", str(run))
    assert code == 0
    assert "stage     not known: " in said
    rows = rs.Run.open(str(run)).to_arrow().to_pylist()
    assert f"{sum(row['verdict'] == 'accept' for row in rows)} accepted" in said
    for command in ("sync", "repair"):
        extra = ["--tracking-uri", f"sqlite:///{tmp_path / 'm.db'}"] if command == "sync" else []
        if command == "repair":
            shutil.rmtree(run / "tables/verdicts")
        code, _, error = raysearch(command, str(run), *extra)
        assert code == 2
        assert "looking at a run runs no code of it; `raysearch resume` it" in error
    assert not (tmp_path / "ran").exists()
