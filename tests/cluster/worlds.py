"""The planted model as work for real pools, and a search on it."""

import json
from pathlib import Path

from raysearch import draw_pairs
from raysearch.cluster.replica_spec import ReplicaSpec
from raysearch.core.events import Opened
from raysearch.core.model_source import ModelSource
from raysearch.core.runner_settings import RunnerSettings
from raysearch.core.space import Grid, HypothesisSpace
from raysearch.problems import load_problem
from raysearch.proposers.base import Exhaustive
from raysearch.search.pair_blocks import expected_answers
from raysearch.search.screening import ScreeningPlan
from raysearch.search.search import Search
from raysearch.stats.match_test import MatchTest

ROOT = Path(__file__).parents[2]
VARIABLES = ("a", "b", "c", "sum_ab", "total")
POSITIONS = ("a", "plus1", "b", "plus2", "c", "last")


def planted_work(test: int = 160, holdout: int = 32, rows: int = 64) -> ReplicaSpec:
    """The planted model with pairs of its problem."""
    problem = load_problem("raysearch.problems.add_three", {})
    pairs = draw_pairs(problem, VARIABLES, {"test": test, "holdout": holdout}, seed=0)
    return ReplicaSpec(
        ModelSource(str(ROOT / "jobs/planted/model")),
        pairs,
        POSITIONS,
        VARIABLES,
        settings=RunnerSettings(rows),
    )


def planted_search(work: ReplicaSpec, opened: Opened, rows: int = 64) -> Search:
    """A search over all its 120 hypotheses."""
    space = HypothesisSpace(
        VARIABLES, (Grid("residual", tuple(range(opened.facts.layers)), (None,), POSITIONS),)
    )
    splits = {p.index: p.split for p in work.pairs}
    pairs = {e.index: expected_answers(e, splits[e.index]) for e in opened.encoded}
    counts = {s: sum(v == s for v in splits.values()) for s in ("test", "holdout")}
    plan = ScreeningPlan(counts, max_pairs=160, solved_only=True)  # type: ignore[arg-type]
    return Search(Exhaustive(space), MatchTest(0.8, 0.05, 0.05, len(space)), pairs, plan, rows=rows)


def true_cells() -> set[tuple[str, int, str]]:
    """(variable, layer, position) of the cells that an independent script found true."""
    cells = json.loads((ROOT / "tests/planted_cells.json").read_text())
    return {(c["variable"], c["layer"], c["position"]) for c in cells["true_cells"]}
