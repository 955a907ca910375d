"""What it costs to look at a big run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from raysearch.report.results_table import read_results, results
from raysearch.report.row_sequence import AT_ONCE, Rows
from raysearch.report.run_data import MAX_ACCEPTED
from raysearch.report.run_results import compare_controls
from raysearch.store.run_folder import RunFolder
from raysearch.viewer.page import page
from tests.command import environment
from tests.report.big_run import big_run

MB = 10**6
SMALL, BIG = 1_000, 20_000
MAIN = """
import re, sys
from pathlib import Path
from typing import Any
from raysearch.cli.main import cli
try:
    cli(sys.argv[1:])
finally:  # VmHWM: of this program alone; ru_maxrss has what the process was before
    print(re.search("VmHWM:.* ([0-9]+) kB", Path("/proc/self/status").read_text())[1], file=sys.stderr)
"""


def peak(folder: Path, *arguments: str) -> tuple[int, str]:
    """The most memory that a command took, in bytes, and its stdout."""
    command = [sys.executable, "-c", MAIN, *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=True
    )
    return 1024 * int(done.stderr.splitlines()[-1]), done.stdout


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, RunFolder]:
    """A small run and a bigger one."""
    store = tmp_path_factory.mktemp("big")
    return big_run(store / "small", SMALL), big_run(store / "big", BIG)


@pytest.mark.slow  # runs of many hypotheses, made for it
@pytest.mark.parametrize(
    ("command", "bytes_each"),
    [
        (("results", "-o", "json"), 6_000),
        (("results",), 6_000),
        (("report", "--to", "page.html"), 6_000),
        (("status",), 300),
    ],
)
def test_a_hypothesis_more_costs_few_bytes(
    runs: tuple[RunFolder, RunFolder], tmp_path: Path, command: tuple[str, ...], bytes_each: int
) -> None:
    """Each was 9 to 14 kB of Python objects."""
    name, *flags = command
    small, big = (peak(tmp_path, name, str(run.path), *flags)[0] for run in runs)
    print(command, small // MB, big // MB, (big - small) / (BIG - SMALL))
    assert (big - small) / (BIG - SMALL) < bytes_each
    assert small < 250 * MB  # no torch, no transformers


@pytest.mark.slow  # 20 s
def test_a_run_of_a_hundred_thousand_hypotheses_is_read_in_half_a_gigabyte(tmp_path: Path) -> None:
    for heads in (0, 32):
        run = big_run(tmp_path / f"of {heads}", 100_000, heads)
        peak(tmp_path, "report", str(run.path))
        assert (run.path / "report.html").stat().st_size < 5 * MB
        used, said = peak(tmp_path, "results", str(run.path), "-o", "json")
        assert used < 500 * MB
        assert len(json.loads(said)) == 100_000
        assert peak(tmp_path, "status", str(run.path))[0] < 250 * MB


@pytest.mark.slow
def test_its_report_is_made_in_half_a_gigabyte(tmp_path: Path) -> None:
    run = big_run(tmp_path, 100_000, 0)
    assert peak(tmp_path, "report", str(run.path))[0] < 500 * MB


@pytest.mark.slow
def test_few_rows_are_python_objects_at_once(runs: tuple[RunFolder, RunFolder]) -> None:
    rows = Rows(results(runs[1].folder))
    sizes = [len(batch) for batch in rows.table.to_batches(max_chunksize=AT_ONCE)]
    assert max(sizes) <= AT_ONCE < len(rows) == sum(sizes)
    assert [r["hypothesis"] for r in rows] == rows.table["hypothesis"].to_pylist()
    assert rows[-1] == next(iter(rows[BIG - 1 :])) == rows.take([BIG - 1])[0]
    assert len(rows.where("verdict", "accept", None)) == BIG // 100
    assert rows.values("variable") == ["country", "relation"]


@pytest.mark.slow  # 13,000 hypotheses
def test_a_page_is_small_whatever_is_in_it(tmp_path: Path) -> None:
    """Long names, long texts, a long job."""
    run = big_run(tmp_path, 13_000, 0, 90 * "&<é")
    with (run.path / "job.yaml").open("a") as job:
        job.write("# long\n" * 50_000)
    run.update(job_sha256=None)
    assert len(page(run.folder).encode()) < 5 * MB


@pytest.mark.slow
def test_the_comparison_of_a_page_is_that_of_all_accepted_ones(
    runs: tuple[RunFolder, RunFolder],
) -> None:
    from raysearch.report.run_data import read_run

    for run in runs:
        every = list(compare_controls(read_results(run.folder)))
        shown = read_run(run.folder).comparisons
        assert list(shown) == every[:MAX_ACCEPTED]
