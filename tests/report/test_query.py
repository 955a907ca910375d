"""A condition that makes gigabytes or never ends is one line, soon; others choose what they chose."""

import time

import pytest

from raysearch.errors import JobError
from raysearch.report import results_table
from raysearch.report.results_table import results
from raysearch.store.run_folder import RunFolder
from tests.report.test_results import run  # noqa: F401  the fixture


@pytest.mark.parametrize(
    "where",
    [
        "repeat('a', 3000000000) = 'a'",
        "length(repeat(variable, 300000000)) > 0",
        "len(range(3000000000)) > 1",
    ],
)
def test_a_condition_that_makes_gigabytes_is_one_line_soon(run: RunFolder, where: str) -> None:  # noqa: F811
    began = time.monotonic()
    with pytest.raises(JobError, match=r"takes more than 60 s or 1 GiB of memory; give") as caught:
        results(run.folder, where=where)
    assert time.monotonic() - began < 30
    assert "\n" not in str(caught.value)


def test_time_that_a_single_call_takes_is_bounded_too(
    run: RunFolder,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(results_table, "QUERY_SECONDS", 1.0)
    with pytest.raises(JobError, match=r"takes more than 1 s"):
        results(
            run.folder,
            where="length(repeat('ab', 250000000)) + hash(repeat('a', 500000000)) > 0 "
            "and (SELECT count(*) FROM range(100000000000)) > 0",
        )


@pytest.mark.parametrize(
    ("plain", "called"),
    [
        ("layer = 1", "abs(layer) = 1"),
        ("variable = 'nobody'", "lower(variable) = 'nobody'"),
    ],
)
def test_a_condition_with_a_function_chooses_the_same_rows_in_the_same_order(
    run: RunFolder,  # noqa: F811
    plain: str,
    called: str,
) -> None:
    assert results(run.folder, where=called).equals(results(run.folder, where=plain))


@pytest.mark.parametrize(
    "where", ["nosuch(3)", "true) or (true", "(select 1; select 2)", "abs(nobody)"]
)
def test_a_wrong_condition_is_told_as_from_here(run: RunFolder, where: str) -> None:  # noqa: F811
    with pytest.raises(JobError, match=r"is no condition \(.*\); it is SQL over the columns"):
        results(run.folder, where=where)


def test_no_function_reads_a_file(run: RunFolder, tmp_path: object) -> None:  # noqa: F811
    for where in ("(SELECT count(*) FROM read_text('/etc/passwd')) > 0", "getenv('HOME') <> ''"):
        with pytest.raises(JobError, match="is no condition"):
            results(run.folder, where=where)
