"""What verdicts are about: change pairs, keep pairs too, or all; at every look or at the end; and
the kinds of pairs apart."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from raysearch.core.records import Decided
from raysearch.errors import PairsError
from raysearch.proposers.base import Exhaustive
from raysearch.search.criteria import Criterion, DecisionRule
from raysearch.search.pair_blocks import ExpectedAnswers
from raysearch.search.search import Search
from raysearch.stats.evidence import Evidence
from raysearch.stats.match_test import MatchTest
from raysearch.stats.power import power
from tests.search.worlds import BASE, Cluster, World

TEST = MatchTest(threshold=0.8, false_accept=0.05, miss=0.05)


def _run(world: World) -> Search:
    return Cluster(world, 2, 0).drive(world.search())


def _of(search: Search, variable: str) -> dict[int, Decided]:
    """Verdicts by layer."""
    found = (d for d in search.verdicts.values() if d.hypothesis.variable == variable)
    return {d.hypothesis.intervention.units[0].site.layer: d for d in found}


@given(
    s=st.integers(0, 40), f=st.integers(0, 40), keep_s=st.integers(0, 40), keep_f=st.integers(0, 40)
)
def test_both_accept_together_and_reject_each_at_half_the_miss(
    s: int, f: int, keep_s: int, keep_f: int
) -> None:
    change, keep = Evidence(s + f, s), Evidence(keep_s + keep_f, keep_s)
    half = replace(TEST, miss=0.025)
    got = Criterion(half, half).verdict(change, keep)
    ups, downs = zip(*(half.log_evidence(e) for e in (change, keep)), strict=True)
    if min(ups) >= np.log(1 / 0.05):
        assert got == "accept"
    elif max(downs) >= np.log(2 / 0.05):
        assert got == "reject"
    else:
        assert got is None


def test_a_swap_that_changes_what_it_should_leave_alone_is_accepted_by_change_pairs_and_rejected_by_both() -> (
    None
):
    rates = {
        "rates": lambda layer: 1.0,
        "spares": lambda layer: 1.0 if layer < 3 else 0.02,
        "test": 600,
        "max_pairs": 600,
    }
    by_change = _of(_run(World(**rates)), "v")  # type: ignore[arg-type]
    by_both = _of(_run(World(**rates, rule=DecisionRule("both"))), "v")  # type: ignore[arg-type]
    assert {d.verdict for d in by_change.values()} == {"accept"}
    assert [by_both[layer].verdict for layer in range(6)] == ["accept"] * 3 + ["reject"] * 3
    assert all(
        d.keep_n > 0 and d.keep_matches == d.keep_n for layer, d in by_both.items() if layer < 3
    )


def test_the_threshold_of_keep_pairs_may_be_another() -> None:
    rates = {
        "rates": lambda layer: 1.0,
        "spares": lambda layer: 0.6,
        "test": 2000,
        "max_pairs": 2000,
    }
    strict = _of(_run(World(**rates, rule=DecisionRule("both"))), "v")  # type: ignore[arg-type]
    lenient = _of(_run(World(**rates, rule=DecisionRule("both", keep_threshold=0.3))), "v")  # type: ignore[arg-type]
    assert {d.verdict for d in strict.values()} == {"reject"}
    assert {d.verdict for d in lenient.values()} == {"accept"}


def test_both_needs_pairs_that_the_variable_leaves_alone() -> None:
    world = World(rule=DecisionRule("both"))
    world.pairs = {
        i: ExpectedAnswers(e.split, e.base, e.sources, {**e.counterfactual, "v": (77,)})
        for i, e in world.pairs.items()
    }
    with pytest.raises(PairsError, match="pairs that 'v' leaves alone"):
        _run(world)


def test_unfiltered_counts_every_pair_alike() -> None:
    world = World(rule=DecisionRule("unfiltered", at_end=True))
    search = _run(world)
    used = search.screening.usable("test")
    for layer, d in _of(search, "v").items():
        outputs = [world.output(d.hypothesis.intervention, p) for p in used]
        assert d.n == len(used), layer
        assert d.matches == sum(
            o == world.pairs[p].counterfactual["v"] for o, p in zip(outputs, used, strict=True)
        )
        assert d.keep_n == sum(world.pairs[p].counterfactual["v"] == (BASE,) for p in used)


@pytest.mark.parametrize("these_pairs", [False, True])
def test_at_the_end_every_hypothesis_has_seen_every_pair(these_pairs: bool) -> None:
    world = World(
        rule=DecisionRule(at_end=True),
        these_pairs=these_pairs,
        rates=lambda layer: (0.0, 1.0)[layer % 2],
    )
    search = _run(world)
    used = search.screening.usable("test")
    for variable in ("v", "w"):
        changing = sum(world.pairs[p].changes(variable) for p in used)
        assert {d.n for d in _of(search, variable).values()} == {changing}
    assert [_of(search, "v")[layer].verdict for layer in range(2)] == ["reject", "accept"]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    workers=st.integers(1, 5),
    kinds=st.sampled_from(["change", "both", "unfiltered"]),
)
def test_verdicts_under_every_rule_do_not_depend_on_the_cluster(
    seed: int, workers: int, kinds: str
) -> None:
    world = World(
        seed % 5, rule=DecisionRule(kinds, at_end=bool(seed % 2)), spares=lambda layer: 0.8
    )  # type: ignore[arg-type]
    still = Cluster(world, 1, 0).drive(world.search())
    wild = Cluster(world, workers, seed, lost=0.3, twice=0.3).drive(world.search())
    assert wild.verdicts == still.verdicts


def test_kinds_of_pairs_are_counted_apart_and_add_up() -> None:
    world = World(these_pairs=True)
    cluster = Cluster(world, 2, 0)
    cluster.drive(world.search())
    decided = [n for n in cluster.notes if isinstance(n, Decided)]
    assert any(d.sets for d in decided)
    for d in decided:
        wanted = Counter(
            world.pairs[p].set
            for p in _counted(world, d)
            if world.pairs[p].changes(d.hypothesis.variable)
        )
        assert {s.name: s.n for s in d.sets} == {
            name: n for name, n in wanted.items() if name is not None
        }
        assert sum(s.matches for s in d.sets) <= d.matches <= d.n
        assert d.n - sum(s.n for s in d.sets) == wanted[None]


def _counted(world: World, decided: Decided) -> list[int]:
    """The pairs that were counted for a hypothesis: the first that hold its n change pairs."""
    counted, n = [], 0
    for pair in (p for p, e in world.pairs.items() if e.split == "test"):
        if n == decided.n:
            break
        counted.append(pair)
        n += world.pairs[pair].changes(decided.hypothesis.variable)
    return counted


@pytest.mark.parametrize("iia", [0.0, 0.6, 0.8, 1.0])
def test_the_chances_of_a_test_at_the_end_are_those_of_one_binomial(iia: float) -> None:
    got = power(TEST, iia, 64, at_end=True)
    verdicts = [TEST.verdict(Evidence(64, s)) for s in range(65)]
    chances = binom.pmf(np.arange(65), 64, iia)
    assert got.accept == pytest.approx(
        sum(c for c, v in zip(chances, verdicts, strict=True) if v == "accept")
    )
    assert got.reject == pytest.approx(
        sum(c for c, v in zip(chances, verdicts, strict=True) if v == "reject")
    )
    assert got.pairs == pytest.approx(64)


def test_of_no_pairs_nothing_is_said() -> None:
    assert replace(TEST, population=0).verdict(Evidence()) is None


@pytest.mark.parametrize("these_pairs", [False, True])
@pytest.mark.parametrize("kinds", ["change", "both", "unfiltered"])
def test_every_verdict_follows_from_its_counts_by_the_tests_written_out_here(
    kinds: str, these_pairs: bool
) -> None:
    """Populations, halves of the miss and intervals, for hypotheses near both thresholds."""
    thresholds = {"change": 0.8, "keep": 0.6}
    seen: set[str] = set()
    for seed in range(4):
        rule = DecisionRule(kinds, keep_threshold=0.6 if kinds == "both" else None)  # type: ignore[arg-type]
        world = World(
            seed,
            rule=rule,
            these_pairs=these_pairs,
            rates=lambda at: 0.7 + 0.06 * at,
            spares=lambda at: 0.2 * at,
        )
        search = _run(world)
        used = [world.pairs[p] for p in search.screening.usable("test")]
        for d in search.verdicts.values():
            changing = sum(e.changes(d.hypothesis.variable) for e in used)
            counts = {
                "change": Evidence(d.n, d.matches),
                "keep": Evidence(d.keep_n, d.keep_matches),
            }
            population = {
                "change": len(used) if kinds == "unfiltered" else changing,
                "keep": len(used) - changing,
            }
            judged = ("change", "keep") if kinds == "both" else ("change",)
            tests = {
                of: MatchTest(
                    thresholds[of],
                    0.05,
                    0.05 / len(judged),
                    len(world.space),
                    population=population[of] if these_pairs else None,
                )
                for of in judged
            }
            said = [tests[of].verdict(counts[of]) for of in judged]
            rejected, accepted = "reject" in said, set(said) == {"accept"}
            assert d.verdict == ("reject" if rejected else "accept" if accepted else "undecided"), (
                d,
                said,
            )
            assert (d.low, d.high) == tests["change"].interval(counts["change"])
            ups, downs = zip(*(tests[of].log_evidence(counts[of]) for of in judged), strict=True)
            told = {
                "accept": min(ups),
                "reject": max(downs),
                "undecided": max(min(ups), max(downs)),
            }
            assert d.log_evidence == told[d.verdict]
            seen.add(d.verdict)
    assert "reject" in seen


class OpenEnded(Exhaustive):
    """The whole space too, but no K: each hypothesis is judged by a standard of its own."""

    max_hypotheses = None  # type: ignore[assignment]


@pytest.mark.parametrize("make", [Exhaustive, OpenEnded])
@pytest.mark.parametrize("these_pairs", [False, True])
@pytest.mark.parametrize("kinds", ["change", "unfiltered"])
def test_the_interval_of_a_kind_of_pair_is_that_of_its_pairs_alone(
    kinds: str, these_pairs: bool, make: type[Exhaustive]
) -> None:
    world = World(rule=DecisionRule(kinds), these_pairs=these_pairs)  # type: ignore[arg-type]
    search = Cluster(world, 3, seed=0).drive(world.search(make(world.space)))
    # all are of the first generation, which an open-ended proposer's has a part of the pairs for
    used = [world.pairs[p] for p in search.screening.parts[0].pairs]
    for d in search.verdicts.values():
        counting = Counter(
            e.set for e in used if kinds == "unfiltered" or e.changes(d.hypothesis.variable)
        )
        for s in d.sets:
            test = replace(TEST, population=counting[s.name] if these_pairs else None)
            assert (s.low, s.high) == test.interval(Evidence(s.n, s.matches))
