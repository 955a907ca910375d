"""What follows a verdict: how many holdout pairs an estimate uses, its interval, and when its controls
stop."""

import math
import random
from dataclasses import dataclass, replace
from functools import cached_property

import pytest
from scipy.stats import binom

from raysearch.causal import Split
from raysearch.core.control_kinds import HOLDOUT_CONTROLS
from raysearch.core.controls import swaps_nothing
from raysearch.core.events import Measured
from raysearch.core.hypothesis import Intervention, Site, Subspace, Unit
from raysearch.core.records import Estimated
from raysearch.search.criteria import DecisionRule
from raysearch.search.holdout import ALIKE
from raysearch.search.pair_blocks import HOLDOUT_BLOCK, ExpectedAnswers
from raysearch.search.search import Search
from raysearch.stats.clopper_pearson import clopper_pearson, pairs_for_width
from raysearch.stats.paired_test import PairedTest
from tests.search.sick import Sick, sick_of
from tests.search.test_retry import retry, told_again
from tests.search.worlds import BASE, Cluster, World

HIGH = lambda layer: (0.9, 0.95, 0.98, 1.0)[layer % 4]  # noqa: E731


@dataclass
class Controlled(World):
    """Controls answer as the base at `control`, else as the hypothesis does; both variables expect
    the same on most pairs, so that one intervention is accepted for both.

    `held_out`: another seed of outputs on the holdout.
    """

    control: float = 1.0
    held_out: int = 0

    @cached_property
    def other(self) -> World:
        return replace(self, seed=self.held_out, held_out=0)

    def _expected(self, pair: int, split: Split) -> ExpectedAnswers:
        found = super()._expected(pair, split)
        v = found.counterfactual["v"]
        return replace(found, counterfactual={"v": v, "w": (BASE,) if pair % 7 == 0 else v})

    def output(self, intervention: Intervention, pair: int) -> tuple[int, ...]:
        plain = replace(intervention, control=None)
        if intervention.control not in HOLDOUT_CONTROLS:
            if self.pairs[pair].split == "holdout" and self.held_out:
                return self.other.output(intervention, pair)
            return super().output(intervention, pair)
        if random.Random(f"{self.seed}.{pair}.{plain.id}").random() < self.control:
            return (BASE,)
        return self.output(plain, pair)


def world_of(seed: int = 1, **given: object) -> Controlled:
    usual = {"layers": 4, "rates": HIGH, "holdout": 240, "test": 240, "max_pairs": 240}
    return Controlled(seed, **{**usual, **given})  # type: ignore[arg-type]


def driven(world: World, workers: int = 3, seed: int = 0, **of: float) -> tuple[Search, Cluster]:
    cluster = Cluster(world, workers, seed, **of)  # type: ignore[arg-type]
    return cluster.drive(world.search()), cluster


def reading(estimate: Estimated, name: str) -> tuple[int, int]:
    return next((r.n, r.matches) for r in estimate.readings if r.name == name)


def counting(world: World, variable: str) -> list[int]:
    """How many pairs that count the first 1, 2, ... holdout blocks have."""
    pairs = [e.changes(variable) for e in world.pairs.values() if e.split == "holdout"]
    ends = range(HOLDOUT_BLOCK, len(pairs) + HOLDOUT_BLOCK, HOLDOUT_BLOCK)
    return [sum(pairs[:end]) for end in ends]


def test_an_estimate_uses_the_blocks_that_its_width_needs_by_the_test_pairs_alone() -> None:
    world = world_of(rule=DecisionRule(holdout_width=0.06))
    other = replace(world, held_out=77)
    search, _ = driven(world)
    again, _ = driven(other)
    assert len(search.estimates) >= 6
    assert {e.matches for e in search.estimates.values()} != {
        e.matches for e in again.estimates.values()
    }
    for name, estimate in search.estimates.items():
        assert again.estimates[name].n == estimate.n, "what the holdout gives does not matter"
        decided, counts = search.verdicts[name], counting(world, estimate.hypothesis.variable)
        needed = pairs_for_width(decided.n, decided.matches, 0.06, counts[-1])
        assert estimate.n == next(n for n in counts if n >= needed)
        assert (estimate.low, estimate.high) == clopper_pearson(estimate.n, estimate.matches)


def test_a_width_of_0_uses_every_pair_and_a_ceiling_is_one() -> None:
    for rule, holdout in ((DecisionRule(holdout_width=0), 240), (DecisionRule(), 30)):
        world = world_of(rule=rule, holdout=holdout)
        search, _ = driven(world)
        assert search.estimates
        for estimate in search.estimates.values():
            assert estimate.n == counting(world, estimate.hypothesis.variable)[-1]


def test_a_control_stops_at_the_first_block_at_which_it_is_decided() -> None:
    """Told from the events alone: after that block no more is asked for, before it more is."""
    for control in (1.0, 0.5, 0.0):
        world = world_of(control=control)
        search, cluster = driven(world, 1)
        seen = {
            (e.intervention, e.block): e
            for e in reversed(cluster.told)
            if isinstance(e, Measured) and e.split == "holdout"
        }
        for estimate in search.estimates.values():
            h, variable = estimate.hypothesis, estimate.hypothesis.variable
            name = replace(h.intervention, control="random_source").id
            differences: list[float] = []
            counts = counting(world, variable)
            for block, count in enumerate(counts):
                assert (name, block) in seen, (block, differences)
                ours, theirs = (seen[i, block] for i in (h.intervention.id, name))
                for pair, one, two in zip(ours.pairs, ours.outputs, theirs.outputs, strict=True):
                    e = world.pairs[pair]
                    if e.changes(variable):
                        wanted = e.counterfactual[variable]
                        differences.append(float(one == wanted) - float(two == wanted))
                low, high = PairedTest().interval(differences)
                if low > 0 or high <= ALIKE * 0.05 or count == estimate.n:
                    break
            assert reading(estimate, "random_source")[0] == len(differences)
        mean = sum(reading(e, "random_source")[0] for e in search.estimates.values())
        mean /= len(search.estimates)
        assert mean <= 14 if control == 1 else mean <= 30 if control else 45 <= mean <= 90


def test_a_plain_self_swap_is_what_screening_saw_and_is_never_run() -> None:
    world = world_of(rule=DecisionRule("unfiltered"))
    search, cluster = driven(world)
    swaps = {
        replace(e.hypothesis.intervention, control="self_swap").id
        for e in search.estimates.values()
    }
    assert swaps
    assert not [e for e in cluster.told if isinstance(e, Measured) and e.intervention in swaps]
    for estimate in search.estimates.values():
        used = [e for e in world.pairs.values() if e.split == "holdout"][: estimate.n]
        wanted = estimate.hypothesis.variable
        base = sum(e.counterfactual[wanted] == (BASE,) for e in used)
        assert reading(estimate, "self_swap") == (estimate.n, base), "the base's own answer"


def test_a_self_swap_that_rounds_or_has_a_score_is_measured() -> None:
    def swap(unit: Unit) -> bool:
        return swaps_nothing(Intervention((Unit(Site(0, "residual", "last")), unit)))

    site, elsewhere = Site(1, "residual", "last"), Site(2, "residual", "last")
    assert swap(Unit(site))
    assert swap(Unit(site, Subspace("identity", coordinates=(3,))))
    assert swap(Unit(site, source_site=site))
    assert not swap(Unit(site, source_site=elsewhere))
    assert not swap(Unit(site, Subspace("pca", 3)))
    rule = DecisionRule(score="probability")
    world = world_of(scores=("probability",), rule=rule, holdout=120, layers=2, control=0.9)
    search, cluster = driven(world)
    measured = {e.intervention for e in cluster.told if isinstance(e, Measured)}
    assert search.estimates
    for estimate in search.estimates.values():
        swapped = replace(estimate.hypothesis.intervention, control="self_swap")
        assert swapped.id in measured
        assert estimate.score is not None
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.low < estimate.score < estimate.high


@pytest.mark.slow_unless(seed=range(3))
@pytest.mark.parametrize("seed", range(6))
def test_estimates_do_not_depend_on_workers_order_losses_or_repeats(seed: int) -> None:
    """Two variables share interventions, with widths of their own: trials close, and are joined."""
    world = world_of(seed, control=0.6, holdout=120)
    calm, _ = driven(world, 1)
    assert len(calm.estimates) >= 6
    wild, cluster = driven(world, 5, seed, lost=0.3, twice=0.4)
    assert wild.estimates == calm.estimates
    replayed = world.search()
    for event in cluster.told:
        replayed.tell([event])
    assert replayed.done
    assert replayed.estimates == calm.estimates


@pytest.mark.parametrize("seed", range(3))
def test_an_estimate_that_was_tried_again_is_as_if_it_had_never_failed(seed: int) -> None:
    world = world_of(seed, control=0.6, holdout=120)
    calm, _ = driven(world, 1)
    sick = Sick(world, 3, seed, sick=sick_of(world, random.Random(seed)), shaky=0.6)
    search = sick.drive(world.search())
    assert search.failed.estimates
    again = told_again(world, sick.told)
    retry(again)
    Cluster(world, 3, seed).drive(again)
    assert again.estimates == calm.estimates


def test_few_pairs_are_run_that_nothing_counts() -> None:
    """A task of a single estimate runs no further than the width needs, a control's no further than
    a block."""
    world = world_of(layers=1, rates=lambda layer: 1.0)
    search, cluster = driven(world, 1)
    used: dict[str, int] = {}
    for estimate in search.estimates.values():
        counts = counting(world, estimate.hypothesis.variable)
        for name, n in (
            (None, estimate.n),
            ("random_source", reading(estimate, "random_source")[0]),
        ):
            key = replace(estimate.hypothesis.intervention, control=name).id
            used[key] = max(used.get(key, 0), counts.index(n) + 1)
    run = [e for e in cluster.told if isinstance(e, Measured) and e.split == "holdout"]
    assert len(run) == sum(used.values())


# --- the interval


def test_the_interval_covers_every_share_and_is_as_scipy_has_it() -> None:
    for n in (1, 2, 7, 8, 40, 97):
        ends = [clopper_pearson(n, s) for s in range(n + 1)]
        for s, (low, high) in enumerate(ends):
            assert s == 0 or math.isclose(binom.sf(s - 1, n, low), 0.025)
            assert s == n or math.isclose(binom.cdf(s, n, high), 0.025)
        for share in [k / 50 for k in range(51)]:
            chances = binom.pmf(range(n + 1), n, share)
            covered = sum(
                c for c, (low, high) in zip(chances, ends, strict=True) if low <= share <= high
            )
            assert covered >= 0.95 - 1e-9, (n, share)


def test_the_pairs_for_a_width_are_the_fewest() -> None:
    for n, total in ((60, 60), (97, 95), (40, 30), (8, 4), (20, 17.5)):
        needed = pairs_for_width(n, total, 0.05, 1000)
        for pairs in range(1, needed + 1):
            low, high = clopper_pearson(pairs, math.floor(pairs * (total + 1) / (n + 2)))
            assert ((high - low) / 2 <= 0.05) == (pairs == needed)
        assert pairs_for_width(n, total, 0.05, needed - 5) == needed - 5
        assert pairs_for_width(n, total, 0.0, 333) == 333
    assert pairs_for_width(3, 2, 0.05, 0) == 0
