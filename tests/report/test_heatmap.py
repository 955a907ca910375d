"""Heat maps: one legible PNG for each variable, with every kind of cell."""

import struct
from pathlib import Path

import pytest

from raysearch.errors import StoreError
from raysearch.report.chart_facts import chart_facts
from raysearch.report.heatmap import heatmaps
from raysearch.search.events import Blocked, Decided, Note, PairScreened, Proposed
from raysearch.search.hypothesis import Hypothesis, Intervention, Site, Subspace, Unit
from raysearch.store.ledger import Ledger
from raysearch.store.run_folder import RunFolder
from tests.store.books import new_run

VERDICTS = ("accept", "reject", "undecided", "failed", None)


def a_run(store: Path, layers: int, positions: list[str], subspaces: list[Subspace]) -> RunFolder:
    run = new_run(store)
    ledger = Ledger(run)
    notes: list[Note] = []
    for i, (variable, layer, position, subspace) in enumerate(
        (v, la, p, s) for v in ("a/b", "a b") for la in range(layers) for p in positions for s in subspaces
    ):
        h = Hypothesis(variable, Intervention((Unit(Site(layer, "residual", position), subspace),)))
        notes.append(Proposed(h, "exhaustive", 0))
        verdict, n = VERDICTS[i % 5], 0 if i % 10 == 3 else 12
        if verdict:
            notes.append(Decided(h, verdict, n, n * (i % 3) // 3, 0.1, 0.9, 0, 0, 0, None, 1.0, "sampler"))  # type: ignore[arg-type]
    two = (Unit(Site(0, "residual", "last")), Unit(Site(1, "residual", "last")))
    ledger.notes([*notes, Proposed(Hypothesis("a b", Intervention(two)), "exhaustive", 0)])
    ledger.close("interrupted")
    for part in (run.tables / "verdicts").glob("*.parquet"):
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
def test_every_variable_has_a_png_that_grows_with_its_cells(tmp_path: Path, layers: int, positions: list[str]) -> None:
    run = a_run(tmp_path, layers, positions, [Subspace()])
    made = heatmaps(run.path, tmp_path / "out")
    assert [p.name for p in made] == ["a_b.png", "a_b_1.png"]
    width, height = size(made[0])
    assert height >= layers * 0.4 * 130
    assert width >= len(positions) * 130


def test_subspaces_have_columns_of_their_own(tmp_path: Path) -> None:
    one = heatmaps(a_run(tmp_path, 3, ["a", "b", "c"], [Subspace()]).path, tmp_path / "one")
    three = heatmaps(
        a_run(tmp_path, 3, ["a", "b", "c"], [Subspace(), Subspace("das", 1), Subspace("das", 16)]).path,
        tmp_path / "three",
    )
    assert size(three[0])[0] > size(one[0])[0] * 1.4


def test_the_change_pairs_that_a_variable_could_have_are_counted_from_the_pairs(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    assert chart_facts(run.path).pairs == {}
    Ledger(run).notes(
        [Blocked(tuple(PairScreened(i, (1,), {"source": (1,)}, True, "test", None if i == 1 else 0) for i in range(4)))]
    )
    facts = chart_facts(run.path)
    assert facts.pairs == {"country": 2}
    assert (facts.run, facts.model, facts.threshold, facts.fixed) == (run.info.id, "planted", 0.8, False)


def test_a_run_without_hypotheses_has_no_heat_maps(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no hypotheses"):
        heatmaps(new_run(tmp_path).path, tmp_path)


def test_no_pyplot_is_touched(tmp_path: Path) -> None:
    import subprocess
    import sys

    subprocess.run(
        [sys.executable, "-c", "import sys, raysearch.report.heatmap; sys.exit('matplotlib.pyplot' in sys.modules)"],
        check=True,
    )
