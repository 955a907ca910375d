"""Heat maps: one legible PNG for each variable, with every kind of cell."""

import struct
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysearch.core.hypothesis import Hypothesis, Intervention, Site, Subspace, Unit, canonical_json
from raysearch.core.records import Blocked, Decided, PairScreened, Proposed, Record
from raysearch.errors import StoreError
from raysearch.report.heatmap import heatmap, heatmaps
from raysearch.report.panels import panels
from raysearch.report.run_facts import chart_facts
from raysearch.report.unit_text import words
from raysearch.store.ledger import RunLedger
from raysearch.store.run_folder import RunFolder
from tests.store.books import new_run

DPI = 200
VERDICTS = ("accept", "reject", "undecided", "failed", None)


def a_run(store: Path, layers: int, positions: list[str], subspaces: list[Subspace]) -> RunFolder:
    run = new_run(store)
    ledger = RunLedger(run)
    notes: list[Record] = []
    for i, (variable, layer, position, subspace) in enumerate(
        (v, la, p, s)
        for v in ("a/b", "a b")
        for la in range(layers)
        for p in positions
        for s in subspaces
    ):
        h = Hypothesis(variable, Intervention((Unit(Site(layer, "residual", position), subspace),)))
        notes.append(Proposed(h, "exhaustive", 0))
        verdict, n = VERDICTS[i % 5], 0 if i % 10 == 3 else 12
        if verdict:
            notes.append(
                Decided(h, verdict, n, n * (i % 3) // 3, 0.1, 0.9, 0, 0, 0, None, 1.0, "sampler")
            )  # type: ignore[arg-type]
    two = (Unit(Site(0, "residual", "last")), Unit(Site(1, "residual", "last")))
    ledger.write_records([*notes, Proposed(Hypothesis("a b", Intervention(two)), "exhaustive", 0)])
    ledger.close("interrupted")
    for part in (run.path / "tables/verdicts").glob("*.parquet"):
        assert part.stat().st_size
    return run


def size(png: Path) -> tuple[int, int]:
    head = png.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", head[16:24])
    return width, height


@pytest.mark.parametrize(
    ("layers", "positions"),
    [(30, ["country", "of", "x", "y", "a_very_long_position", "last"]), (4, ["a", "b", "last"])],
)
def test_every_variable_has_a_png_that_grows_with_its_cells(
    tmp_path: Path, layers: int, positions: list[str]
) -> None:
    run = a_run(tmp_path, layers, positions, [Subspace()])
    made = heatmaps(run.path, tmp_path / "out")
    assert made == ["a_b.png", "a_b_1.png"]
    width, height = size(tmp_path / "out" / made[0])
    assert height >= layers * 0.17 * DPI
    assert width >= len(positions) * 0.3 * DPI


@pytest.mark.slow  # thousands of cells
def test_a_picture_of_thousands_of_cells_is_drawn_without_words_and_can_be_looked_at(
    tmp_path: Path,
) -> None:
    """With words in each cell, the pictures of 35,000 hypotheses took three minutes, and were 1,746
    inches wide."""
    run = a_run(tmp_path, 4, ["a", "last"], [Subspace(coordinates=(i, i + 1)) for i in range(500)])
    made = heatmaps(run.path, tmp_path / "out")
    width, height = size(tmp_path / "out" / made[0])
    assert 31.2 * DPI <= width <= 33 * DPI
    assert height < 8 * DPI


@pytest.mark.slow
def test_coordinates_have_columns_and_what_is_featurized_a_picture_for_each_size(
    tmp_path: Path,
) -> None:
    few = a_run(tmp_path, 3, ["a", "b", "c"], [Subspace()])
    one = heatmaps(few.path, tmp_path / "one")
    chosen = [Subspace(), Subspace(coordinates=(0, 1)), Subspace("das", 1), Subspace("das", 16)]
    many = a_run(tmp_path, 3, ["a", "b", "c"], chosen)
    more = heatmaps(many.path, tmp_path / "more")
    variable = one[0].removesuffix(".png")
    assert [name.removesuffix(".png") for name in more[:3]] == [
        variable,
        f"{variable}-das_1",
        f"{variable}-das_16",
    ]
    assert len(more) == 3 * len(one)
    assert [len(heatmap(run.path).axes[0].get_xticks()) for run in (few, many)] == [3, 6]
    assert size(tmp_path / "more" / more[1]) == size(tmp_path / "one" / one[0])


def _row(layer: int | None, *units: Unit) -> dict[str, object]:
    return {
        "variable": "v",
        "layer": layer,
        "units": canonical_json([asdict(u) for u in units]),
        "n": 4,
    }


def _at(
    layer: int, component: str = "residual", head: int | None = None, position: str = "last"
) -> Unit:
    return Unit(Site(layer, component, position, head))


@pytest.mark.parametrize(
    ("head", "spaces", "named"),
    [
        (None, [Subspace()], [()]),
        (None, [Subspace(), Subspace("das", features=8)], [("full",), ("das 8",)]),
        (0, [Subspace()], [("head", "last")]),
        (0, [Subspace(), Subspace("das", features=8)],
         [("head", "last", "full"), ("head", "last", "das 8")]),
    ],
)  # fmt: skip
def test_whole_vectors_are_called_full_beside_subspaces(
    head: int | None, spaces: list[Subspace], named: list[tuple[str, ...]]
) -> None:
    site = Site(1, "residual" if head is None else "head", "last", head)
    units = [[asdict(Unit(site, space))] for space in spaces]
    rows = [{"variable": "v", "layer": 1, "units": canonical_json(unit)} for unit in units]
    assert [panel.shared for panel in panels("v", rows)] == named
    coordinates = [asdict(Unit(site, Subspace(coordinates=(0, 1))))]
    rows.append({"variable": "v", "layer": 1, "units": canonical_json(coordinates)})
    if head is None:
        assert panels("v", rows)[0].labels == ("last\nfull", "last\ncoordinates\n0–1")


def test_heads_have_a_panel_of_their_own_for_each_position_and_everything_else_shares_one() -> None:
    rows = [
        _row(la, _at(la, "head", h, p)) for p in ("a", "last") for h in (2, 0, 1) for la in (5, 3)
    ]
    rows += [_row(la, _at(la)) for la in (3, 4)]
    rows += [_row(3, _at(3, "head"))]
    rows += [_row(4, _at(4, "head", 0), _at(4, "head", 1)), _row(None, _at(4), _at(5))]
    sites, first, second = panels("v", rows)
    assert (sites.shared, sites.axis, sites.layers, sites.left_out) == ((), "position", (3, 4), 1)
    assert sites.labels == ("last\nresidual", "last\nhead", "last\nhead 0\n+ last\nhead 1")
    assert set(sites.cells) == {(0, 0), (1, 0), (0, 1), (1, 2)}
    assert [(p.shared, p.axis, p.layers, p.labels, p.left_out) for p in (first, second)] == [
        (("head", where), "head", (3, 5), ("0", "1", "2"), 0) for where in ("a", "last")
    ]
    assert second.cells[0, 2] is rows[7]
    assert len(panels("v", rows[:12])) == 2


@given(
    st.lists(
        st.builds(
            Unit,
            st.builds(
                Site,
                st.integers(0, 2),
                st.sampled_from(["residual", "head"]),
                st.sampled_from(["a", "b"]),
                st.none() | st.integers(0, 2),
            ),
            st.sampled_from(
                [
                    Subspace(),
                    Subspace(coordinates=(0, 1)),
                    Subspace(coordinates=(0, 2)),
                    Subspace("das", 2),
                ]
            ),
            st.none() | st.builds(Site, st.integers(0, 2), st.just("residual"), st.just("a")),
            st.sampled_from([None, "s"]),
        ),
        unique=True,
        min_size=1,
        max_size=12,
    )
)
def test_every_hypothesis_of_one_layer_stands_in_exactly_one_cell(units: list[Unit]) -> None:
    units = [replace(u, source_site=None) if u.source_site == u.site else u for u in units]
    rows = [_row(u.site.layer, u) for u in dict.fromkeys(units)]
    shown = [r["units"] for p in panels("v", rows) for r in p.cells.values()]
    assert sorted(shown) == sorted(r["units"] for r in rows)
    assert len({words(str(r["units"])) for r in rows}) == len(rows)


def test_a_run_of_heads_has_a_picture_for_each_position(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    notes = [
        Proposed(
            Hypothesis("v", Intervention((_at(layer, "head", head, position),))), "exhaustive", 0
        )
        for position in ("a", "last")
        for head in range(9)
        for layer in range(3)
    ]
    ledger = RunLedger(run)
    ledger.write_records(notes)
    ledger.close("interrupted")
    made = heatmaps(run.path, tmp_path / "out")
    assert made == ["v-head-a.png", "v-head-last.png"]
    assert size(tmp_path / "out" / made[0])[0] >= 9 * 0.3 * DPI


def test_the_change_pairs_that_a_variable_could_have_are_counted_from_the_pairs(
    tmp_path: Path,
) -> None:
    run = new_run(tmp_path)
    assert chart_facts(run.path).pairs == {}
    RunLedger(run).write_records(
        [
            Blocked(
                tuple(
                    PairScreened(i, (1,), {"source": (1,)}, True, "test", None if i == 1 else 0)
                    for i in range(4)
                )
            )
        ]
    )
    facts = chart_facts(run.path)
    assert facts.pairs == {"country": 2}
    assert (facts.run, facts.model, facts.threshold, facts.fixed) == (
        run.info.id,
        "planted",
        0.8,
        False,
    )


def test_a_run_without_hypotheses_has_no_heat_maps(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no hypotheses"):
        heatmaps(new_run(tmp_path).path, tmp_path)


def test_no_pyplot_is_touched(tmp_path: Path) -> None:
    import subprocess
    import sys

    subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, raysearch.report.heatmap; sys.exit('matplotlib.pyplot' in sys.modules)",
        ],
        check=True,
    )
