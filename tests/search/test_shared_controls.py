"""A control that hypotheses on several variables share is measured once, however many generations
lie between them."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysearch.core.events import Event, Task
from raysearch.core.hypothesis import Hypothesis, Intervention, Subspace
from raysearch.core.records import Counted
from raysearch.core.space import HypothesisSpace
from raysearch.proposers.base import Exhaustive, History
from raysearch.search.criteria import DecisionRule
from raysearch.search.search import Search
from tests.search.worlds import BASE, Cluster, World, raising

OF = {"v": Subspace(coordinates=(0, 1)), "w": Subspace(coordinates=(2, 3))}
"""As large as each other, so that one random subspace stands beside both."""


@dataclass
class Shared(World):
    """Each variable lies in its own two coordinates of every layer; a random subspace carries v,
    and w, now and then."""

    def output(self, intervention: Intervention, pair: int) -> tuple[int, ...]:
        of = self.pairs[pair].counterfactual
        if intervention.control is None:
            return of["v" if intervention.units[0].subspace == OF["v"] else "w"]
        draw = random.Random(f"{self.seed}.{intervention.id}.{pair}").random()
        return of["v"] if draw < 0.6 else of["w"] if draw < 0.9 else (BASE,)


@dataclass(frozen=True)
class OneByOne:
    """A variable's coordinates in each generation, the last first."""

    space: HypothesisSpace
    name: str = "one_by_one"

    @property
    def max_hypotheses(self) -> int:
        return len(self.space)

    def propose(self, known: History) -> Iterable[Hypothesis]:
        now = [*reversed(OF.values()), None][known.generations]
        return [h for h in self.space if h.intervention.units[0].subspace == now]


def _outcome(search: Search) -> Mapping[str, object]:
    return {**search.verdicts, **{f"estimate {k}": v for k, v in search.estimates.items()}}


@pytest.mark.slow_unless(more=[{}])
@pytest.mark.parametrize(
    "more",
    [{}, {"these_pairs": True}, {"rule": DecisionRule(at_end=True)}],
    ids=["sampler", "these_pairs", "fixed"],
)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 10_000), workers=st.integers(1, 6))
def test_a_control_that_is_asked_of_again_in_a_later_generation_has_the_verdicts_of_one(
    more: dict[str, object], seed: int, workers: int
) -> None:
    world = Shared(
        seed % 7, layers=3, subspaces=tuple(OF.values()), controls=("random_subspace",), **more
    )  # type: ignore[arg-type]
    at_once = Cluster(world, 1, 0).drive(world.search(Exhaustive(world.space)))
    # not `otherwise`: what came after everybody had left is let go, uncounted, and a repeat of it
    # may come first when somebody joins
    cluster = Cluster(world, workers, seed, lost=0.2, twice=0.3, otherwise=False)
    search = cluster.drive(world.search(OneByOne(world.space)))
    assert _outcome(search) == _outcome(at_once)
    controls = {
        d.hypothesis.intervention.id
        for d in search.verdicts.values()
        if d.hypothesis.intervention.control
    }
    asked = [d for d in search.verdicts.values() if d.hypothesis.intervention.id in controls]
    assert len(controls) == 3 < len(asked)
    counted = [n.observation.key for n in cluster.notes if isinstance(n, Counted)]
    assert len(counted) == len(set(counted)), "a block is evidence once"


def test_a_control_of_what_failed_and_was_tried_again_joins_that_of_what_did_not() -> None:
    world = Shared(1, layers=3, subspaces=tuple(OF.values()), controls=("random_subspace",))
    at_once = Cluster(world, 1, 0).drive(world.search())

    class Sick(Cluster):
        def _answer(self, task: Task, rng: random.Random, late: list[Event]) -> list[Event]:
            of_w = {i.key for i in task.interventions if i.units[0].subspace == OF["w"]}
            well = [
                e
                for e in super()._answer(task, rng, late)
                if getattr(e, "intervention", None) not in of_w
            ]
            return [*well, *(raising(task, key) for key in of_w)]

    first = Sick(world, 2, 0)
    before = first.drive(world.search())
    assert {"accept", "failed"} <= {d.verdict for d in before.verdicts.values()}
    search = world.search()
    search.tell([*first.told, before.failed])
    search.validate()
    assert _outcome(Cluster(world, 2, 0).drive(search)) == _outcome(at_once)
