"""Whatever an environment lacks, a folder holds or a stream refuses, a command ends in one line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

import raysearch as rs
from raysearch.cli.main import main
from raysearch.cli.streams import fault
from raysearch.errors import MemoryFullError, ResumeError, StoreError
from raysearch.storage.digests_json import checksum
from raysearch.store.run_folder import RunFolder, find_run
from tests.cli.conftest import QUICKSTART, Shell
from tests.edited import edit_info, unended
from tests.once import Once

FEWER = ("--set", "space.variables=[sum_ab,total]", "--set", "pairs.test=128")
WITHOUT = """
import importlib.metadata as metadata, sys
lacks = sys.argv.pop(1)
class Lacking:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == lacks:
            raise ModuleNotFoundError(f"No module named {lacks!r}", name=lacks)
sys.meta_path.insert(0, Lacking())
version = metadata.version
def lacking(name):
    if name == lacks:
        raise metadata.PackageNotFoundError(name)
    return version(name)
metadata.version = lacking
from raysearch.cli.start import main
main()
"""


@pytest.fixture
def done_run(once: Once, tmp_path: Path) -> Path:
    made = once.searched(QUICKSTART, *FEWER)
    shutil.copytree(made, tmp_path / "runs" / made.name)
    return tmp_path / "runs" / made.name


@pytest.mark.slow
@pytest.mark.parametrize("lacks", ["psutil", "packaging", "pydantic", "yaml"])
def test_doctor_says_what_is_missing_in_any_environment(lacks: str, tmp_path: Path) -> None:
    done = python(WITHOUT, lacks, "doctor", "--tracking-uri", "none", cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert lacks in done.stdout
    assert done.stdout.count("\n") == 13


@pytest.mark.parametrize(
    ("lacks", "command", "says"),
    [
        ("click", ["doctor"], "the package click is not installed in"),
        ("pydantic", ["plan", str(QUICKSTART)], "`raysearch doctor` says what else is missing"),
    ],
)
def test_so_does_any_command_without_a_package(
    lacks: str, command: list[str], says: str, tmp_path: Path
) -> None:
    done = python(WITHOUT, lacks, *command, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert says in done.stderr


def python(code: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


@pytest.mark.parametrize("module", ["raysearch", "raysearch.cli"])
def test_a_module_is_the_command_too_and_nothing_beside_it_replaces_a_package(
    module: str, tmp_path: Path
) -> None:
    (tmp_path / "click.py").write_text("raise SystemExit('not this one')")
    done = subprocess.run(
        [sys.executable, "-m", module, "--version"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert (done.stdout, done.stderr) == (f"raysearch, version {rs.__version__}\n", "")


@pytest.mark.parametrize(
    "body",
    [
        "import sys; sys.exit(0)\ndef problem(): ...",
        "def problem():\n    raise SystemExit(0)",
        "import os\ndef problem():\n    exit()",
    ],
)
def test_code_of_the_user_that_calls_exit_is_refused(
    body: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(body)
    text = QUICKSTART.read_text().replace("path: planted", f"path: {QUICKSTART.parent}/planted")
    text = text.replace("use: raysearch.problems.add_three", "use: mine.py:problem")
    (tmp_path / "job.yaml").write_text(text.replace("options:", "# options:"))
    monkeypatch.setattr(sys, "argv", ["raysearch", "plan", str(tmp_path / "job.yaml")])
    with pytest.raises(SystemExit) as e:
        main()
    assert e.value.code == 2
    assert "SystemExit" in capsys.readouterr().err


def test_exit_in_the_middle_of_a_run_is_no_success(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raysearch.cli.example.example.callback", lambda **_: sys.exit(0))
    monkeypatch.setattr(sys, "argv", ["raysearch", "example"])
    with pytest.raises(SystemExit) as e:
        main()
    assert e.value.code == 1
    assert "code that the job names called sys.exit(0)" in capsys.readouterr().err


@pytest.mark.slow_unless(redirected=[">/dev/full"])
@pytest.mark.parametrize("redirected", [">&-", ">/dev/full", "<&- >&-"])
def test_a_stream_that_takes_nothing_is_said(done_run: Path, redirected: str) -> None:
    command = f"{sys.executable} -m raysearch.cli results {done_run} -o csv {redirected}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("raysearch: stdout cannot be written (")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [MemoryError(), OSError(12, "Cannot allocate memory"), pa.ArrowMemoryError("malloc failed")],
)
def test_full_memory_is_said_to_be(
    error: MemoryError | OSError, done_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "memory is full" in (fault(error) or "")

    def fails(*_: object) -> None:
        raise error

    for place in ("report.results_table", "store.compact", "store.pairs_table"):
        monkeypatch.setattr(f"raysearch.{place}.from_parquet", fails)
    with pytest.raises((MemoryFullError, MemoryError)) as e:
        rs.Run.open(str(done_run)).results()
    assert "repair" not in str(e.value)


@pytest.mark.parametrize(
    "text",
    ["[" * 200_000, '{"a":' * 200_000, "[]", "3", '"run"', "null", "{}", "\x00"],
)
def test_a_run_json_of_another_form_is_refused_in_one_line(done_run: Path, text: str) -> None:
    (done_run / "run.json").write_text(text)
    with pytest.raises(StoreError, match=r"run\.json: ") as e:
        find_run(done_run.parent, str(done_run))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", 3), ("created", "soon"), ("facts", [1]), ("evidence_version", "2"), ("id", None),
        ("scale", "wide"), ("versions", "new"), ("tracking_uri", {}), ("sealed", 1),
        ("evidence_version", True),
    ],
)  # fmt: skip
def test_so_is_one_with_a_value_of_another_type(done_run: Path, field: str, value: object) -> None:
    edit_info(done_run, **{field: value})
    with pytest.raises(StoreError, match=r"run\.json: cannot be read"):
        RunFolder.open(done_run)


def test_digests_of_another_form_are_refused_in_one_line(done_run: Path) -> None:
    plain = {"files": [1], "writing": {}}
    for text in (json.dumps(plain | {"sum": checksum(plain)}), "[" * 200_000):
        (done_run / "digests.json").write_text(text)
        with pytest.raises(StoreError, match=r"digests\.json: is damaged"):
            rs.Run.open(str(done_run)).results()


@pytest.mark.slow
def test_folders_and_files_of_a_file_server_are_no_part_of_a_run(
    done_run: Path, shell: Shell
) -> None:
    before = rs.Run.open(str(done_run)).results()
    for folder in (done_run / "journal", *(done_run / "journal").iterdir(), done_run / "tables"):
        (folder / "@eaDir").mkdir()
        (folder / "@eaDir" / "x@SynoEAStream").write_bytes(b"x")
    part = next((done_run / "tables" / "verdicts").glob("*.parquet"))
    copy = part.with_name("copy.parquet")
    shutil.copy(part, copy)
    (part.parent / "broken.parquet").write_bytes(b"no parquet")
    for command in ("status", "results", "report", "compact"):
        done = shell(command, str(done_run))
        assert done.returncode == 0, done.stderr
    assert rs.Run.open(str(done_run)).results().equals(before)
    unended(done_run)
    done = shell("resume", str(done_run), "--pool", "local")
    assert done.returncode == 0, done.stderr
    assert len(rs.Run.open(str(done_run)).results()) == len(before)
    assert copy.exists()


@pytest.mark.slow_unless(name=["20261399T000000.000000Z-abcdef"])
@pytest.mark.parametrize(
    "name", ["99991231T235959.999999Z-abcdef", "20261399T000000.000000Z-abcdef"]
)
def test_a_driver_folder_of_no_possible_time_is_named(done_run: Path, name: str) -> None:
    unended(done_run)
    (done_run / "journal" / name).mkdir()
    with pytest.raises(StoreError, match="no driver writes a folder of such a time") as e:
        rs.resume(str(done_run), quiet=True)
    assert name in str(e.value)


def test_a_journal_in_a_folder_of_another_name_is_not_passed_over(done_run: Path) -> None:
    (driver,) = (done_run / "journal").iterdir()
    driver.rename(driver.with_name("copy of it"))
    with pytest.raises(StoreError, match="it holds a journal; give it its old name"):
        rs.resume(str(done_run), quiet=True)


@pytest.mark.parametrize("whole", [True, False])
def test_a_run_without_its_journal_is_not_searched_anew(done_run: Path, whole: bool) -> None:
    if whole:
        shutil.rmtree(done_run / "journal")
    else:
        shutil.rmtree(next((done_run / "journal").iterdir()))
    before = {path: path.read_bytes() for path in done_run.rglob("*.parquet")}
    with pytest.raises(ResumeError, match=r"the journal is lost, though tables/") as e:
        rs.resume(str(done_run), quiet=True)
    assert "\n" not in str(e.value)
    assert {path: path.read_bytes() for path in done_run.rglob("*.parquet")} == before
    assert not os.listdir(done_run / "journal") if (done_run / "journal").exists() else True


@pytest.mark.slow
def test_one_driver_of_several_whose_journal_is_lost_is_named(done_run: Path) -> None:
    unended(done_run)
    (first,) = (done_run / "journal").iterdir()
    rs.resume(str(done_run), quiet=True)
    shutil.rmtree(first)
    with pytest.raises(StoreError, match=rf"{first.name}: \d+ entries were written, 0 are there"):
        rs.resume(str(done_run), quiet=True)
