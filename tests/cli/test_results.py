"""The table of results: what is the same in all rows stands once above, and it fits the terminal."""

import io
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from raysearch.cli.hypothesis_table import print_cells, print_table
from raysearch.core.hypothesis import Hypothesis, Intervention, Site, Subspace, Unit
from raysearch.core.records import Proposed
from raysearch.report.warnings import WARNINGS
from raysearch.store.schemas import HYPOTHESES, VERDICTS
from raysearch.store.table_rows import hypothesis_row

RESIDUAL = Unit(Site(3, "residual", "last"))
HEAD = Unit(Site(4, "head", "last", 7))
SCHEMA = pa.unify_schemas([HYPOTHESES, VERDICTS]).append(pa.field("warnings", pa.string()))
for _name in ("fcr_low", "fcr_high"):
    SCHEMA = SCHEMA.append(pa.field(_name, pa.float64()))


def _row(*units: Unit, variable: str = "v", **values: Any) -> dict[str, Any]:
    row = hypothesis_row(Proposed(Hypothesis(variable, Intervention(units)), "exhaustive", 0))
    return {name: row.get(name) for name in SCHEMA.names} | {"verdict": "accept"} | values


def _printed(rows: list[dict[str, Any]], width: int = 200) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=True)
    print_table(pa.Table.from_pylist(rows, schema=SCHEMA), console)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("sets", "above", "columns"),
    [
        (((RESIDUAL,),), "component residual, verdict accept", "layer position"),
        (((RESIDUAL,), (HEAD,)), "verdict accept", "layer component head position"),
        (
            ((HEAD,), (Unit(Site(4, "head", "a", 8)),)),
            "component head, verdict accept",
            "layer head position",
        ),
        (
            ((RESIDUAL,), (RESIDUAL, Unit(Site(4, "residual", "a")))),
            "component residual, verdict accept",
            "layer position units",
        ),
        (
            ((Unit(RESIDUAL.site, Subspace(coordinates=(1, 2))),),),
            "component residual, verdict accept",
            "layer position subspace",
        ),
        (
            ((Unit(RESIDUAL.site, source_site=HEAD.site),),),
            "component residual, verdict accept",
            "layer position units",
        ),
    ],
)
def test_a_column_is_there_where_it_tells_rows_apart(
    sets: tuple[tuple[Unit, ...], ...], above: str, columns: str
) -> None:
    said, heads, *_ = _printed([_row(*units) for units in sets])
    assert said == above
    assert heads.split() == ["id", "variable", *columns.split()]


def test_reasons_and_warnings_stand_below_once_for_all_rows_that_have_them() -> None:
    failed = {"verdict": "failed", "reason": "RankError: too large"}
    rows = [
        _row(RESIDUAL, **failed),
        _row(HEAD, **failed),
        _row(HEAD, variable="w", warnings="small_n, copies_answer"),
    ]
    heads, first, second, third, *below = _printed(rows)
    assert heads.endswith("note")
    assert (first[-1], second[-1]) == ("1", "1")
    assert third.endswith("2,3")
    assert below == [
        "note 1  failed: RankError: too large",
        f"note 2  warning: small_n: {WARNINGS['small_n']}",
        f"note 3  warning: copies_answer: {WARNINGS['copies_answer']}",
    ]
    assert _printed([]) == ["No hypothesis to show."]


FIGURES = {
    "iia": 0.9,
    "low": 0.8,
    "high": 1.0,
    "n": 40,
    "distinct": 40,
    "keep_iia": 0.5,
    "fcr_low": 0.7,
    "fcr_high": 1.0,
    "verdict": "accept",
    "population": "sampler",
}


def _many() -> list[dict[str, Any]]:
    """Rows of two variables, out of order; one is rejected."""
    sites = [Unit(Site(layer, "residual", "last")) for layer in (12, 3)]
    rows = [_row(site, variable=v, **FIGURES) for site in sites for v in ("relation", "country")]
    return [*rows, _row(HEAD, variable="country", **(FIGURES | {"verdict": "reject"}))]


def test_rows_are_by_variable_then_layer() -> None:
    said, _, *rows = _printed(_many())
    assert said == "keep IIA 0.500, population sampler, all n pairs are different"
    assert [row.split()[1:3] for row in rows] == [
        ["country", "3"],
        ["country", "4"],
        ["country", "12"],
        ["relation", "3"],
        ["relation", "12"],
    ]
    assert "0.80–1.00  0.70–1.00  40" in rows[0]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal_and_no_cell_is_cut(width: int) -> None:
    lines = _printed(_many(), width)
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)
    text = " ".join(" ".join(lines).split())
    left_out = text.partition("left out of rejected rows, for the width: ")[2]
    rows = text.partition("left out")[0]
    for name, interval in (("low–high", "0.80–1.00"), ("corrected", "0.70–1.00")):
        assert rows.count(interval) == (4 if name in left_out else 5)
    assert ("corrected" in left_out, "low–high" in left_out) == (width < 100, width < 80)


SPACES = (Subspace(), Subspace("das", features=8), Subspace(coordinates=tuple(range(16))))


@pytest.mark.parametrize("width", [30, 60, 80, 200])
def test_what_tells_rows_apart_is_there_in_every_width(width: int) -> None:
    site = Site(11, "residual", "the_last_of_the_names")
    rows = [_row(Unit(site, space), variable="relation", **FIGURES) for space in SPACES]
    text = " ".join(" ".join(_printed(rows, width)).split())
    assert [text.count(words) for words in ("full", "das 8", "coordinates 0–15")] == [1, 1, 1]
    assert text.count("0.80–1.00") == text.count("0.70–1.00") == 3
    rows = [row | {"verdict": "reject"} for row in rows]
    text = " ".join(" ".join(_printed(rows, width)).split())
    assert [text.count(words) for words in ("full", "das 8", "coordinates 0–15")] == [1, 1, 1]
    assert text.count("0.70–1.00") == (3 if width == 200 else 0)


def test_a_second_line_says_by_name_what_found_no_room_and_keeps_its_column_in_its_order() -> None:
    cells = [{"id": "a-run-of-20-letters", "state": "done", "level": "0.05", "model": "m" * 9}]
    console = Console(file=io.StringIO(), width=30, color_system=None, force_terminal=True)
    print_cells(cells, list(cells[0]), console, last=("model", "level"))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line.strip() for line in lines] == [
        "id                   state",
        "a-run-of-20-letters  done",
        "level 0.05,",
        "model mmmmmmmmm",
    ]


def test_pairs_that_are_not_all_different_are_said_in_their_column() -> None:
    said, heads, row, *_ = _printed([_row(RESIDUAL, **(FIGURES | {"distinct": 7}))])
    assert "different" not in said
    assert heads.split().index("distinct") == row.split().index("7")


def test_several_units_are_told_one_by_one() -> None:
    lent = Unit(
        Site(5, "head", "a", 2), Subspace(coordinates=(0, 1, 2, 9)), Site(6, "head", "a", 3)
    )
    assert asdict(lent)["subspace"]["coordinates"] == (0, 1, 2, 9)
    text = " ".join(" ".join(_printed([_row(RESIDUAL), _row(RESIDUAL, lent)])).split())
    said = "5: head 2 at a, coordinates 0–2, 9, from head 3 at a, 1 layer above"
    assert f"3: residual at last + {said}" in text


@pytest.mark.parametrize(
    ("layer", "source_layer", "said"),
    [
        (2, 1, "from x, residual at b, 1 layer below"),
        (5, 2, "from x, residual at b, 3 layers below"),
        (2, 2, "from x, residual at b"),
    ],
)
def test_a_source_site_of_another_layer_is_said_in_words(
    layer: int, source_layer: int, said: str
) -> None:
    crossed = Unit(
        Site(layer, "residual", "a"), source_site=Site(source_layer, "residual", "b"), source="x"
    )
    text = " ".join(" ".join(_printed([_row(crossed)])).split())
    assert f"{layer}: residual at a, {said}" in text
    assert "from x, -" not in text
