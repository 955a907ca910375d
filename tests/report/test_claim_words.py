"""What an accept shows and does not show is said rightly for each operation, population and horizon."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from raysearch.core.claims import BEYOND, FIXED, STOPPED
from raysearch.core.population import POPULATIONS, PopulationName, about
from raysearch.report.claim import claim_words, figure_claim
from raysearch.report.heatmap_drawing import sentences as drawn
from raysearch.report.panels import Panel
from raysearch.report.row_sequence import Rows
from raysearch.report.run_data import RunData, read_run
from raysearch.report.run_facts import ChartFacts, chart_facts
from raysearch.report.sentences import claim, limitations, question, title
from raysearch.viewer.report_notes import none_accepted, score_note
from tests.cli.conftest import QUICKSTART
from tests.once import Once

OPERATIONS = {"interchange": [False], "ablation": [True], "both": [False, True]}
SEQUENTIAL = {"use": "sequential", "max_pairs": 256}
ONE_LOOK = {"use": "fixed", "pairs": 40}
HORIZONS: dict[str, tuple[dict[str, Any], dict[str, int] | None, str]] = {
    "sequential": (SEQUENTIAL, None, STOPPED),
    "sequential, continued": (SEQUENTIAL, {"1": 40}, STOPPED),
    "one look": (ONE_LOOK, None, FIXED),
    "one look, open, continued": ({**ONE_LOOK, "horizon": "open"}, {"1": 40}, STOPPED),
    "one look, fixed, continued": ({**ONE_LOOK, "reserve": 0.2}, {"1": 40}, FIXED),
}
TEST = {
    "threshold": 0.8,
    "indifference": 0.0,
    "false_accept": 0.05,
    "miss": 0.05,
    "score": "matches",
}
ABLATED = '[{"operation": "zero"}]'


@pytest.fixture(scope="module")
def data(once: Once) -> RunData:
    return read_run(once.searched(QUICKSTART))


def column(table: pa.Table, name: str, values: list[Any]) -> pa.Table:
    at = table.schema.get_field_index(name)
    return table.set_column(
        at, table.schema.field(at), pa.array(values, table.schema.field(at).type)
    )


def page(
    data: RunData, ablates: list[bool], population: PopulationName, test: Mapping[str, Any],
    continued: dict[str, int] | None,
) -> str:  # fmt: skip
    """All sentences of a page that say what an accept means."""
    table = data.rows.table
    units = [
        ABLATED if ablates[i % len(ablates)] else u
        for i, u in enumerate(table["units"].to_pylist())
    ]
    table = column(column(table, "units", units), "population", [population] * len(units))
    fixed = replace(data.facts, fixed=test["use"] == "fixed")
    now = replace(
        data, rows=Rows(table), facts=fixed, job={**data.job, "test": {**TEST, **test}},
        info={**data.info, "continued": continued},
    )  # fmt: skip
    lines = [title(now), *question(now), *claim(now), *limitations(now)]
    lines += [none_accepted(False, now.ablates), score_note(now.facts.score, now.ablates)]
    return "\n".join(lines)


def figure(
    ablates: list[bool], population: PopulationName, test: Mapping[str, Any],
    continued: dict[str, int] | None, control: str = "fwer",
) -> str:  # fmt: skip
    """The caption of a figure."""
    cells = {
        (0, x): {"verdict": "accept", "iia": 0.9, "position": "p", "units": ABLATED if of else "[]"}
        for x, of in enumerate(ablates)
    }
    labels = tuple(f"p{x}" for x in range(len(cells)))
    facts = ChartFacts(
        "run-1", "models/small", 0.8, population=about(population), fixed=test["use"] == "fixed",
        job={"test": {**TEST, **test, "control": control}, "propose": {"use": "exhaustive"}},
        hypotheses=3, continued=continued or {}, population_name=population,
    )  # fmt: skip
    return " ".join(drawn(Panel("v", (), "position", (0,), labels, cells), facts))


def test_a_figure_says_its_error_level_and_asks_what_its_operation_asks() -> None:
    said = figure([True], "sampler", SEQUENTIAL, None, control="fdr")
    assert "false discovery rate) is at most 0.05, which bounds no single accept" in said
    assert "K = 3" in said
    assert said.startswith("Which sites of small are needed where “v” matters?")
    assert "share of pairs whose output is no longer the base's answer" in said
    old = ChartFacts("run-1", "models/small", 0.8, population="all pairs", fixed=True)
    cells = {(0, 0): {"verdict": "accept", "iia": 0.9, "position": "p"}}
    bare = " ".join(drawn(Panel("v", (), "position", (0,), ("p",), cells), old))
    assert (FIXED in bare, STOPPED in bare) == (True, False)
    assert "τ = 0.8, about all pairs" in bare


@pytest.mark.parametrize(
    ("kinds", "keep", "words"),
    [
        (
            "both",
            None,
            "changes the answer, and above 0.8 on those that it leaves alone; the chance",
        ),
        (
            "both",
            0.6,
            "changes the answer, and above 0.6 on those that it leaves alone; the chance",
        ),
        ("change", None, "changes the answer; the chance"),
    ],
)
def test_keep_pairs_that_decide_are_named_by_the_claim(
    kinds: str, keep: float | None, words: str
) -> None:
    test = {**TEST, **SEQUENTIAL, "threshold": 0.8, "keep_threshold": keep}
    job = {"test": test, "propose": {"use": "exhaustive"}, "pairs": {"kinds": kinds}}
    assert words in claim_words(job, about("sampler"), 3)


def test_a_figure_of_a_run_knows_its_job(once: Once) -> None:
    facts = chart_facts(once.searched(QUICKSTART))
    said = " ".join(figure_claim(facts, [False]))
    assert f"K = {facts.hypotheses}" in said
    assert facts.hypotheses > 1
    assert "the chance of any false accept is at most" in said


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("population", POPULATIONS)
@pytest.mark.parametrize("horizon", HORIZONS)
def test_each_combination_of_operation_population_and_horizon_has_a_right_sentence(
    data: RunData, operation: str, population: PopulationName, horizon: str
) -> None:
    ablates, (test, continued, mean) = OPERATIONS[operation], HORIZONS[horizon]
    job = {"test": {**TEST, **test}, "propose": {"use": "exhaustive"}}
    words = about(population)
    texts = (
        claim_words(job, words, 3, ablates, continued, population),
        page(data, ablates, population, test, continued),
        figure(ablates, population, test, continued),
    )
    assert ("K = 3" in texts[2], "at most 0.05" in texts[2]) == (True, True)
    for text in texts:
        assert ("sufficient under interchange" in text) == (False in ablates)
        assert ("necessary for the base's answer" in text) == (True in ablates)
        if operation == "ablation":
            assert "interchange" not in text
            assert "output is the counterfactual" not in text
            assert "which variable the site carries" in text
            assert "lives there and nowhere else" not in text
        if operation == "interchange":
            assert "blation" not in text
        assert POPULATIONS[population] in text
        assert (
            f"nothing {BEYOND[population]}" in text or f"nor anything {BEYOND[population]}" in text
        )
        assert not [b for b in BEYOND.values() if b in text and b != BEYOND[population]]
        assert "other texts" not in text
        assert (FIXED in text, STOPPED in text) == (mean is FIXED, mean is STOPPED)
        assert ("further test pairs" in text) == bool(continued)
    assert ("by the same evidence" in texts[1]) == (horizon == "one look, open, continued")
    assert ("anew, on its further pairs alone" in texts[1]) == (
        horizon == "one look, fixed, continued"
    )


def test_each_population_says_what_it_says_nothing_of() -> None:
    assert BEYOND.keys() == POPULATIONS.keys()


def test_both_operations_are_told_apart_in_one_claim() -> None:
    job = {"test": {**TEST, **SEQUENTIAL}}
    assert claim_words(job, "these pairs", 3, [True, False]).startswith(
        "Accepted: sufficient under interchange, IIA above 0.8; or necessary for the base's answer, which "
        "ablation takes away on a share above 0.8; on these pairs; "
    )
    assert claim_words(job, "these pairs", 3, [True]).startswith(
        "Accepted: necessary for the base's answer, which ablation takes away on a share above 0.8 of these "
        "pairs; "
    )
