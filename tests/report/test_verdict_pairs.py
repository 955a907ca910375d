"""The outcomes of pairs, on the page and in margins, are those that a verdict counted, whatever part
of the test pairs it is of."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raysearch.core.events import Encoded
from raysearch.report.margins import read_margins
from raysearch.report.results_table import read_table, results
from raysearch.report.row_sequence import TableRow
from raysearch.search.criteria import DecisionRule
from raysearch.store.pairs_table import read_pairs
from raysearch.store.run_folder import RunFolder
from raysearch.viewer.observations import RunObservations, SplitObservations
from raysearch.viewer.pair_outcomes import PairOutcomes
from tests.search.worlds import World
from tests.test_check_continued import continued
from tests.test_check_run import OpenEnded, run_of

RATES = lambda layer: (0.5, 0.74, 0.78, 0.82, 0.88, 1.0)[layer % 6]  # noqa: E731
FIXED = DecisionRule(at_end=True, fixed_horizon=True, reserve=0.4)


class OneVariableAtATime(OpenEnded):
    """All sites for v, and then for w."""

    def __init__(self, world: World) -> None:
        self.space = sorted(world.space, key=lambda h: h.variable)


RUNS: dict[str, tuple[World, Callable[[World, Path], RunFolder]]] = {
    "anew": (
        World(7, test=40, max_pairs=40, more=(60, 80), rates=RATES, rule=FIXED),
        lambda world, folder: continued(world, folder),
    ),
    "on further pairs": (
        World(3, test=40, max_pairs=30, more=(60, 80), rates=RATES, controls=("placebo",)),
        lambda world, folder: continued(world, folder),
    ),
    "in later generations": (
        World(2, layers=4, test=120, max_pairs=30, rates=RATES),
        lambda world, folder: RunFolder.open(
            run_of(world, folder, proposer=lambda: OneVariableAtATime(world))
        ),
    ),
}


@pytest.fixture(scope="module", params=RUNS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    world, make = RUNS[request.param]
    return make(world, tmp_path_factory.mktemp("run"))


def _seen(run: RunFolder) -> list[tuple[TableRow, str]]:
    """Each row with the outcomes of its test pairs, as the page has them."""
    observed = RunObservations(run.folder)
    of = PairOutcomes(read_pairs(run.folder).encoded or (), observed.outputs, unfiltered=False)
    return [
        (row, of.of(row, observed.splits(row["intervention"], row["fit"])["test"], "test"))
        for row in results(run.folder, controls=True).to_pylist()
    ]


def test_the_page_has_the_pairs_and_matches_that_the_verdict_counted(run: RunFolder) -> None:
    for row, seen in _seen(run):
        assert (seen.count("+"), seen.count("-")) == (row["matches"], row["n"] - row["matches"])


def test_margins_are_of_the_same_pairs(run: RunFolder) -> None:
    rows = [row for row, _ in _seen(run)]
    margins = read_margins(run.folder, rows, [])
    for row in rows:
        found = margins._matches("test", row)
        assert (len(found), sum(found.values())) == (row["n"], row["matches"])


def test_each_run_has_an_intervention_that_was_measured_for_others_too(run: RunFolder) -> None:
    """Otherwise these tests could not fail."""
    assert any("." in seen for _, seen in _seen(run))


def test_runs_of_before_have_no_parts(run: RunFolder) -> None:
    assert read_table(run.folder, "observations")["part"].null_count == 0
    observed = RunObservations(run.folder)
    of = PairOutcomes(read_pairs(run.folder).encoded or (), observed.outputs, unfiltered=False)
    for row in results(run.folder).to_pylist():
        seen = observed.splits(row["intervention"], row["fit"])["test"]
        before = replace(seen, parts=0 * seen.parts)
        found = of.of({**row, "part": None}, before, "test")
        assert found.count("+") + found.count("-") == row["n"]


def _encoded(index: int, answer: int, added: int = 0) -> Encoded:
    at = {"last": (0,)}
    return Encoded(
        index=index,
        base=(index,),
        sources={"source": (index,)},
        base_positions=at,
        source_positions={"source": at},
        answers={"base": (1,), "source": (2,)},
        counterfactual={"v": (answer,)},
        added=added,
    )


def test_further_pairs_change_no_label_and_keep_answers_of_their_own() -> None:

    first, further = [_encoded(0, 3), _encoded(1, 4)], [_encoded(2, 5, 1), _encoded(3, 3, 1)]
    row = {"variable": "v", "control": "arbitrary_labels", "units": "", "verdict": None, "n": None}
    for pairs in (first, [*first, *further]):
        of = PairOutcomes(pairs, [(3,), (4,), (5,)], unfiltered=False)
        indices = np.array([p.index for p in pairs])
        said = np.array([1, 0, 2, 1])[: len(pairs)]
        seen = SplitObservations(indices, said, 0 * indices, pa.table({}))
        assert of.of(row, seen, "test") == "+" * len(pairs)
