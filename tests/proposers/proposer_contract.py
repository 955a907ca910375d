"""What every proposer keeps to, as a test class: give it fixtures `world`, and `make` (from a space
to a proposer)."""

from collections.abc import Callable

from hypothesis import strategies as st

from raysearch.core.events import Event
from raysearch.core.hypothesis import Hypothesis
from raysearch.core.records import Proposed
from raysearch.core.space import HypothesisSpace
from raysearch.proposers.base import History, Proposer
from tests.search.worlds import Cluster, World

Make = Callable[[HypothesisSpace], Proposer]
SEEDS = st.integers(0, 10_000)


class Watched:
    """A proposer, and what it was asked and said."""

    def __init__(self, inner: Proposer) -> None:
        self.inner, self.name, self.max_hypotheses = inner, inner.name, inner.max_hypotheses
        self.said: list[tuple[History, list[Hypothesis]]] = []

    def propose(self, known: History) -> list[Hypothesis]:
        proposed = list(self.inner.propose(known))
        self.said.append((History(known.generations, dict(known.decided), known.effects), proposed))
        return proposed


class ProposerContract:
    def test_the_same_knowledge_gives_the_same_proposals(self, world: World, make: Make) -> None:
        watched = Watched(make(world.space))
        Cluster(world, 3, 1).drive(world.search(watched))
        assert watched.said[0][1]
        for known, proposed in watched.said:
            assert list(make(world.space).propose(known)) == proposed

    def test_it_is_asked_only_when_all_that_it_proposed_is_decided_and_its_silence_ends_the_search(
        self, world: World, make: Make
    ) -> None:
        watched = Watched(make(world.space))
        search = Cluster(world, 3, 1).drive(world.search(watched))
        before: set[str] = set()
        for generation, (known, proposed) in enumerate(watched.said):
            assert (known.generations, set(known.decided)) == (generation, before)
            before |= {h.id for h in proposed}
        assert set(search.verdicts) == before
        assert {h.id for h in watched.said[-1][1]} <= set(watched.said[-1][0].decided)

    def test_it_proposes_no_more_than_it_says_there_are(self, world: World, make: Make) -> None:
        watched = Watched(make(world.space))
        Cluster(world, 3, 1).drive(world.search(watched))
        proposed = {h.id for _, said in watched.said for h in said}
        assert watched.max_hypotheses is None or len(proposed) <= watched.max_hypotheses

    def test_verdicts_and_generations_do_not_depend_on_the_cluster(
        self, world: World, make: Make
    ) -> None:
        still = Cluster(world, 1, 0)
        wanted = still.drive(world.search(make(world.space))).verdicts
        for seed in range(3):
            wild = Cluster(world, 5, seed, lost=0.2, twice=0.2)
            assert wild.drive(world.search(make(world.space))).verdicts == wanted
            assert _generations(wild) == _generations(still)

    def test_a_search_goes_on_from_its_events_alone(self, world: World, make: Make) -> None:
        first = Cluster(world, 3, 2)
        wanted = first.drive(world.search(make(world.space))).verdicts
        for share in (0.3, 0.7):
            told: list[Event] = first.told[: int(share * len(first.told))]
            again = world.search(make(world.space))
            notes = again.tell(told)
            assert [n for n in notes if isinstance(n, Proposed)]
            assert Cluster(world, 2, 3).drive(again).verdicts == wanted


def _generations(cluster: Cluster) -> dict[str, int]:
    return {n.hypothesis.id: n.generation for n in cluster.notes if isinstance(n, Proposed)}
