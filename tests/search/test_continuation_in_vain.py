"""Continuations that bring no further pair leave verdicts as they were, and say so; what is read
without intervention is of the pairs of the verdict."""

from dataclasses import replace

import pytest

from raysearch.core.records import Decided, Record
from raysearch.search.continuations import NO_FURTHER_PAIR
from raysearch.search.criteria import DecisionRule
from tests.search.test_continuation import continued, near, open_world
from tests.search.worlds import BASE, World

FIXED = DecisionRule(at_end=True, fixed_horizon=True, reserve=0.4)


class SolvesNothingFurther(World):
    """A world whose model answers all pairs but those that are added."""

    def solves(self, pair: int) -> bool:
        return not self.pairs[pair].added


def _undecided(notes: list[Record]) -> dict[str, list[Decided]]:
    made: dict[str, list[Decided]] = {}
    for note in notes:
        if isinstance(note, Decided):
            made.setdefault(note.hypothesis.id, []).append(note)
    return {name: of for name, of in made.items() if of[0].verdict == "undecided"}


@pytest.mark.parametrize("rule", [DecisionRule(), FIXED], ids=["open", "fixed"])
def test_without_a_further_pair_an_undecided_verdict_stays_and_says_why(rule: DecisionRule) -> None:
    world = SolvesNothingFurther(
        0, layers=7, test=30, max_pairs=30, more=(60, 70), rates=near, rule=rule
    )
    search, told, notes = continued(world, (40,))
    undecided = _undecided(notes)
    assert undecided
    for first, *later in undecided.values():
        assert later == [replace(first, reason=NO_FURTHER_PAIR)]
    assert search.done
    assert world.search(continued=True).tell(told) == notes


def test_a_later_continuation_that_brings_pairs_goes_on_from_there() -> None:
    class SolvesTheLast(World):
        def solves(self, pair: int) -> bool:
            return self.pairs[pair].added != 1

    world = SolvesTheLast(0, layers=7, test=30, max_pairs=30, more=(60, 70), rates=near, rule=FIXED)
    _, _, notes = continued(world)
    for first, second, third in _undecided(notes).values():
        assert (first.n, first.part) == (second.n, second.part)
        assert third.part == 2
        assert 0 < third.n <= 50
        assert third.reason is None


def test_what_is_right_without_intervention_is_read_on_the_pairs_of_the_verdict() -> None:
    rule = replace(FIXED, kinds="unfiltered")
    world = open_world(7, rule=rule)
    _, _, notes = continued(world, (40,))
    shares = set()
    for of in _undecided(notes).values():
        for decided, pairs in zip(of, (_pairs(world, 0)[:30], _pairs(world, 1)[:40]), strict=True):
            v = decided.hypothesis.variable
            right = sum(world.pairs[p].counterfactual[v] == (BASE,) for p in pairs)
            assert decided.no_intervention == right / len(pairs)
            shares.add((v, decided.no_intervention))
    assert len(shares) > 1, "the parts differ"


def _pairs(world: World, added: int) -> list[int]:
    return [p for p, e in world.pairs.items() if e.split == "test" and e.added == added]
