"""Later generations: fresh pairs for what was chosen by verdicts, and the level that it spends."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysearch.core.hypothesis import Hypothesis, Intervention, Site, Unit
from raysearch.core.records import Counted, Proposed
from raysearch.errors import SearchFailedError
from raysearch.proposers import generations
from raysearch.proposers.base import AlphaSpending, History, Proposer
from raysearch.proposers.generations import Generations
from raysearch.search.judge import NO_PAIRS_LEFT
from raysearch.search.pair_blocks import deal
from tests.search.worlds import Cluster, World


class Batches(Proposer):
    """Proposes hypotheses of a space in generations of given sizes."""

    name = "batches"
    max_hypotheses: int | None = None

    def __init__(self, space: Iterable[Hypothesis], sizes: list[int], k: int | None = None) -> None:
        self._left = list(space)
        self._sizes = sizes
        self.max_hypotheses = k

    def propose(self, known: History) -> list[Hypothesis]:
        start = sum(self._sizes[: known.generations])
        return self._left[start : start + sum(self._sizes[known.generations :][:1])]


def seen_by_generation(cluster: Cluster) -> list[set[int]]:
    """The pairs that the hypotheses of each generation were tested on."""
    of = {
        n.hypothesis.intervention.key: n.generation
        for n in cluster.notes
        if isinstance(n, Proposed)
    }
    found: dict[int, set[int]] = {}
    for note in cluster.notes:
        if isinstance(note, Counted) and note.observation.split == "test":
            found.setdefault(of[note.observation.intervention], set()).update(
                note.observation.pairs
            )
    return [found.get(g, set()) for g in range(max(of.values()) + 1)]


@given(st.integers(0, 10**6), st.integers(1, 5), st.sampled_from([8, 64]))
def test_no_generation_is_tested_on_a_pair_of_an_earlier_one_whatever_is_lost_or_repeated(
    seed: int, workers: int, rows: int
) -> None:
    world = World(seed % 5, layers=4, test=400, max_pairs=60, rows=rows)
    wanted = None
    for chaos in (seed, seed + 1):
        cluster = Cluster(world, workers, chaos)
        search = cluster.drive(world.search(Batches(world.space, [2, 2, 4])))
        search.validate()
        parts = seen_by_generation(cluster)
        assert len(parts) == 3
        assert all(parts)
        assert not parts[0] & parts[1]
        assert not (parts[0] | parts[1]) & parts[2]
        assert wanted in (None, search.verdicts)
        wanted = search.verdicts


def test_a_hypothesis_for_which_no_pairs_are_left_is_undecided_and_says_so() -> None:
    world = World(1, layers=8, test=30, max_pairs=30)
    search = Cluster(world, 2, 0).drive(world.search(Batches(world.space, [2] * 8)))
    last = [d for d in search.verdicts.values() if d.reason]
    assert {(d.verdict, d.n, d.reason) for d in last} == {("undecided", 0, NO_PAIRS_LEFT)}
    assert 0 < len(last) < len(search.verdicts)


@given(st.lists(st.integers(1, 500), max_size=40))
def test_all_generations_together_spend_no_more_than_the_level(sizes: list[int]) -> None:
    spending = AlphaSpending(Batches([], sizes))
    spent = 0.0
    at = 0
    for size in sizes:
        new = [_at(at + i) for i in range(size)]
        at += size
        spending.enter(new)
        spent += sum(1 / (spending.of(h) or 1) for h in new)
        assert len({spending.of(h) for h in new}) == 1
    assert spent <= 1 + 1e-9


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_a_single_generation_of_any_size_spends_half_of_the_level(size: int) -> None:
    spending = AlphaSpending(Batches([], [size]))
    new = [_at(i) for i in range(size)]
    spending.enter(new)
    assert {spending.of(h) for h in new} == {2 * size}


def test_only_proposals_after_verdicts_that_are_outside_of_the_space_need_pairs_of_their_own() -> (
    None
):
    declared = {_at(0).id, _at(1).id}
    spending = AlphaSpending(Batches([], [], k=10), declared)
    spending.enter([_at(0), _at(7)])
    spending.enter([_at(1), _at(8)])
    spending.enter([_at(9)])
    parts = {i: spending.part_of(_at(i)) for i in (0, 7, 1, 8, 9)}
    assert parts == {0: 0, 7: 0, 1: 0, 8: 1, 9: 2}
    assert spending.of(_at(8)) is None  # K is that of all


@given(st.integers(0, 3000), st.integers(1, 600))
def test_pairs_are_dealt_out_once_and_no_part_has_more_than_was_asked(n: int, most: int) -> None:
    pairs = tuple(range(n))
    parts = deal(pairs, most)
    dealt = [p for part in parts for p in part]
    assert dealt == list(pairs[: len(dealt)])
    assert all(len(part) <= most for part in parts)
    assert parts[0] == pairs[: len(parts[0])]
    assert len(parts[0]) >= min(most, n // 2)


class Endless(Proposer):
    name = "endless"
    max_hypotheses = 5

    def propose(self, known: History) -> Iterable[Hypothesis]:
        while True:
            yield _at(0)


def test_a_proposer_without_end_ends_the_search_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(generations, "MOST_PROPOSED", 100)
    with pytest.raises(SearchFailedError, match="endless has proposed 100 hypotheses in one gen"):
        Generations(Endless(), ()).next({}, lambda h: None)


def _at(layer: int) -> Hypothesis:
    return Hypothesis("v", Intervention((Unit(Site(layer, "residual", "last")),)))
