"""`results`: hypotheses and verdicts joined, by names that scripts depend on; conditions that reach
nothing else."""

import random
from pathlib import Path

import pyarrow as pa
import pytest

from raysearch.core.hypothesis import Hypothesis, Intervention, Site, Subspace, Unit
from raysearch.core.records import Decided, Estimated, Proposed, Record
from raysearch.errors import JobError, StoreError
from raysearch.report import results_table
from raysearch.report.results_table import results
from raysearch.storage.parquet import from_parquet, to_parquet
from raysearch.store.evidence_schemas import SELECTION
from raysearch.store.ledger import RunLedger
from raysearch.store.run_folder import RunFolder
from raysearch.store.schemas import HYPOTHESES, VERDICTS
from tests.store.books import new_run


def hypothesis(
    variable: str, layer: int, position: str = "last", control: str | None = None
) -> Hypothesis:
    return Hypothesis(
        variable,
        Intervention((Unit(Site(layer, "residual", position), Subspace()),), control=control),
    )


def decided(h: Hypothesis, verdict: str, matches: int) -> Decided:
    return Decided(h, verdict, 20, matches, 0.0, 1.0, 5, 4, 1, 0.25, 6.5, "these_pairs")  # type: ignore[arg-type]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    made = new_run(tmp_path)
    ledger = RunLedger(made, max_rows=2)
    hs = [
        hypothesis("a", 0),
        hypothesis("b", 1),
        hypothesis("a", 1),
        hypothesis("b", 0),
        hypothesis("a", 2, control="placebo"),
    ]
    notes: list[Record] = [Proposed(h, "exhaustive", 0) for h in hs]
    notes += [
        decided(hs[0], "reject", 19),
        decided(hs[1], "accept", 17),
        decided(hs[2], "accept", 18),
    ]
    notes += [decided(hs[4], "reject", 20), Estimated(hs[1], 8, 6), Estimated(hs[2], 0, 0)]
    ledger.write_records(notes)
    ledger.close("done")
    return made


def test_the_columns_are_those_of_the_tables(run: RunFolder) -> None:
    tables = HYPOTHESES, VERDICTS, SELECTION
    wanted = [*dict.fromkeys(name for table in tables for name in table.names), "warnings"]
    assert results(run.path).column_names == wanted


def test_a_column_that_an_earlier_version_did_not_write_is_null(run: RunFolder) -> None:
    table = run.tables.at("verdicts")
    for name in table.names():
        part = from_parquet(table.read(name)).drop_columns(["scores", "copies"])
        table.write(name, to_parquet(part))
    run.folder.delete("digests.json")
    run.update(sealed=False)
    found = results(run.path)
    assert "scores" in found.column_names
    assert {found["scores"].type, found["copies"].type} == {pa.string(), pa.int32()}
    assert found["scores"].null_count == found["copies"].null_count == 4


def test_accepted_ones_come_first_then_by_iia_and_the_undecided_last(run: RunFolder) -> None:
    rows = results(run.path).to_pylist()
    assert [(r["variable"], r["layer"], r["verdict"]) for r in rows] == [
        ("a", 1, "accept"),
        ("b", 1, "accept"),
        ("a", 0, "reject"),
        ("b", 0, None),
    ]
    assert (rows[0]["holdout_n"], rows[0]["holdout_iia"]) == (0, None)
    assert (rows[1]["holdout_iia"], rows[1]["keep_iia"], rows[1]["iia"]) == (0.75, 0.8, 0.85)
    assert (rows[3]["n"], rows[3]["claim"], rows[3]["features"]) == (None, None, None)


def test_rows_can_be_chosen(run: RunFolder) -> None:
    assert results(run.path, accepted=True).num_rows == 2
    assert results(run.path, variable="b").num_rows == 2
    assert results(run.path, top=1).num_rows == 1
    assert results(run.path, controls=True).num_rows == 5
    assert results(run.path, where="layer = 0 and position = 'last'").num_rows == 2
    assert results(run.path, where="verdict is null -- not yet").num_rows == 1
    assert results(run.path, where="iia > 0.86 or iia is null", accepted=True).num_rows == 1


@pytest.mark.slow_unless(where=["layr > 1", "layer > 1) or (true", "position", ""])
@pytest.mark.parametrize(
    "where",
    [
        "layr > 1",
        "layer >",
        "layer > 1) or (true",
        "true; drop table hypotheses",
        "position",
        "1 = (select count(*) from '/etc/passwd')",
        "exists (select * from read_csv('/etc/passwd'))",
        "exists (select * from read_text('/etc/passwd'))",
        "",
    ],
)
def test_a_condition_that_is_none_is_one_clear_line_that_names_the_columns(
    run: RunFolder, where: str
) -> None:
    with pytest.raises(JobError, match="--where: ") as e:
        results(run.path, where=where)
    assert "\n" not in str(e.value).replace(where, "")
    assert "hypothesis, intervention, variable, layer" in str(e.value)


def test_a_variable_that_is_none_is_refused(run: RunFolder) -> None:
    with pytest.raises(JobError, match=r"'c' is no variable of this run; it has a, b"):
        results(run.path, variable="c")


def test_a_quote_in_a_variable_is_no_way_out(tmp_path: Path) -> None:
    made = new_run(tmp_path)
    ledger = RunLedger(made)
    ledger.write_records(
        [
            Proposed(hypothesis("it's", 0), "exhaustive", 0),
            Proposed(hypothesis("x", 0), "exhaustive", 0),
        ]
    )
    ledger.close("interrupted")
    assert results(made.path, variable="it's").num_rows == 1


def test_a_run_without_hypotheses_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no hypotheses"):
        results(new_run(tmp_path).path)


def test_a_broken_part_is_named(run: RunFolder) -> None:
    part = next((run.path / "tables/verdicts").glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-8])
    with pytest.raises(StoreError, match=part.name):
        results(run.path)


def test_what_is_being_written_is_not_read(run: RunFolder) -> None:
    (run.path / "tables/verdicts" / ".x.parquet.tmp").write_bytes(b"PAR1")
    (run.path / "tables/verdicts" / ".x.parquet").write_bytes(b"PAR1")
    assert results(run.path).num_rows == 4


def test_the_order_of_results_is_that_of_conditions_with_missing_values_last() -> None:
    rng = random.Random(0)
    rows = [
        {
            "verdict": rng.choice(["accept", "reject", "undecided", None]),
            "iia": rng.choice([0.0, 0.5, 1.0, None]),
            "variable": rng.choice(["a", "B", "é"]),
            "layer": rng.choice([0, 1, 10, None]),
            "component": rng.choice(["residual", "head"]),
            "position": rng.choice(["last", "a"]),
            "head": rng.choice([0, None]),
            "featurizer": rng.choice(["das", "identity"]),
            "features": rng.choice([2, 10, None]),
            "hypothesis": f"{number:03x}",
        }
        for number in range(200)
    ]
    types = {"iia": pa.float64(), "layer": pa.int32(), "head": pa.int32(), "features": pa.int32()}
    table = pa.Table.from_pylist(rows, pa.schema([(k, types.get(k, pa.string())) for k in rows[0]]))
    query = f'SELECT "{results_table.ROW}" FROM results ORDER BY {results_table._ORDER}'
    asked = results_table._rows(table, None, query).to_pylist()
    assert results_table._order(table).to_pylist() == asked
