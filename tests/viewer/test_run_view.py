"""The data of a run's page are what its tables say, for every hypothesis."""

import json
from pathlib import Path
from typing import Any

import pytest

from raysearch.report.results_table import results
from raysearch.storage.folder import Folder
from raysearch.store.run_folder import RunFolder
from raysearch.viewer import page as pages
from raysearch.viewer.page import FILE, FOLDER, data_in, run_page, write_page
from raysearch.viewer.page_json import to_json
from raysearch.viewer.pair_texts import position_spans
from raysearch.viewer.run_view import RunView
from raysearch.viewer.token_texts import TokenTexts
from tests.cli.conftest import QUICKSTART
from tests.once import Once
from tests.report.big_run import big_run
from tests.test_benchmarks import SMOLLM2

SETS = (
    "space.variables=[sum_ab,total]",
    "space.layers=[1,2]",
    "controls=[placebo]",
    "pairs.kinds=unfiltered",
)
RUNS = {
    "plain": (),
    "all pairs and a control": SETS,
}


@pytest.fixture(scope="module", params=RUNS)
def run(request: pytest.FixtureRequest, once: Once) -> RunFolder:
    flags = [word for key in RUNS[request.param] for word in ("--set", key)]
    return RunFolder.open(once.searched(QUICKSTART, *flags))


@pytest.fixture(scope="module")
def quickstart(once: Once) -> RunFolder:
    return RunFolder.open(once.searched(QUICKSTART))


def _data(run: RunFolder) -> dict[str, Any]:
    """The data as a page reads them."""
    return {name: json.loads(to_json(values)) for name, values in RunView(run.folder).files()}


def _cells(data: dict[str, Any]) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Each hypothesis and its intervention, by the hypothesis's id."""
    index, found = data["index"], {}
    for number, name in enumerate(index["hypotheses"]["id"]):
        intervention = index["hypotheses"]["intervention"][number]
        bundle = data[f"cells-{intervention // index['bundle']}"]
        own = bundle["hypotheses"][str(number)], bundle["interventions"][str(intervention)]
        found[name] = own
    return found


@pytest.mark.slow
def test_the_outcomes_of_the_pairs_are_those_that_the_verdict_counted(run: RunFolder) -> None:
    cells = _cells(_data(run))
    rows = results(run.folder, controls=True).to_pylist()
    assert len(rows) == len(cells)
    for row in rows:
        seen, intervention = cells[row["hypothesis"]]
        outcomes = seen["outcomes"]["test"]
        assert len(outcomes) == len(intervention["pairs"]["test"])
        assert len(outcomes) == len(intervention["said"]["test"])
        assert outcomes.count("+") == row["matches"]
        assert outcomes.count("+") + outcomes.count("-") == row["n"]
        unfiltered = row["keep_n"] and row["keep_n"] + row["n"] > len(outcomes)
        if not unfiltered and "." not in outcomes:
            assert outcomes.count("k") + outcomes.count("x") == row["keep_n"]
        if row["verdict"] == "accept" and row["control"] is None:
            held = seen["outcomes"]["holdout"]
            assert held.count("+") + held.count("-") >= row["holdout_n"]


def test_what_was_said_is_the_expected_answer_exactly_where_the_pair_matched(
    quickstart: RunFolder,
) -> None:
    data = _data(quickstart)
    index = data["index"]
    pairs = {k: v for name in data if name.startswith("pairs-") for k, v in data[name].items()}
    for h, (seen, intervention) in enumerate(_cells(data).values()):
        for outcome, pair, said in zip(
            seen["outcomes"]["test"],
            intervention["pairs"]["test"],
            intervention["said"]["test"],
            strict=True,
        ):
            expected = pairs[str(pair)]["expected"][index["hypotheses"]["variable"][h]]
            same = index["outputs"][said] == expected
            assert outcome == "." or same == (outcome in "+k"), (h, pair)


def test_each_hypothesis_is_in_one_cell_of_a_map(quickstart: RunFolder) -> None:
    index = _data(quickstart)["index"]
    cells = sorted(h for m in index["maps"] for h in m["cells"] if h >= 0)
    assert cells == list(range(120))
    assert index["elsewhere"] == []
    for m in index["maps"]:
        assert len(m["cells"]) == len(m["layers"]) * len(m["labels"])
    assert index["maps"][0]["examples"][-1] == "=", "the last token is known by what is left"


def test_a_position_has_the_characters_that_its_neighbours_leave() -> None:
    at = [
        {"name": "first", "start": 0, "end": 2, "tokens": [0]},
        {"name": "rest", "start": None, "end": None, "tokens": [1, 2]},
        {"name": "last", "start": None, "end": None, "tokens": [2]},
    ]
    spans = position_spans("ab cd", [5, 6, 7], at, TokenTexts({}, []))
    assert spans == {"first": (0, 2), "rest": (2, 5)}, "where it is not known, nothing is marked"


@pytest.mark.model
def test_a_tokenizer_on_this_machine_reads_what_no_pair_names() -> None:
    texts = TokenTexts({"model": {"path": str(SMOLLM2)}}, [])
    ids = [504, 3575, 282, 4649, 314]
    text = texts.text(tuple(ids))
    assert text == "The capital of France is"
    spans = texts.spans(text, ids)
    assert spans is not None
    assert [text[a:b] for a, b in spans] == ["The", " capital", " of", " France", " is"]
    assert texts.spans(text, ids[1:]) is None
    at = [{"name": "last", "start": None, "end": None, "tokens": [4]}]
    assert position_spans(text, ids, at, texts) == {"last": (21, 24)}


def test_one_folder_gives_one_page_below_a_megabyte(quickstart: RunFolder) -> None:
    html, beside = run_page(quickstart.folder)
    assert run_page(quickstart.folder)[0] == html
    assert list(beside) == []
    assert len(html) < 1_000_000
    stamp, inside = data_in(html)
    assert stamp
    assert json.loads(inside["index"])["run"]["id"] == quickstart.info.id


@pytest.mark.slow
def test_more_data_lie_beside_the_page_in_few_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "MAX_INSIDE", 10_000)
    run = big_run(tmp_path, 2000)
    write_page(run.folder)
    assert data_in(run.folder.read(FILE).decode())[1] == {}
    names = run.folder.at(FOLDER).names()
    assert {name.partition("-")[0].removesuffix(".js") for name in names} >= {
        "index",
        "report",
        "cells",
    }
    assert len(names) <= 2 + 1 + 2000 // 2 // 128 + 1
    monkeypatch.setattr(pages, "MAX_INSIDE", 10**9)
    write_page(run.folder)
    assert run.folder.at(FOLDER).names() == [], "what is inside is not beside"


def test_a_text_of_a_user_ends_no_script(store: Folder) -> None:
    text = to_json({"</script>": "<!-- <script> \u2028"})
    assert "<" not in text
    assert json.loads(text) == {"</script>": "<!-- <script> \u2028"}


def test_what_is_not_finite_is_null() -> None:
    assert to_json([float("inf"), float("nan"), 0.12345678]) == "[null,null,0.123457]"


def test_a_list_of_whole_and_other_numbers_is_rounded() -> None:
    assert (
        to_json([[0, 0.12345678], [1, float("nan")], [], [1, 2]])
        == "[[0,0.123457],[1,null],[],[1,2]]"
    )
