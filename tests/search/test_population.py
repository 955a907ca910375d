"""What a verdict is about: where test pairs come from, what is kept apart, and what the row says."""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysearch import CausalModel, Input, Problem, Setting, Variable
from raysearch.causal import PairSample, Split, draw_sample, split_of
from raysearch.core.events import Screened
from raysearch.core.population import SAMPLER, Population, about
from raysearch.errors import PairsError
from raysearch.job import Job
from raysearch.report.population_text import earlier_population, population_words
from raysearch.runner.resolution.resolved_job import population_of
from raysearch.search.pair_blocks import ExpectedAnswers
from raysearch.search.pair_filters import count_pairs
from raysearch.search.screening import Screening, ScreeningPlan
from tests.search.worlds import Cluster, World


def items(n: int, listed: bool = False) -> Problem:
    """Base and source are two different items, each two equally likely."""
    values = tuple(range(n))

    def sample(rng: random.Random) -> tuple[Setting, Setting]:
        a, b = rng.sample(values, 2)
        return {"x": a}, {"x": b}

    def domain() -> Iterator[tuple[Setting, Setting]]:
        return (({"x": a}, {"x": b}) for a in values for b in values if a != b)

    model = CausalModel(
        (Variable("x", values), Variable("y", values)), {"y": ("x",)}, {"y": lambda x: x}, "y"
    )
    render = lambda v: Input(f"item {v['x']}", values=v)  # noqa: E731
    return Problem("items", model, sample, render, str, (), domain=domain if listed else None)


def contents(sample: PairSample, split: Split) -> list[tuple[str, ...]]:
    return [p.contents for p in sample.pairs if p.split == split]


def test_where_nothing_is_trained_test_pairs_are_draws_of_the_whole_sampler() -> None:
    drawn = contents(draw_sample(items(4), ("x",), {"test": 2400, "holdout": 600}, 3), "test")
    counts = Counter(drawn)
    assert len(counts) == 12  # all ordered pairs of 4 items
    assert sum((n - 200) ** 2 / 200 for n in counts.values()) < 31.3  # chi², 11 df, p = .001


def test_fit_pairs_leave_a_part_of_a_small_domain_to_the_test_where_they_are_trained_on() -> None:
    counts: dict[Split, int] = {"fit": 500, "test": 500, "holdout": 100}
    sample = draw_sample(items(5), ("x",), counts, 0, trained=True)
    fit, test = set(contents(sample, "fit")), set(contents(sample, "test"))
    assert len(test) == 20  # a pair that may be trained on is left out later, if it is
    assert 0 < len(fit) < 20


def test_a_listed_domain_is_tested_as_a_whole_each_pair_once_in_an_order_of_the_seed() -> None:
    counts: dict[Split, int] = {"test": 80, "holdout": 20}
    samples = [draw_sample(items(5, True), ("x",), counts, s, listed=20) for s in (0, 1)]
    orders = [contents(s, "test") for s in samples]
    assert all(s.listed for s in samples)
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(set(orders[0]))
    assert len(orders[0]) == 20
    assert orders[0] != orders[1]
    larger = draw_sample(items(6, True), ("x",), counts, 0, listed=20)
    assert not larger.listed
    assert len(contents(larger, "test")) == 80


def test_a_list_that_has_a_pair_twice_is_refused() -> None:
    twice = replace(items(3), domain=lambda: [({"x": 0}, {"x": 1})] * 2)
    with pytest.raises(PairsError, match="list each once, or leave domain out"):
        draw_sample(twice, ("x",), {"test": 9}, 0, listed=9)


def test_held_out_values_are_counted_and_test_pairs_have_no_others() -> None:
    counts: dict[Split, int] = {"test": 200, "holdout": 100}
    sample = draw_sample(items(20), ("x",), counts, 5, disjoint=("x",))
    held = {f"item {x}" for x in range(20) if split_of((f"x={x!r}",), counts, 5) == "test"}
    assert sample.values == len(held)
    assert {c for pair in contents(sample, "test") for c in pair} == held


def screened(pairs: dict[int, ExpectedAnswers], plan: ScreeningPlan, solved: set[int]) -> Screening:
    screening = Screening(pairs, plan)
    while (task := screening.ask(0)) is not None:
        for b in task.blocks:
            base = tuple((0,) if p in solved else (9,) for p in b.pairs)
            sources = {"source": ((1,),) * len(b.pairs)}
            screening.tell(Screened(0, b.split, b.index, b.pairs, base, sources, 0, 0.0, "", "", 0))
    return screening


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(["fit", "test", "holdout"]), st.integers(0, 30))),
    st.sets(st.integers(0, 200)),
    st.booleans(),
    st.integers(1, 20),
)
def test_no_tested_pair_is_in_the_holdout_and_none_that_is_trained_on_is_tested(
    drawn: list[tuple[Split, int]], unsolved: set[int], trained: bool, max_pairs: int
) -> None:
    pairs = {
        i: ExpectedAnswers(split, (0,), {"source": (1,)}, {"x": (1,)}, contents=(str(content),))
        for i, (split, content) in enumerate(drawn)
    }
    wanted: dict[Split, int] = {"fit": 6, "test": 15, "holdout": 10}
    plan = ScreeningPlan(wanted, max_pairs, True, True, trained)
    screening = screened(pairs, plan, set(pairs) - unsolved)
    fit = {pairs[p].contents for p in screening.usable("fit")}
    test = {pairs[p].contents for b in screening.blocks("test") for p in b.pairs}
    holdout = {pairs[p].contents for p in screening.usable("holdout")}
    assert not holdout & test
    if trained:
        assert not fit & (test | holdout)
    solved = [p for p in pairs if p not in unsolved]
    free = [
        p for p in solved if pairs[p].split == "test" and not (trained and pairs[p].contents in fit)
    ]
    assert list(screening.usable("test")) == free[: wanted["test"]]  # and nothing else is lost
    for split in ("test", "holdout"):
        counted = [c for c in count_pairs(pairs, screening, True) if c.split == split]
        assert sum(c.pairs for c in counted) == sum(p.split == split for p in pairs.values())


def job(**keys: object) -> Job:
    test = {"claim": "sampler", **keys.pop("test", {})}  # type: ignore[dict-item]
    return Job.parse(
        {
            "name": "j",
            "model": {"path": "m"},
            "problem": {"use": "raysearch.problems.add_three"},
            "space": {"layers": [0], "components": ["residual"], **keys.pop("space", {})},  # type: ignore[dict-item]
            "test": test,
            **keys,
        }
    )


@pytest.mark.parametrize(
    ("keys", "sample", "population"),
    [
        ({}, PairSample(()), SAMPLER),
        ({}, PairSample((), listed=True), Population("sampler", fixed=True)),
        ({"test": {"claim": "these_pairs"}}, PairSample(()), Population("these_pairs", fixed=True)),
        ({"pairs": {"disjoint": ["a"]}}, PairSample((), values=7), Population("these_values", 7)),
        (
            {"space": {"subspaces": [{"das": [2]}]}},
            PairSample(()),
            Population("not_trained_on"),
        ),
        ({"problem": {"pairs": "p.jsonl"}}, PairSample(()), SAMPLER),
        (
            {"problem": {"pairs": "p.jsonl"}, "space": {"subspaces": [{"das": [2]}]}},
            PairSample(()),
            Population("test_part"),
        ),
    ],
)
def test_the_population_follows_from_the_job_and_how_its_pairs_were_drawn(
    keys: dict[str, object], sample: PairSample, population: Population
) -> None:
    assert population_of(job(**keys), sample) == population


@pytest.mark.parametrize("these_pairs", [False, True])
def test_every_verdict_names_its_population_with_its_size_where_it_is_finite(
    these_pairs: bool,
) -> None:
    world = World(2, these_pairs=these_pairs)
    verdicts = Cluster(world, 3, 1).drive(world.search()).verdicts.values()
    changing = {
        v: sum(p.changes(v) for p in world.pairs.values() if p.split == "test") for v in "vw"
    }
    for d in verdicts:
        name = "these_pairs" if these_pairs else "sampler"
        size = changing[d.hypothesis.variable] if these_pairs else None
        assert (d.population, d.population_size) == (name, size)
        assert d.distinct == d.n


def test_pairs_that_repeat_count_once_among_the_distinct_ones() -> None:
    world = World(2, test=60)
    pairs = {i: replace(p, contents=(str(i % 3),)) for i, p in world.pairs.items()}
    object.__setattr__(world, "pairs", pairs | {i: p for i, p in world.pairs.items() if i >= 60})
    verdicts = Cluster(world, 3, 1).drive(world.search()).verdicts.values()
    assert {d.distinct for d in verdicts if d.n > 12 and d.hypothesis.variable == "v"} == {3}


def test_a_population_is_told_in_words_with_its_screen() -> None:
    screen = "that the model solves on both sides and on which the variable changes the answer"
    assert about("sampler") == f"all pairs of this sampler {screen}"
    assert about("these_values", 16, ("x",)).startswith(
        "pairs of this sampler whose values of x are among the 16 held out for the test that"
    )
    assert about("sampler", None, (), "unfiltered", False) == "all pairs of this sampler"
    # The size is of what passed the screen, so that it stands behind it.
    assert about("these_pairs", 56).endswith(f"{screen} (56 in all)")


def test_a_run_of_before_has_the_population_that_its_pairs_were_drawn_from() -> None:
    sampler = {"test": {"claim": "sampler"}}
    assert earlier_population(sampler) == "test_part"
    assert earlier_population({**sampler, "pairs": {"disjoint": ["x"]}}) == "these_values"
    assert earlier_population({"test": {"claim": "these_pairs"}}) == "these_pairs"
    words = population_words(
        sampler, pa.table({"population": pa.nulls(1), "population_size": pa.nulls(1)})
    )
    assert "set apart for the test" in words
