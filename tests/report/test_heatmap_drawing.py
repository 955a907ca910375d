"""Heat maps: values where they can be read, text as text, a column wide or below a title."""

import re
import struct
import time
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from raysearch.cli.main import cli
from raysearch.report.heatmap_drawing import COLUMN, MIN_FONT, PAGE, draw, sentences
from raysearch.report.labels import VERDICT_WORDS
from raysearch.report.panels import Panel
from raysearch.report.run_facts import ChartFacts
from tests.report.big_run import big_run

FACTS = ChartFacts("run-1", "models/small", 0.8, "all pairs")
VERDICTS = ("accept", "reject", "undecided", "failed", None)


def a_panel(rows: int, columns: int, labels: tuple[str, ...] = (), axis: str = "position") -> Panel:
    labels = labels or tuple(f"p{x}" for x in range(columns))
    cells = {}
    for i in range(rows * columns):
        verdict = VERDICTS[i % len(VERDICTS)]
        iia = None if verdict in ("failed", None) else (i % 11) / 10
        at = {"verdict": verdict, "iia": iia, "position": labels[i % columns]}
        cells[i // columns, i % columns] = at
    return Panel("v", (), axis, tuple(range(rows)), labels, cells)


def sizes(svg: str) -> list[float]:
    return [float(s) for s in re.findall(r"font(?:-size)?: [^;]*?([\d.]+)px", svg)]


@pytest.mark.parametrize(
    ("rows", "columns", "widest"),
    [(1, 1, COLUMN), (30, 1, COLUMN), (4, 6, COLUMN), (30, 20, COLUMN), (12, 12, COLUMN), (4, 300, PAGE)],
)  # fmt: skip
def test_a_figure_fits_a_column_and_all_its_text_is_text_that_can_be_read(
    rows: int, columns: int, widest: float
) -> None:
    picture = draw(a_panel(rows, columns), FACTS)
    width, height = picture.get_size_inches()
    assert width <= widest + 1e-6
    assert height < 9
    svg = picture.file("svg").decode()
    assert "<image" not in svg
    assert min(sizes(svg)) >= MIN_FONT - 0.01
    assert "τ = 0.8" in svg


def test_a_value_stands_where_there_is_room_alone_and_what_is_accepted_is_outlined() -> None:
    few, many = (draw(a_panel(rows, columns), FACTS) for rows, columns in ((4, 6), (30, 40)))
    texts = {text.get_text() for text in few.axes[0].texts}
    assert {"0", "1.0", ".70"} <= texts
    assert not many.axes[0].texts
    hatched, accepted, undecided = few.axes[0].patches
    corners = [len(patch.get_path().vertices) / 5 for patch in (hatched, accepted, undecided)]
    assert corners == [4, 5, 5]
    assert hatched.get_hatch(), "no verdict yet"
    assert (accepted.get_linestyle(), undecided.get_linestyle()) == ("-", ":")


def test_the_legend_names_each_look_that_the_map_has_and_no_other() -> None:
    def legend(rows: int) -> list[str]:
        (found,) = draw(a_panel(rows, 1), FACTS).legends
        return [text.get_text() for text in found.get_texts()]

    words = [VERDICT_WORDS[verdict] for verdict in VERDICTS]
    assert sorted(legend(len(VERDICTS))) == sorted(set(words))
    assert legend(1) == words[:1]


def test_a_map_without_a_cell_says_what_is_not_shown() -> None:
    empty = Panel("v", (), "position", (), (), {}, left_out=7)
    (_, about) = draw(empty, FACTS, titled=True).texts
    assert "Not shown: 7 hypotheses over several layers." in about.get_text().replace("\n", " ")


def test_labels_that_differ_at_their_ends_are_not_shortened_to_the_same() -> None:
    labels = tuple(f"last residual coordinates {i}" for i in range(14))
    for titled in (True, False):
        axes, _ = draw(a_panel(4, 14, labels), FACTS, titled=titled).axes
        assert tuple(text.get_text() for text in axes.get_xticklabels()) == labels


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (30, 20), (4, 6)])
def test_below_a_title_every_value_can_be_read_and_no_text_is_cut_off(
    rows: int, columns: int
) -> None:
    named = replace(FACTS, run="run-" + "W" * 90, model="国" * 70)
    drawn = draw(replace(a_panel(rows, columns), variable="W" * 70), named, titled=True)
    assert len(drawn.axes[0].texts) == sum(
        row["iia"] is not None for row in a_panel(rows, columns).cells.values()
    )
    width, height = (inches * drawn.dpi for inches in drawn.get_size_inches())
    map_top = drawn.axes[0].get_window_extent().y1
    for text in drawn.texts:
        box = drawn.box_of(text)
        assert box is not None
        assert 0 < box.x0 < box.x1 < width
        assert box.y1 < height
        assert box.y0 >= map_top


@pytest.mark.slow
def test_a_hundred_thousand_cells_are_drawn_in_seconds_and_can_be_opened() -> None:
    began = time.process_time()
    picture = draw(a_panel(50, 2000), FACTS, titled=True)
    png = picture.png()
    assert time.process_time() - began < 15
    width, height = struct.unpack(">II", png[16:24])
    assert 6200 <= width < 6600
    assert height < 6600
    assert not picture.axes[0].texts


def test_labels_are_not_cut_off_however_long_they_are() -> None:
    for labels in (("a", "b"), ("a" * 60, "b\nresidual\nmlp.output")):
        picture = draw(a_panel(3, 2, labels), FACTS, {labels[0]: "Antidisestablishmentarianism"})
        box = picture.box_of(picture.axes[0].xaxis)
        assert box is not None
        assert box.y0 > 0
        assert any("Antidisestabl…" in t.get_text() for t in picture.axes[0].get_xticklabels())


def test_a_pdf_has_its_fonts_inside() -> None:
    pdf = draw(a_panel(2, 2), FACTS).file("pdf")
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert b"/CreationDate" not in pdf
    drawn = b"".join(
        zlib.decompress(part)
        for part in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.S)[:1]
    )
    assert b"Tf" in drawn


@settings(max_examples=15, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=4, unique=True), st.text())
def test_any_text_is_a_label_literally(labels: list[str], token: str) -> None:
    picture = draw(a_panel(2, len(labels), tuple(labels)), FACTS, {labels[0]: token})
    assert picture.file("svg")
    assert not any(t.get_parse_math() for t in picture.axes[0].get_xticklabels())


def test_a_caption_says_what_a_figure_does_not() -> None:
    said = " ".join(sentences(a_panel(2, 2), FACTS))
    for words in ("Where is “v” in small?", "τ = 0.8", "all pairs", "run-1", "white 0 to blue 1"):
        assert words in said


@pytest.mark.slow
def test_the_command_writes_both_kinds_and_captions(tmp_path: Path) -> None:
    run, out = big_run(tmp_path / "runs", 400), tmp_path / "out"
    page = tmp_path / "page.html"
    command = ["report", str(run.path), "--to", str(page), "--figures", str(out)]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    made = sorted(path.name for path in out.iterdir())
    assert made == ["captions.txt", "country.pdf", "country.svg", "relation.pdf", "relation.svg"]
    assert (out / "captions.txt").read_text().count("Where is") == 2
