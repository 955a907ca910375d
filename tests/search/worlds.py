"""A world for the search: pairs whose outputs are known, and workers that lose, repeat and
contradict as a seed says."""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

from raysearch.causal import Split
from raysearch.core.answers import EXACT_MATCH
from raysearch.core.events import (
    Attributed,
    Encoded,
    Event,
    Failed,
    Fitted,
    Lost,
    Measured,
    Scores,
    Screened,
    Seed,
    Task,
)
from raysearch.core.featurizers import is_fitted
from raysearch.core.fit_keys import FitKeys
from raysearch.core.hypothesis import Intervention, Subspace, Unit
from raysearch.core.population import SAMPLER, THESE_PAIRS, Population
from raysearch.core.records import Record
from raysearch.core.space import Grid, HypothesisSpace
from raysearch.engine.leased_run import LeasedRun
from raysearch.proposers.base import Exhaustive, Proposer, attribution_plan
from raysearch.search.criteria import DecisionRule
from raysearch.search.leases import STEPS
from raysearch.search.pair_blocks import ExpectedAnswers
from raysearch.search.screening import ScreeningPlan
from raysearch.search.search import Search
from raysearch.stats.anytime_test import FUTILITY
from raysearch.stats.betting_test import BettingTest
from raysearch.stats.evidence import MATCHINGS, looks
from raysearch.stats.exact_test import ExactTest
from raysearch.stats.match_test import MatchTest
from raysearch.testing.fake_pool import fake_fit

VARIABLES = ("v", "w")
BASE, SOURCE = 0, 1
COUNTERFACTUAL = {"v": 10, "w": 20}


@dataclass
class World:
    """What every intervention would answer: variable v with rate rates[layer], else w, else the
    base's answer.

    `spares`: with what rate a pair that v leaves alone gets the base's answer for certain.
    `scores`: that are told beside outputs; `lead`: the mean logit by which the base's own answer is
    ahead without intervention. `effects`: of an interchange to first order, about. `new_values`:
    whether test pairs are of matchings of values. `more`: test pairs that are drawn for each
    continuation.
    """

    seed: int = 0
    layers: int = 6
    test: int = 120
    holdout: int = 20
    solved: float = 1.0
    these_pairs: bool = False
    new_values: bool = False
    max_pairs: int = 120
    rows: int = 32
    threshold: float = 0.8
    rates: Callable[[int], float] = lambda layer: (0.0, 0.5, 0.7, 0.8, 0.9, 1.0)[layer % 6]
    poison: frozenset[str] = frozenset()
    wanted: int | None = None
    subspaces: tuple[Subspace, ...] = (Subspace(),)
    fit: int = 0
    steps: int = 40
    controls: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1)
    rungs: tuple[int, ...] = (10, 20)
    warm_start: bool = False
    rule: DecisionRule = DecisionRule()
    spares: Callable[[int], float] = lambda layer: 0.0
    scores: tuple[str, ...] = ()
    lead: float = 4.0
    effects: Callable[[Unit, str], float | None] = lambda unit, variable: float(unit.site.layer)
    more: tuple[int, ...] = ()
    futility: float = FUTILITY
    lease_steps: int = STEPS
    pairs: Mapping[int, ExpectedAnswers] = field(init=False)

    def __post_init__(self) -> None:
        splits: list[Split] = ["test"] * self.test + ["holdout"] * self.holdout + ["fit"] * self.fit
        self.pairs = {i: self._expected(i, split) for i, split in enumerate(splits)}
        for number, drawn in enumerate(self.more, start=1):
            first = len(self.pairs)
            new = {i: self._expected(i, "test") for i in range(first, first + drawn)}
            self.pairs |= {i: replace(e, added=number) for i, e in new.items()}
        if self.new_values:
            ends = looks(self.test // MATCHINGS)
            at = [m // (b - a) + i * MATCHINGS for i, (a, b) in enumerate(pairwise((0, *ends)))
                  for m in range(MATCHINGS * (b - a))]  # fmt: skip
            self.pairs |= {i: replace(self.pairs[i], matching=m) for i, m in enumerate(at)}

    def _expected(self, pair: int, split: Split) -> ExpectedAnswers:
        """v changes on most pairs, w on about half of them."""
        rng = random.Random(f"{self.seed}.pair.{pair}")
        w = COUNTERFACTUAL["w"] if rng.random() < 0.5 else BASE
        v = COUNTERFACTUAL["v"] if rng.random() < 0.9 else BASE
        kind = (None, "near", "far")[pair % 3]
        return ExpectedAnswers(split, (BASE,), {"source": (SOURCE,)}, {"v": (v,), "w": (w,)}, kind)

    @property
    def space(self) -> HypothesisSpace:
        grid = Grid("residual", tuple(range(self.layers)), (None,), ("last",), self.subspaces)
        return HypothesisSpace(VARIABLES, (grid,))

    def search(self, proposer: Proposer | None = None, continued: bool = False) -> Search:
        by_matches = self.rule.score == "matches" and not self.new_values
        is_open = self.rule.fdr or (self.more and not self.rule.fixed_horizon)
        one_look = ExactTest if self.rule.at_end and not is_open else MatchTest
        kind = one_look if by_matches else BettingTest
        spent = 0.05 * (1 - self.rule.reserve)
        test = kind(
            self.threshold, spent, spent, hypotheses=len(self.space), futility=self.futility
        )
        wanted: dict[Split, int] = {
            "test": self.wanted or self.test,
            "holdout": self.holdout,
            "fit": self.fit,
        }
        plan = ScreeningPlan(
            wanted,
            self.max_pairs,
            solved_only=True,
            at_looks=not self.rule.at_end,
            trained=bool(self.fit),
            dealt=proposer is not None and getattr(proposer, "max_hypotheses", None) is None,
        )
        fit = (
            FitKeys(
                steps=self.steps,
                seeds=self.seeds,
                saves=4,
                rungs=self.rungs,
                keep=0.5,
                together=3,
                warm_start=self.warm_start,
            )
            if self.fit
            else None
        )
        asked = (test, self.pairs, plan, self.population, self.rows, fit, self.controls, self.rule)
        wants = getattr(proposer, "inner", proposer)  # of one that is watched
        needs_effects = getattr(wants, "fit_pairs", 0)
        attribution = attribution_plan(wants, self.space) if needs_effects else None
        proposer = proposer or Exhaustive(self.space)
        if self.rule.weighted and attribution is None:
            attribution = attribution_plan(proposer, self.space, self.fit)
        return Search(
            proposer,
            *asked,
            attribution,
            continued=continued or bool(self.more),
            lease_steps=self.lease_steps,
        )

    def output(self, intervention: Intervention, pair: int) -> tuple[int, ...]:
        """The one true output of an intervention on a pair."""
        rng = random.Random(f"{self.seed}.{intervention.id}.{pair}")
        rate = self.rates(intervention.units[0].site.layer)
        draw = rng.random()
        kept = self.spares(intervention.units[0].site.layer)
        if self.pairs[pair].counterfactual["v"] == (BASE,) and kept:
            return (BASE,) if rng.random() < kept else (SOURCE,)
        if draw < rate:
            return self.pairs[pair].counterfactual["v"]
        return self.pairs[pair].counterfactual["w"] if draw < rate + (1 - rate) / 2 else (BASE,)

    def score(self, name: str, variable: str, pair: int, output: tuple[int, ...] | None) -> float:
        """Of an output, or of none: without intervention. A match scores a little less than a sure
        one, anything else a little more."""
        noise = random.Random(f"{self.seed}.{name}.{variable}.{pair}.{output}").random()
        if name == "logit_difference":
            return -self.lead * (0.5 + noise) if output is None else self.lead * (4 * noise - 2)
        if name == "probability":
            return (
                1 - 0.1 * noise
                if output == self.pairs[pair].counterfactual[variable]
                else 0.1 * noise
            )
        return 7 * noise

    def told(
        self, pairs: Sequence[int], outputs: Sequence[tuple[int, ...] | None]
    ) -> Scores | None:
        """The scores of outputs, pair by pair; None where none are told."""
        return {
            name: {
                v: tuple(self.score(name, v, p, o) for p, o in zip(pairs, outputs, strict=True))
                for v in VARIABLES
            }
            for name in self.scores
        } or None

    def effect(self, unit: Unit, variable: str, pairs: Sequence[int]) -> float | None:
        """The sum over the change pairs, each with noise of its own that is small beside one logit."""
        mean = self.effects(unit, variable)
        noise = (
            random.Random(f"{self.seed}.{unit}.{p}").random()
            for p in pairs
            if self.pairs[p].changes(variable)
        )
        return None if mean is None else float(f"{sum(mean + 0.1 * n for n in noise):.6g}")

    @property
    def population(self) -> Population:
        """What its verdicts are about."""
        if self.new_values:
            return Population("new_values", self.test // 2)
        if self.these_pairs:
            return THESE_PAIRS
        trained = any(is_fitted(s.featurizer) for s in self.subspaces)
        return Population("not_trained_on") if trained else SAMPLER

    def fit_iia(self, seed: Seed, step: int) -> float:
        """Validation IIA, in twentieths: it rises with the steps to the layer's rate, a little
        otherwise for each seed."""
        rng = random.Random(f"{self.seed}.{seed.key}")
        rate = self.rates(seed.intervention.units[0].site.layer) - 0.1 * rng.random()
        return max(0, round(20 * rate * min(1.0, step / max(self.steps, 1) + 0.3))) / 20

    def solves(self, pair: int) -> bool:
        return random.Random(f"{self.seed}.solved.{pair}").random() < self.solved

    def run(self, task: Task) -> list[Event]:
        """What a good worker answers."""
        if task.lease is not None:
            encoded = {i: encoded_of(i, e) for i, e in self.pairs.items()}
            matchers = dict.fromkeys(range(len(self.more) + 1), EXACT_MATCH)
            return LeasedRun(encoded, matchers, lambda: 0.0).do(task, self.run)
        if task.kind == "fit":
            return [fake_fit(task, seed, self.fit_iia(seed, task.steps[1])) for seed in task.seeds]
        block = task.blocks[0]
        if task.kind == "attribute":
            told = {
                v: tuple(self.effect(unit, v, block.pairs) for unit in task.units)
                for v in VARIABLES
            }
            return [
                Attributed(
                    task.id,
                    "fit",
                    block.index,
                    block.pairs,
                    told,
                    0.0,
                    "cpu",
                    "worker",
                    task.attempt,
                )
            ]
        if task.kind == "screen":
            base = tuple((BASE,) if self.solves(p) else (99,) for p in block.pairs)
            sources = {"source": tuple((SOURCE,) for _ in block.pairs)}
            at = (
                0,
                0.0,
                "cpu",
                "worker",
                task.attempt,
                self.told(block.pairs, [None] * len(block.pairs)),
            )
            return [Screened(task.id, block.split, block.index, block.pairs, base, sources, *at)]
        return [
            Measured(
                task.id,
                i.key,
                b.split,
                b.index,
                b.pairs,
                tuple(self.output(i, p) for p in b.pairs),
                near_ties=0,
                rows=len(b.pairs),
                seconds=0.0,
                device="cpu",
                worker="worker",
                attempt=task.attempt,
                scores=self.told(b.pairs, [self.output(i, p) for p in b.pairs]),
            )
            for i in task.interventions
            for b in task.blocks
        ]


def encoded_of(index: int, pair: ExpectedAnswers) -> Encoded:
    """A pair as a replica has it, without its inputs."""
    answers = {"base": pair.base, **pair.sources}
    return Encoded(index, (), {}, {}, {}, answers, pair.counterfactual, added=pair.added)


@dataclass
class Cluster:
    """Workers that take tasks and answer in any order; a share is lost, a share is told twice, some
    of it `otherwise`.

    Losses are of nodes and of workers alike. Only what must hold is left out: a third loss in a row
    of a worker on one block of one intervention (or of screening) is what quarantine calls poison,
    so there the third loss is a node's.
    """

    world: World
    workers: int
    seed: int
    lost: float = 0.0
    twice: float = 0.0
    otherwise: bool = True
    told: list[Event] = field(default_factory=list)
    notes: list[Record] = field(default_factory=list)
    in_a_row: Counter[object] = field(default_factory=Counter)

    def drive(self, search: Search, most: int = 100_000) -> Search:
        """Drives `search` to its end; checks its invariants after every third step, and then."""
        rng = random.Random(self.seed)
        out: list[Task] = []
        late: list[Event] = []
        for step in range(most):
            if search.done:
                break
            out += search.ask(self.workers - len(out))
            if step % 3 == 0:
                search.validate()
            assert out or late, "the search is not done and asks nothing"
            events: list[Event] = []
            if out:
                events += self._answer(out.pop(rng.randrange(len(out))), rng, late)
            if late and (rng.random() < 0.5 or not out):
                events.append(late.pop(rng.randrange(len(late))))
            self.told += events
            self.notes += search.tell(events)
            if step % 3 == 1 or search.done:
                search.validate()
        assert search.done
        return search

    def _answer(self, task: Task, rng: random.Random, late: list[Event]) -> list[Event]:
        group = task.keys
        if self.world.poison & set(group):
            return [lost(task, "worker", "killed")]
        key = (group, task.blocks[0])
        if rng.random() < self.lost:
            worker = self.in_a_row[key] < 2 and rng.random() < 0.5
            self.in_a_row[key] += worker
            return [lost(task, "worker" if worker else "node")]
        events = self.world.run(task)
        rng.shuffle(events)
        if rng.random() < self.twice:
            late += [
                contradicted(e) if self.otherwise and rng.random() < 0.5 else e for e in events
            ]
        return events


def lost(task: Task, cause: Literal["worker", "node"], message: str = "gone") -> Lost:
    """A task whose worker went away."""
    return Lost(
        task.id,
        cause,
        "w",
        message,
        task.keys,
        task.blocks[0].split,
        tuple(b.index for b in task.blocks),
    )


def raising(task: Task, intervention: str | None, block: int | None = None) -> Failed:
    """A task that raised: whole, or in one intervention at one block (by default the first)."""
    return Failed(
        task=task.id,
        intervention=intervention,
        block=task.blocks[0].index if intervention and block is None else block,
        error_type="ValueError",
        message="boom",
        traceback="Traceback ...",
        node="node",
        worker="w",
        attempt=task.attempt,
        group=task.keys,
        split=task.blocks[0].split,
        blocks=tuple(b.index for b in task.blocks),
    )


def contradicted(event: Event) -> Event:
    """An answer that says otherwise, where there is anything to say."""
    if isinstance(event, Measured):
        return replace(event, outputs=tuple((o[0] + 1,) for o in event.outputs))
    if isinstance(event, Fitted):
        return replace(event, fit="another")
    if isinstance(event, Attributed):
        return replace(
            event, effects={v: tuple(-(e or 0.0) for e in of) for v, of in event.effects.items()}
        )
    return event
