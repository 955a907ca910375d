"""A search that chooses by attribution, by the command line: a smaller K, the true places, and the
same again from its journal."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysearch as rs
from raysearch.cli.plan import make_plan, plan_text
from raysearch.store.run_folder import find_run
from tests.cli.conftest import QUICKSTART, Shell
from tests.cluster.worlds import true_cells

pytestmark = pytest.mark.timeout(600)

VARIABLES = ("sum_ab", "total")
SETS = (
    "space.variables=[sum_ab, total]",
    "pairs={test: 80, fit: 40, holdout: 8}",
    "test.max_pairs=80",
    "propose={use: attribution, options: {share: 0.2}}",
)


def _table(run: Path, name: str) -> list[dict[str, Any]]:
    table = pa.concat_tables(
        pq.ParquetFile(p).read() for p in sorted((run / "tables" / name).glob("*.parquet"))
    )
    return sorted(table.to_pylist(), key=repr)


def test_plan_says_the_k_that_it_will_have_and_its_chances_are_of_that_k() -> None:
    report = make_plan(QUICKSTART, SETS)
    chosen = json.loads(plan_text(report, "json"))
    every = make_plan(QUICKSTART, [s for s in SETS if not s.startswith("propose")])
    whole = json.loads(plan_text(every, "json"))
    assert (chosen["hypotheses"], chosen["k"], chosen["proposer"]) == (48, 10, "attribution")
    assert (whole["hypotheses"], whole["k"], whole["proposer"]) == (48, 48, "exhaustive")
    at_nine_in_ten = [
        {p["iia"]: p["accept"] for p in plan["powers"]}[0.95] for plan in (chosen, whole)
    ]
    assert at_nine_in_ten[0] > at_nine_in_ten[1] > 0
    assert "attribution: tests 10 of the 48; each is judged at K = 10" in str(report)
    assert "exhaustive: tests all 48; each is judged at K = 48" in str(every)


@pytest.mark.slow  # a whole job
def test_it_accepts_what_is_true_at_a_smaller_k_and_goes_on_from_its_journal_to_the_same(
    shell: Shell,
) -> None:
    sets = [flag for s in SETS for flag in ("--set", s)]
    done = shell("run", str(QUICKSTART), *sets, "--pool", "local", "--tracking-uri", "none")
    assert done.returncode == 0, done.stderr
    assert "asking    10 of 48 hypotheses" in done.stderr
    run = find_run(shell.folder / "runs", "latest").path
    accepted = {h["hypothesis"] for h in _table(run, "verdicts") if h["verdict"] == "accept"}
    proposed = _table(run, "hypotheses")
    found = {
        (r["variable"], r["layer"], r["position"]) for r in proposed if r["hypothesis"] in accepted
    }
    assert found == {cell for cell in true_cells() if cell[0] in VARIABLES}
    assert (len(proposed), {r["proposed_by"] for r in proposed}) == (10, {"attribution"})
    verdicts, observations, effects = (
        _table(run, name) for name in ("verdicts", "observations", "effects")
    )
    _check_effects(effects, proposed)
    assert "What attribution foresaw" in (run / "report.html").read_text()
    _cut_behind_the_first_effects(run)
    again = rs.resume(run, quiet=True)
    assert _table(run, "hypotheses") == proposed
    assert _table(run, "verdicts") == verdicts
    assert _table(run, "effects") == effects
    volatile = ("worker", "seconds", "attempt")
    assert [_without(r, volatile) for r in _table(run, "observations")] == [
        _without(r, volatile) for r in observations
    ]
    assert len(again.alignment) == len(found)


def _check_effects(effects: list[dict[str, Any]], proposed: list[dict[str, Any]]) -> None:
    """Of every place of the space one, in [0, 1]; those asked about are the largest of their
    variable."""
    assert len(effects) == 48
    assert {e["pairs"] > 10 for e in effects} == {True}
    units = {(r["variable"], r["units"]) for r in proposed}
    for variable in VARIABLES:
        of = [e for e in effects if e["variable"] == variable]
        chosen = [e["effect"] for e in of if (variable, e["units"]) in units]
        others = [e["effect"] for e in of if (variable, e["units"]) not in units]
        assert (len(chosen), len(others)) == (5, 19)
        assert 1 >= min(chosen) >= max(others) >= 0


def _cut_behind_the_first_effects(run: Path) -> None:
    """As if its driver had died when one of two blocks of fit pairs was told: later entries and
    tables are gone."""
    (journal,) = (run / "journal").glob("*/*.jsonl")
    lines = journal.read_text().splitlines(keepends=True)
    at = [i for i, line in enumerate(lines) if '"type":"attributed"' in line]
    assert len(at) == 2
    journal.write_text("".join(lines[: at[0] + 1]))
    shutil.rmtree(run / "tables")


def _without(row: dict[str, Any], names: tuple[str, ...]) -> str:
    return repr({k: v for k, v in row.items() if k not in names})
