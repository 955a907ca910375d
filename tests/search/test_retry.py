"""Failures that are tried again: with workers that are well they come to what a search came to that
never failed."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysearch.core.events import JournalledEvent, Measured, Retried, Task
from raysearch.core.hypothesis import Subspace
from raysearch.core.records import Counted, Decided, Proposed
from raysearch.proposers.base import Proposer
from raysearch.proposers.refine import Refine
from raysearch.search.search import Search
from tests.search.sick import Sick, sick_of
from tests.search.worlds import Cluster, World

DAS = (Subspace("das", 2), Subspace("das", 4), Subspace("pca", 3))
CONTROLS = ("random_subspace", "placebo")


def told_again(
    world: World, told: Sequence[JournalledEvent], proposer: Proposer | None = None
) -> Search:
    """A new search that was told all this, as a replay does."""
    search = world.search(proposer)
    for number, event in enumerate(told, start=1):
        search.tell([event])
        if number % 3 == 0 or number == len(told):
            search.validate()
    return search


def retry(search: Search) -> Retried:
    """Tries what failed again."""
    retried = search.failed
    assert not search.tell([retried]), "it is an answer to nothing"
    search.validate()
    assert search.failed.is_empty
    return retried


def outcome(search: Search) -> Mapping[str, object]:
    return {**search.verdicts, **{f"estimate {k}": v for k, v in search.estimates.items()}}


def failed(search: Search) -> set[str]:
    return {name for name, d in search.verdicts.items() if d.verdict == "failed"}


WORLDS = {
    "swaps": World(
        3, rates=lambda layer: (0.74, 0.78, 0.8, 0.82, 0.86, 0.95)[layer % 6], controls=("placebo",)
    ),
    "these pairs": World(4, these_pairs=True, rates=lambda layer: (0.0, 0.7, 0.8, 0.9)[layer % 4]),
    "fits": World(
        5,
        layers=3,
        subspaces=DAS,
        fit=24,
        rungs=(),
        controls=CONTROLS,
        rates=lambda x: (0.5, 0.9, 1.0)[x],
    ),
    "one seed": World(
        7, layers=3, subspaces=DAS, fit=24, rungs=(), seeds=(0,), rates=lambda x: (0.5, 0.9, 1.0)[x]
    ),
}


@cache
def never_failed(kind: str) -> Mapping[str, object]:
    world = WORLDS[kind]
    return outcome(Cluster(world, 1, 0).drive(world.search()))


@pytest.mark.slow_unless(kind=["swaps", "fits"])
@pytest.mark.parametrize("kind", WORLDS)
@settings(max_examples=3, deadline=None)
@given(
    seed=st.integers(0, 10_000), cut=st.one_of(st.just(1.0), st.floats(0.2, 1)), dies=st.booleans()
)
def test_what_failed_comes_to_the_verdicts_of_a_search_that_never_failed(
    kind: str, seed: int, cut: float, dies: bool
) -> None:
    """Whether the first search came to its end or was cut off; the first retry may meet the same
    sickness, of fewer.

    Of several seeds one may have failed when a search is cut off: what is left of them is fit, and
    no hypothesis has failed.
    """
    cut = 1.0 if kind == "fits" else cut
    world, rng = WORLDS[kind], random.Random(seed)
    wanted = never_failed(kind)
    sick = sick_of(world, rng)
    first = Sick(world, 3, seed, lost=0.1, twice=0.2, sick=sick, dies=dies, shaky=0.4)
    first.drive(world.search())
    told: list[JournalledEvent] = [*first.told[: int(cut * len(first.told))]]
    notes = world.search().tell(told)
    still_sick = dict(rng.sample(sorted(sick.items()), len(sick) // 2))
    for worse, shaky in ((still_sick, 0.2), ({}, 0.0)):
        search = told_again(world, told)
        told += [] if search.failed.is_empty else [retry(search)]
        cluster = Sick(world, rng.randrange(1, 5), seed + 1, sick=worse, dies=dies, shaky=shaky)
        cluster.drive(search)
        told += cluster.told
        notes += cluster.notes
    assert outcome(search) == wanted
    assert search.failed.is_empty
    replayed = world.search()
    assert replayed.tell(told) == notes
    assert outcome(replayed) == wanted
    assert replayed.done
    assert replace(replayed.snapshot(), queued=0) == search.snapshot(), (
        "stretches that nobody asks for any more apart"
    )
    assert max(Counter(n.hypothesis.id for n in notes if isinstance(n, Proposed)).values()) == 1
    assert max(Counter(n.observation.key for n in notes if isinstance(n, Counted)).values()) == 1


def test_evidence_that_was_counted_is_not_drawn_again() -> None:
    world = WORLDS["swaps"]
    culprit = next(h.intervention for h in world.space if h.intervention.units[0].site.layer == 3)
    first = Sick(world, 2, 0, sick={culprit.id: 3})
    ended = first.drive(world.search())
    partial = next(d for d in ended.verdicts.values() if d.verdict == "failed")
    assert partial.n > 0
    search = told_again(world, first.told)
    retry(search)
    again = Cluster(world, 2, 1)
    again.drive(search)
    blocks = {
        e.block
        for e in again.told
        if isinstance(e, Measured) and (e.intervention, e.split) == (culprit.id, "test")
    }
    assert min(blocks) == 3
    assert search.verdicts[partial.hypothesis.id].n > partial.n


def test_what_fails_for_good_fails_again_and_the_search_ends() -> None:
    world = WORLDS["fits"]
    sick = sick_of(world, random.Random(1))
    first = Sick(world, 3, 1, sick=sick)
    ended = first.drive(world.search())
    search = told_again(world, first.told)
    counts = search.snapshot()
    retry(search)
    assert search.snapshot().failed == 0
    assert search.snapshot().alive == counts.failed
    again = Sick(world, 3, 2, sick=sick)
    again.drive(search)
    assert failed(search) == failed(ended)
    assert search.snapshot().failed == counts.failed
    decided = Counter(n.hypothesis.id for n in again.notes if isinstance(n, Decided))
    assert decided == Counter(failed(ended))


@pytest.mark.slow
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10_000), warm=st.booleans(), cut=st.floats(0.3, 1))
def test_fits_that_race_and_begin_within_each_other_are_tried_again_to_an_end(
    seed: int, warm: bool, cut: float
) -> None:
    """What is not tried again stays as it was; every race is closed."""
    world = replace(WORLDS["fits"], rungs=(10, 20), warm_start=warm)
    rng = random.Random(seed)
    first = Sick(world, 3, seed, sick=sick_of(world, rng), shaky=0.3)
    first.drive(world.search())
    told: list[JournalledEvent] = [*first.told[: int(cut * len(first.told))]]
    search = told_again(world, told)
    before = {name: d for name, d in search.verdicts.items() if d.verdict != "failed"}
    retried = [] if search.failed.is_empty else [retry(search)]
    cluster = Cluster(world, 3, seed + 1)
    cluster.drive(search)
    assert search.failed.is_empty
    assert {name: search.verdicts[name] for name in before} == before
    assert set(search.verdicts) >= {h.id for h in world.space}
    replayed = told_again(world, [*told, *retried, *cluster.told])
    assert outcome(replayed) == outcome(search)


def test_a_proposer_that_fell_silent_is_asked_again_with_what_came_of_the_retry() -> None:
    """Refine looks between the layers that it knows: a failed one hid an edge."""
    world = World(1, layers=9, rates=lambda layer: 1.0 if layer >= 4 else 0.0)
    proposer = Refine(world.space, step=4)
    whole = Cluster(world, 2, 0)
    wanted = whole.drive(world.search(proposer)).verdicts
    sick = {
        h.intervention.id: 0 for h in world.space if h.intervention.units[0].site.layer in (4, 8)
    }
    first = Sick(world, 2, 0, sick=sick)
    ended = first.drive(world.search(proposer))
    assert len(ended.verdicts) < len(wanted)
    search = told_again(world, first.told, proposer)
    assert search.done
    retry(search)
    assert not search.done
    again = Cluster(world, 2, 1)
    again.drive(search)
    assert search.verdicts == wanted
    generations = {
        n.hypothesis.id: n.generation
        for n in (*first.notes, *again.notes)
        if isinstance(n, Proposed)
    }
    assert generations == {
        n.hypothesis.id: n.generation for n in whole.notes if isinstance(n, Proposed)
    }


def test_an_estimate_that_broke_off_is_made_whole_and_one_that_comes_later_with_it() -> None:
    """v is accepted, its estimate comes to nothing, w fails on the same intervention."""
    world = World(6, layers=1, rates=lambda layer: 0.5, threshold=0.1)
    still = Cluster(world, 1, 0).drive(world.search())
    assert {d.verdict for d in still.verdicts.values()} == {"accept"}
    stops = sorted(d.n + d.keep_n for d in still.verdicts.values())
    assert stops[0] < stops[1], "one of them is accepted a block earlier"
    blocks = still.screening.blocks("test")
    name = next(iter(world.space)).intervention.id

    @dataclass
    class OnHoldout(Sick):
        def _begins(self, key: str, task: Task) -> int | None:
            return 0 if task.kind == "estimate" and key == name else super()._begins(key, task)

    reached = next(
        i for i in range(len(blocks)) if sum(len(b.pairs) for b in blocks[: i + 1]) == stops[0]
    )
    first = OnHoldout(world, 1, 0, sick={name: reached + 1})
    ended = first.drive(world.search())
    (accepted,) = [d for d in ended.verdicts.values() if d.verdict == "accept"]
    assert ended.estimates[accepted.hypothesis.id].n == 0
    search = told_again(world, first.told)
    retried = retry(search)
    assert retried.estimates == (accepted.hypothesis.id,)
    assert len(retried.hypotheses) == 1
    Cluster(world, 1, 1).drive(search)
    assert outcome(search) == outcome(still)


def test_only_what_failed_can_be_tried_again() -> None:
    world = WORLDS["swaps"]
    cluster = Cluster(world, 1, 0)
    search = cluster.drive(world.search())
    assert search.failed == Retried((), (), ())
    fine = next(iter(search.verdicts))
    with pytest.raises(AssertionError, match="is not failed"):
        search.tell([Retried((fine,), (), ())])
