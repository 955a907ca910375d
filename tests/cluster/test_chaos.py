"""Chaos: what happens to workers, nodes, drivers, MLflow and the disk costs time, and not one row."""

import json
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cluster.chaos import APART, IN_A_SEARCH, LINES, SHARES, schedule
from tests.cluster.chaos_faults import FAULTS
from tests.cluster.chaos_tables import Difference, compare
from tests.cluster.chaos_world import ROOT

_VERDICT = {"hypothesis": "h", "verdict": "accept", "n": 12}
_SEEN = {
    "intervention": "i",
    "fit": None,
    "split": "test",
    "block": 0,
    "outputs": [[1]],
    "conflicts": 0,
    "worker": "w",
}
PLANNED = 25
"""Faults of the test; `make chaos` has 500."""
_MEASURED = {"type": "measured", "intervention": "i", "split": "test", "block": 0, "outputs": [[1]]}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_faults_cost_not_one_row(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.cluster.chaos",
        "--faults",
        str(PLANNED),
        "--seed",
        "0",
        "--json",
    ]
    said = tmp_path / "said"
    with (
        said.open("wb") as log,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log) as program,
    ):
        try:
            stdout, _ = program.communicate()
        finally:
            program.terminate()  # where the test ends first: what the program has started ends with it
    assert program.returncode == 0, said.read_text()
    tally = json.loads(stdout)
    assert tally["told"] == []
    planned = [fault.name for search in schedule(0, PLANNED) for fault in search]
    assert len(planned) == PLANNED
    assert tally["times"] == Counter(planned)
    assert not any(sum(tally[kind].values()) for kind in ("lost", "twice", "other"))


def test_a_seed_says_which_faults_fall_where() -> None:
    assert schedule(7, 50) == schedule(7, 50) != schedule(8, 50)
    for faults in (50, 500):
        searches = schedule(3, faults)
        planned = [fault for search in searches for fault in search]
        assert Counter(f.name for f in planned) == {
            name: share * faults // 50 for name, share in SHARES.items()
        }
        assert all(len(search) == IN_A_SEARCH for search in searches)
        for search in searches:
            lines = [fault.at for fault in search]
            assert all(b - a >= APART for a, b in pairwise(lines))
            assert 0 < lines[0] <= lines[-1] < LINES
    assert SHARES.keys() == FAULTS.keys()
    assert SHARES["node lost"] <= 3


@pytest.mark.parametrize(
    ("verdicts", "seen", "journal", "expected"),
    [
        ([_VERDICT], [_SEEN | {"worker": "another"}], [_MEASURED], (0, 0, 0, 0)),
        ([], [_SEEN], [_MEASURED], (1, 0, 0, 1)),
        ([_VERDICT, _VERDICT], [_SEEN], [_MEASURED], (0, 1, 0, 0)),
        ([_VERDICT | {"n": 11}], [_SEEN], [_MEASURED], (0, 0, 1, 1)),
        ([_VERDICT], [_SEEN | {"outputs": [[2]]}], [_MEASURED], (0, 0, 1, 1)),
        ([_VERDICT], [_SEEN | {"conflicts": 1}], [_MEASURED], (0, 0, 0, 1)),
        ([_VERDICT], [_SEEN], [_MEASURED, _MEASURED], (0, 0, 0, 0)),
        ([_VERDICT], [_SEEN], [_MEASURED, _MEASURED | {"outputs": [[2]]}], (0, 0, 0, 1)),
        ([_VERDICT], [_SEEN], [_MEASURED, {"type": "lost"}], (0, 0, 0, 1)),
    ],
)
def test_a_row_that_is_lost_or_there_twice_or_otherwise_is_seen(
    tmp_path: Path,
    verdicts: list[Any],
    seen: list[Any],
    journal: list[Any],
    expected: tuple[int, ...],
) -> None:
    _write(tmp_path / "still", [_VERDICT], [_SEEN], [_MEASURED])
    _write(tmp_path / "wild", verdicts, seen, journal)
    found = compare(tmp_path / "still", tmp_path / "wild")
    assert (found.lost, found.twice, found.other, len(found.wrong)) == expected
    assert found.none == (found == Difference())


def _write(run: Path, verdicts: list[Any], seen: list[Any], journal: list[Any]) -> None:
    empty = pa.table(
        {
            name: pa.array([], pa.string())
            for name in ("intervention", "seed", "step", "status", "fit")
        }
    )
    tables = {
        "verdicts": pa.Table.from_pylist(verdicts, pa.Table.from_pylist([_VERDICT]).schema),
        "observations": pa.Table.from_pylist(seen, pa.Table.from_pylist([_SEEN]).schema),
        "hypotheses": pa.table({"hypothesis": ["h"]}),
        "fits": empty,
        "failures": pa.table({"error_type": pa.array([], pa.string())}),
    }
    for name, table in tables.items():
        (run / "tables" / name).mkdir(parents=True)
        pq.write_table(table, run / "tables" / name / "part.parquet")
    (run / "journal" / "driver").mkdir(parents=True)
    lines = (json.dumps({"entry": entry}) + "\n" for entry in journal)
    (run / "journal" / "driver" / "00000000.jsonl").write_text("".join(lines))
