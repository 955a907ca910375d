"""Whole runs on an object store by the command line: killed, watched, cut off from it for a while;
and on a disk that is full."""

import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from raysearch.job import Job
from raysearch.notebook.progress import follow
from raysearch.report.results_table import results
from raysearch.runner.exports.export import export
from raysearch.runner.session.frontend import RunOptions
from raysearch.runner.session.run import start_run
from raysearch.runner.session.status import local_status
from raysearch.storage.folder import Folder
from raysearch.storage.open_folder import open_folder
from raysearch.storage.parquet import from_parquet
from raysearch.store.run_folder import RunFolder, find_run, run_names
from tests.cli.conftest import QUICKSTART, Shell
from tests.cli.test_runs import FEWER, LOCAL, VOLATILE
from tests.command import DRAWN, Running
from tests.once import Once
from tests.s3 import BUCKET, S3, SECRET, proxy_before

pytestmark = pytest.mark.timeout(
    900
)  # a run is some tens of seconds, on a machine that has nothing else to do
SLOWLY = ("--set", "resources.rows=8")


@pytest.fixture(scope="module")
def undisturbed(once: Once) -> RunFolder:
    """The quick start on FEWER variables, on a local disk, run once without disturbance."""
    return RunFolder.open(once.searched(QUICKSTART, *FEWER))


@pytest.fixture
def store(s3: S3, tmp_path: Path) -> Folder:
    """The folder of this test's own store, s3://bucket/<its name>."""
    return open_folder(s3.uri(tmp_path.name))


def table(run: RunFolder, name: str) -> pa.Table:
    """A table without what depends on who did the work, in an order that does not either."""
    folder = run.tables.at(name)
    whole = pa.concat_tables(from_parquet(folder.read(part)) for part in folder.names())
    kept = whole.drop_columns([c for c in VOLATILE if c in whole.column_names])
    order = [c for c in ("intervention", "split", "block", "hypothesis") if c in kept.column_names]
    return kept.sort_by([(c, "ascending") for c in order])


def assert_same(run: RunFolder, other: RunFolder) -> None:
    for name in ("hypotheses", "observations", "verdicts"):
        assert table(run, name).equals(table(other, name)), name


def wait_for(what: Callable[[], bool], process: Running) -> None:
    while not what():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def segments(store: Folder) -> int:
    journals = [store.at(run).at("journal") for run in store.folders()]
    return sum(
        len(journal.at(driver).names()) for journal in journals for driver in journal.folders()
    )


def start(shell: Shell, s3: S3, *arguments: str) -> Running:
    return shell.begin(*arguments, **s3.environment)


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["local", "ray"])
def test_a_search_submitted_to_s3_and_killed_with_9_resumes_to_the_tables_of_an_undisturbed_one(
    undisturbed: RunFolder, shell: Shell, s3: S3, store: Folder, pool: str
) -> None:
    uri = f"s3://{BUCKET}/{shell.folder.name}"
    driver = start(
        shell,
        s3,
        *(["run", "--pool", "local"] if pool == "local" else ["submit"]),
        str(QUICKSTART),
        "--store",
        uri,
        "--tracking-uri",
        "none",
        "-q",
        *FEWER,
        *SLOWLY,
    )
    wait_for(lambda: segments(store) > 6, driver)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    (name,) = run_names(store)
    done = shell("resume", f"{uri}/{name}", "--pool", "local", **DRAWN, **s3.environment)
    assert done.returncode == 0, done.stderr
    assert "replayed" in done.stderr
    run = find_run(store, "latest")
    assert_same(run, undisturbed)
    assert "sum_ab.png" in run.heatmaps.names()
    shown = shell("results", f"{uri}/{name}", "-o", "json", **s3.environment)
    local = shell("results", undisturbed.place, "-o", "json")
    assert json.loads(shown.stdout) == json.loads(local.stdout)
    latest = shell(
        "results", "latest", "--store", uri, "--accepted", "-o", "jsonl", **s3.environment
    )
    assert len(latest.stdout.splitlines()) == 3
    completion = {
        "_RAYSEARCH_COMPLETE": "bash_complete",
        "COMP_WORDS": "raysearch results ",
        "COMP_CWORD": "2",
    }
    assert name in shell(RAYSEARCH_STORE=uri, **completion, **s3.environment).stdout
    assert not list(shell.folder.iterdir())


PROPOSER = """class Once:
    def __init__(self, space):
        self.space, self.max_hypotheses = space, len(space)

    def propose(self, known):
        return () if known.generations else self.space
"""


@pytest.mark.slow
def test_a_run_whose_files_lie_in_the_store_is_looked_into_and_exported_from_there(
    s3: S3, tmp_path: Path
) -> None:
    files = tmp_path / "sent" / "files"
    shutil.copytree(QUICKSTART.parent / "planted" / "model", files / "model")
    (files / "ours.py").write_text(PROPOSER)
    small = (
        "pairs.test=24",
        "pairs.holdout=4",
        "test.max_pairs=24",
        "space.layers=[1]",
        "space.positions=[plus2]",
    )
    named = (
        f"model.path={files / 'model'}",
        f"propose.use={files / 'ours.py'}:Once",
        "space.subspaces=[{random: [4]}]",
    )
    job = Job.load(QUICKSTART, [*small, *named])
    where = RunOptions(store=s3.uri(tmp_path.name), tracking_uri="none", pool="local", address=None)
    start_run(job, where, follow(quiet=True), tmp_path / "sent")
    shutil.rmtree(tmp_path / "sent")
    run = find_run(open_folder(where.store), "latest")
    assert "path: files/model" in run.job_text
    assert "status    done" in local_status(run)
    saved = export(run, results(run.folder)["hypothesis"][0].as_py(), tmp_path / "out")
    assert (64, 4) in [tuple(t.shape) for t in saved.tensors.values()]
    assert saved.model is not None
    assert saved.model.path == "./files/model"
    assert "base_model" not in (tmp_path / "out" / "README.md").read_text(), "it is no hub id"


@pytest.mark.slow
def test_of_two_drivers_on_one_run_the_later_one_ends_it_and_the_earlier_one_says_so(
    undisturbed: RunFolder, shell: Shell, s3: S3, store: Folder
) -> None:
    uri = f"s3://{BUCKET}/{shell.folder.name}"
    first = start(
        shell,
        s3,
        "run",
        str(QUICKSTART),
        "--store",
        uri,
        *LOCAL,
        *FEWER,
        "--set",
        "resources.rows=2",
    )
    wait_for(lambda: segments(store) > 4, first)
    first.send_signal(signal.SIGSTOP)
    second = start(shell, s3, "resume", "latest", "--store", uri, "--pool", "local", "-q")
    (name,) = run_names(store)
    wait_for(lambda: len(store.at(name).at("journal").folders()) == 2, second)
    first.send_signal(signal.SIGCONT)
    _, stderr = second.communicate()
    assert second.returncode == 0, stderr
    _, stderr = first.communicate()
    run = find_run(store, "latest")
    assert_same(run, undisturbed)
    assert first.returncode == 2, stderr
    # Stopped in the middle of a request it may say, too, that the store does not answer.
    (line,) = [line for line in stderr.splitlines() if "does not answer" not in line]
    assert "has gone on with this run; this one ends" in line
    again = shell("resume", "latest", "--store", uri, "--pool", "local", "-q", **s3.environment)
    assert again.returncode == 0, again.stderr
    assert_same(run, undisturbed)


@pytest.mark.slow  # waits for the store to come back
def test_a_store_that_answers_errors_for_a_while_is_waited_for_and_nothing_is_lost(
    undisturbed: RunFolder, shell: Shell, s3: S3, store: Folder
) -> None:
    with proxy_before(s3) as proxy:
        uri = f"s3://{BUCKET}/{shell.folder.name}"
        driver = start(
            shell, proxy.front, "run", str(QUICKSTART), "--store", uri, *LOCAL, *FEWER, *SLOWLY
        )
        wait_for(lambda: segments(store) > 4, driver)
        proxy.down = True
        line = driver.stderr.readline()  # it is said once, while the store is away
        proxy.down = False
        _, more = driver.communicate()
        assert (driver.returncode, more) == (0, "")
    assert proxy.refused > 1
    assert f"raysearch: s3://{BUCKET}/{shell.folder.name}" in line
    assert "does not answer" in line
    assert "trying again for up to 120 s" in line
    assert SECRET not in line
    assert_same(find_run(store, "latest"), undisturbed)


@pytest.mark.slow
def test_credentials_in_a_store_uri_are_seen_nowhere(
    shell: Shell, s3: S3, store: Folder, tracking: str
) -> None:
    sets = ("--set", "pairs.test=32", "--set", "test.max_pairs=32", "--set", "space.layers=[0]")
    uri = s3.uri(shell.folder.name)
    done = shell(
        "run", str(QUICKSTART), "--store", uri, "--pool", "local", "--tracking-uri", tracking, *sets,
        AWS_EC2_METADATA_DISABLED="true",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = find_run(store, "latest")
    assert run.info.tracking_run_id
    assert SECRET not in done.stdout + done.stderr
    assert run.place in done.stderr
    for folder in _all_folders(run.folder):
        assert not [name for name in folder.names() if SECRET.encode() in folder.read(name)]
    kept = [p for p in shell.folder.rglob("*") if p.is_file()]
    assert any(p.name == "run.json" for p in kept), "MLflow has its copies"
    assert not [p for p in kept if SECRET.encode() in p.read_bytes()]


def _all_folders(folder: Folder) -> Iterator[Folder]:
    yield folder
    for name in folder.folders():
        yield from _all_folders(folder.at(name))


LIMITED = """
import resource
from raysearch.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (80 << 10, 80 << 10))
main()
"""
"""The command where a file may have 80 KiB, which stands for a disk that is full: the pairs have
room (78 kB), the journal has not."""


@pytest.mark.slow  # a whole job
def test_a_full_disk_is_one_clear_line_with_the_command_to_go_on(once: Once, shell: Shell) -> None:
    (shell.folder / "limited.py").write_text(LIMITED)
    full = shell.script(
        shell.folder / "limited.py", "run", str(QUICKSTART), *LOCAL, "--set", "resources.rows=16"
    )
    assert full.returncode == 2, full.stderr
    line, hint = full.stderr.splitlines()
    assert hint.startswith("raysearch: failed; go on with: raysearch resume /")
    assert "cannot be written (File too large)" in line
    done = shell(*hint.split("go on with: raysearch ")[1].split(), "-q")
    assert done.returncode == 0, done.stderr
    assert_same(
        find_run(shell.folder / "runs", "latest"), RunFolder.open(once.searched(QUICKSTART))
    )
