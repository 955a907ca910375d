"""The table of results: only the columns that say something."""

import io
from dataclasses import asdict

import pyarrow as pa
import pytest
from rich.console import Console

from raysearch.cli.table import print_table
from raysearch.core.hypothesis import Hypothesis, Intervention, Site, Subspace, Unit
from raysearch.core.records import Proposed
from raysearch.store.schemas import HYPOTHESES, VERDICTS
from raysearch.store.table_rows import hypothesis_row

RESIDUAL = Unit(Site(3, "residual", "last"))
HEAD = Unit(Site(4, "head", "last", 7))


def _table(*sets: tuple[Unit, ...]) -> list[str]:
    rows = [
        hypothesis_row(Proposed(Hypothesis("v", Intervention(units)), "exhaustive", 0))
        for units in sets
    ]
    schema = pa.unify_schemas([HYPOTHESES, VERDICTS])
    whole = [{name: row.get(name) for name in schema.names} | {"verdict": "accept"} for row in rows]
    console = Console(file=io.StringIO(), width=200, no_color=True)
    print_table(pa.Table.from_pylist(whole, schema=schema), console)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("sets", "columns"),
    [
        (((RESIDUAL,),), ["variable", "layer", "position"]),
        (((RESIDUAL,), (HEAD,)), ["variable", "layer", "component", "head", "position"]),
        (((HEAD,), (Unit(Site(4, "head", "a", 8)),)), ["variable", "layer", "head", "position"]),
        (
            ((RESIDUAL,), (RESIDUAL, Unit(Site(4, "residual", "a")))),
            ["variable", "layer", "position", "units"],
        ),
        (
            ((Unit(RESIDUAL.site, Subspace(coordinates=(1, 2))),),),
            ["variable", "layer", "position", "subspace"],
        ),
        (
            ((Unit(RESIDUAL.site, source_site=HEAD.site),),),
            ["variable", "layer", "position", "units"],
        ),
    ],
)
def test_a_column_is_there_where_it_tells_rows_apart(
    sets: tuple[tuple[Unit, ...], ...], columns: list[str]
) -> None:
    assert _table(*sets)[0].split() == [
        *columns,
        "iia",
        "low",
        "high",
        "n",
        "holdout_iia",
        "keep_iia",
    ]


def test_the_reason_stands_beside_what_failed_and_an_empty_table_says_so() -> None:
    schema = pa.unify_schemas([HYPOTHESES, VERDICTS])
    row = hypothesis_row(Proposed(Hypothesis("v", Intervention((RESIDUAL,))), "exhaustive", 0))
    failed = {name: row.get(name) for name in schema.names} | {
        "verdict": "failed",
        "reason": "RankError: too large",
    }
    console = Console(file=io.StringIO(), width=200, no_color=True)
    print_table(pa.Table.from_pylist([failed], schema=schema), console)
    print_table(schema.empty_table(), console)
    heads, told, empty = map(str.rstrip, console.file.getvalue().splitlines())  # type: ignore[attr-defined]
    assert heads.endswith("reason")
    assert told.endswith("RankError: too large")
    assert empty == "No hypothesis to show."


def test_several_units_are_told_one_by_one() -> None:
    lent = Unit(
        Site(5, "head", "a", 2), Subspace(coordinates=(0, 1, 2, 9)), Site(6, "head", "a", 3)
    )
    assert asdict(lent)["subspace"]["coordinates"] == (0, 1, 2, 9)
    _, alone, together = _table((RESIDUAL,), (RESIDUAL, lent))
    assert (
        "3: residual at last + 5: head 2 at a, coordinates 0–2, 9, from +1 head 3 at a" in together
    )
    assert alone.split()[:5] == ["v", "3", "residual", "last", "-"]
