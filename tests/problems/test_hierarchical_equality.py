"""Hierarchical equality: the causal model, the pairs, and the golden test: on weights written by
hand the search finds just the truth."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from raysearch import Pair, draw_pairs
from raysearch.causal import differing_shares
from raysearch.cluster.local_pool import LocalPool
from raysearch.cluster.replica_spec import ReplicaSpec
from raysearch.core.events import Event, Task
from raysearch.core.hypothesis import Subspace
from raysearch.core.model_source import ModelSource
from raysearch.core.records import Decided, Estimated, Record
from raysearch.core.space import Grid, HypothesisSpace
from raysearch.driver import drive
from raysearch.engine.loading.factory import load_module
from raysearch.errors import CausalModelError
from raysearch.problems.hierarchical_equality import NEAREST, problem, vectors
from raysearch.proposers.base import Exhaustive
from raysearch.search.pair_blocks import expected_answers
from raysearch.search.screening import ScreeningPlan
from raysearch.search.search import Search
from raysearch.stats.match_test import MatchTest

JOBS = Path(__file__).parents[2] / "jobs"
MODELS = JOBS / "models" / "hierarchical_equality.py"
VARIABLES = ("left_equality", "right_equality", "output")
LEFT, RIGHT = Subspace(coordinates=(0, 1, 2, 3)), Subspace(coordinates=(4, 5, 6, 7))


class Kept:
    """A ledger that only remembers what the search said."""

    def __init__(self) -> None:
        self.said: list[Record] = []

    def write_events(self, events: Sequence[Event]) -> None: ...

    def tensors_for(self, task: Task) -> dict[str, bytes]:
        return {}

    def write_records(self, notes: Sequence[Record]) -> None:
        self.said += notes


@pytest.fixture(scope="module")
def pairs() -> tuple[Pair, ...]:
    return draw_pairs(problem(dimensions=2), VARIABLES, {"test": 400, "holdout": 64}, seed=0)


def test_the_answer_says_whether_the_two_comparisons_agree() -> None:
    asked = problem()
    for symbols, left, right in [
        ((1, 1, 2, 2), 1, 1),
        ((1, 1, 2, 3), 1, 0),
        ((1, 2, 3, 3), 0, 1),
        ((1, 2, 3, 4), 0, 0),
    ]:
        values = asked.model.run(dict(zip("wxyz", symbols, strict=True)))
        assert (values["left_equality"], values["right_equality"]) == (left, right)
        assert asked.answer(values["output"]) == ("1" if left == right else "0")


@pytest.mark.parametrize(
    ("variable", "predicted"),
    [("w", 1), ("y", 0), ("left_equality", 1), ("right_equality", 0), ("output", 1)],
)
def test_counterfactuals_are_those_worked_out_by_hand(variable: str, predicted: int) -> None:
    base = {"w": 1, "x": 2, "y": 3, "z": 3}  # left false, right true: 0
    source = {
        "w": 2,
        "x": 2,
        "y": 5,
        "z": 5,
    }  # left true, right true: 1; its w is the base's x, its y is not the base's z
    if variable == "y":
        assert problem().model.interchange(base, {"y": source}) == 1  # both are false then
        return
    assert problem().model.interchange(base, {variable: source}) == predicted


def test_a_row_is_the_four_vectors_and_nothing_else_is_a_position() -> None:
    asked = problem(symbols=5, dimensions=3)
    shown = asked.render(asked.model.run({"w": 4, "x": 0, "y": 2, "z": 2}))
    assert shown.stimulus is not None
    assert (shown.stimulus.shape, shown.positions, asked.positions) == ((12,), (), ())
    of = vectors(5, 3)
    assert shown.stimulus.numbers == pytest.approx(
        [n for symbol in (4, 0, 2, 2) for n in of[symbol]]
    )
    assert shown.values["left_equality"] is False


def test_the_vectors_are_always_the_same_and_none_is_near_another() -> None:
    assert vectors(20, 2)[:5] == vectors(5, 2)
    for dimensions in (2, 4):
        of = vectors(20, dimensions)
        apart = [
            sum(abs(a - b) for a, b in zip(v, w, strict=True)) for v in of for w in of if v is not w
        ]
        assert min(apart) >= NEAREST
        assert all(-1 <= n <= 1 for v in of for n in v)


def test_the_sampler_is_balanced_and_its_inputs_are_independent() -> None:
    asked, rng = problem(), random.Random("balanced")
    drawn = [tuple(asked.model.run(side) for side in asked.sample(rng)) for _ in range(4000)]
    for name in ("left_equality", "right_equality", "output"):
        for side in (0, 1):
            assert 0.47 <= sum(bool(pair[side][name]) for pair in drawn) / 4000 <= 0.53
        assert 0.47 <= sum(base[name] != source[name] for base, source in drawn) / 4000 <= 0.53
    kinds = [asked.set_of(*pair) for pair in drawn] if asked.set_of else []
    assert all(900 <= kinds.count(kind) <= 1100 for kind in ("left", "right", "both", "neither"))


def test_the_pairs_tell_the_variables_apart_and_none_stands_in_two_splits(
    pairs: tuple[Pair, ...],
) -> None:
    assert min(differing_shares([p.counterfactual for p in pairs], VARIABLES).values()) > 0.4
    many = draw_pairs(
        problem(symbols=2, dimensions=1), ("w",), {"test": 200, "fit": 100, "holdout": 50}, 0
    )
    splits: dict[tuple[str, str], set[str]] = {}
    for pair in many:
        splits.setdefault((pair.base.content, pair.sources["source"].content), set()).add(
            pair.split
        )
    assert max(map(len, splits.values())) == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"symbols": 1}, "symbols: got 1; it must be a whole number from 2 to 1000"),
        ({"symbols": 2.5}, "symbols: got 2.5"),
        (
            {"symbols": 10**9},
            "symbols: got 1000000000; it must be a whole number from 2 to 1000, such as 20",
        ),
        (
            {"dimensions": 10**9},
            "dimensions: got 1000000000; it must be a whole number from 1 to 100, such as 4",
        ),
        ({"dimensions": 0}, "dimensions: got 0; it must be a whole number from 1 to 100"),
        (
            {"symbols": 50, "dimensions": 1},
            "symbols: 50 vectors of 1 dimensions have no room 0.2 apart",
        ),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, int], says: str) -> None:
    with pytest.raises(CausalModelError, match=says):
        problem(**options)


@pytest.mark.parametrize(("factory", "dimensions"), [("handcrafted", 2), ("trained", 4)])
def test_the_models_solve_the_problem(factory: str, dimensions: int) -> None:
    model, asked, rng = (
        load_module(ModelSource(f"{MODELS}:{factory}", is_factory=True)).module,
        problem(dimensions=dimensions),
        random.Random(1),
    )
    settings = [asked.model.run(asked.sample(rng)[0]) for _ in range(2000)]
    rows = [asked.render(s).stimulus for s in settings]
    with torch.inference_mode():
        answers = model(torch.tensor([row.numbers for row in rows if row is not None])).argmax(1)
    right = (
        sum(
            str(int(a)) == asked.answer(s["output"]) for a, s in zip(answers, settings, strict=True)
        )
        / 2000
    )
    assert right == 1.0 if factory == "handcrafted" else right >= 0.99


def test_the_trained_weights_are_under_two_megabytes() -> None:
    assert MODELS.with_suffix(".safetensors").stat().st_size < 2_000_000


def test_on_weights_written_by_hand_the_search_finds_just_the_truth(
    pairs: tuple[Pair, ...],
) -> None:
    """The golden test: IIA 1.00 for each comparison in its own four neurons; no other site carries
    it."""
    work = ReplicaSpec(ModelSource(f"{MODELS}:handcrafted", is_factory=True), pairs, (), VARIABLES)
    pool = LocalPool(work)
    opened = pool.open()
    (facts,) = opened.facts.components
    assert (facts.layers, facts.widths, opened.facts.path) == ((0, 1, 2), (8, 4, 2), "batched")
    space = HypothesisSpace(
        VARIABLES, (Grid("residual", (0,), (None,), ("last",), (Subspace(), LEFT, RIGHT)),)
    )
    splits = {p.index: p.split for p in pairs}
    expecteds = {e.index: expected_answers(e, splits[e.index]) for e in opened.encoded}
    plan = ScreeningPlan({"test": 400, "holdout": 64}, max_pairs=256, solved_only=True)
    search = Search(Exhaustive(space), MatchTest(0.8, 0.05, 0.05, len(space)), expecteds, plan)
    kept = Kept()
    drive(search, pool, kept, lambda _: None)
    decided = {
        (n.hypothesis.variable, n.hypothesis.intervention.units[0].subspace): n
        for n in kept.said
        if isinstance(n, Decided)
    }
    assert len(decided) == 9
    true = {("left_equality", LEFT), ("right_equality", RIGHT), ("output", Subspace())}
    for place, verdict in decided.items():
        assert verdict.verdict == ("accept" if place in true else "reject"), place
        if place in true:
            assert verdict.matches == verdict.n > 0
    estimated = [n for n in kept.said if isinstance(n, Estimated)]
    assert len(estimated) == 3
    assert all(n.matches == n.n > 0 for n in estimated)
