"""A job as resolved, and what follows from it alone: space, proposer, test, search, hash.

Invariants: the driver, a replay and `plan` make their search here, so that it is the same one.
"""

import glob
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from raysearch.causal import LeftOutCount, Pair, PairSample, Split, differing_shares
from raysearch.core.answers import matchers_of
from raysearch.core.events import Encoded
from raysearch.core.model_facts import ModelFacts
from raysearch.core.option_names import PairKinds
from raysearch.core.population import SAMPLER, THESE_PAIRS, Population, about
from raysearch.core.space import HypothesisSpace
from raysearch.engine.featurizers.sae_file import SaeFile
from raysearch.engine.loading.model_digest import digest_of
from raysearch.errors import JobError
from raysearch.job import Job
from raysearch.job.file_keys import LAYER, MODEL, PAIRS, PROBLEM, PROPOSER
from raysearch.job.job_files import named_files
from raysearch.proposers.base import Proposer, attribution_plan
from raysearch.proposers.registry import READY, installed_proposers
from raysearch.proposers.weights import PAIRS as WEIGHT_PAIRS
from raysearch.proposers.weights import WEIGHTED_FROM
from raysearch.runner.resolution.load_proposer import proposer_of
from raysearch.runner.resolution.resolve_space import space_of
from raysearch.search.criteria import DecisionRule
from raysearch.search.pair_blocks import ExpectedAnswers, check_variables, expected_answers
from raysearch.search.screening import GENERATIONS, ScreeningPlan
from raysearch.search.search import Search
from raysearch.stats.anytime_test import AnytimeTest
from raysearch.stats.betting_test import BettingTest
from raysearch.stats.evidence import MATCHINGS
from raysearch.stats.exact_test import ExactTest
from raysearch.stats.match_test import MatchTest
from raysearch.stats.power import fewest_pairs
from raysearch.storage.digests_json import sha256
from raysearch.user_code import source_digest


@dataclass(frozen=True)
class ResolvedJob:
    """A job whose variables, positions and claim are named; its pairs in the order of the run, and
    what was left out of them."""

    job: Job
    pairs: tuple[Pair, ...]
    left_out: tuple[LeftOutCount, ...] = field(default=(), compare=False)
    population: Population = SAMPLER
    continued: bool = False

    @property
    def variables(self) -> tuple[str, ...]:
        assert self.job.space.variables is not None
        return self.job.space.variables

    @property
    def positions(self) -> tuple[str, ...]:
        """The positions of the grid, then those that only units name."""
        assert self.job.space.position_names is not None
        named = (site.position for _, site in self.job.space.unit_sites)
        return tuple(dict.fromkeys((*self.job.space.position_names, *named)))

    @property
    def components(self) -> tuple[str, ...]:
        """The components of the grid, then those that only units name: all that a replica must
        know."""
        named = (site.component for _, site in self.job.space.unit_sites)
        return tuple(dict.fromkeys((*self.job.space.components, *named)))

    @property
    def layers(self) -> tuple[int, ...] | None:
        """The layers of the grid and of named units; None: all of the model."""
        space = self.job.space
        named = [site.layer for _, site in space.unit_sites if site.layer is not None]
        if not space.components:
            return tuple(dict.fromkeys(named))
        return None if space.layers == "all" else (*space.listed_layers, *named)

    @property
    def kinds(self) -> PairKinds:
        """The pairs that decide, once `auto` is resolved."""
        assert self.job.pairs.kinds != "auto"
        return self.job.pairs.kinds

    @property
    def ablates(self) -> frozenset[bool]:
        """The operations among the named units: True for ablations, False for interchanges."""
        space = self.job.space
        named = len(space.named_units) > len(space.ablations) or bool(space.components)
        return frozenset([True] * bool(space.ablations) + [False] * named)

    @property
    def about(self) -> str:
        """The population of its verdicts, in words."""
        keys, of = self.job.pairs, self.population
        return about(of.name, of.values, keys.disjoint, self.kinds, keys.solved_only)

    def space(self, facts: ModelFacts) -> HypothesisSpace:
        """Returns the hypothesis space on a model. Raises: JobError for a layer, head or coordinate
        that it lacks."""
        return space_of(self.job, facts, shared_sources(self.pairs), self.pairs[0].base.tokens)

    def proposer(self, space: HypothesisSpace, facts: ModelFacts) -> Proposer:
        """Returns the proposer of the job. Raises: JobError."""
        return proposer_of(self.job, space, facts, self.positions)

    def test(self, proposer: Proposer, space: HypothesisSpace) -> AnytimeTest:
        """Returns the test, at the proposer's K. For a proposer without a K it is at the size of
        `space`, and the search divides the error itself."""
        keys = self.job.test
        by_matches = keys.score == "matches" and keys.generalise == "pairs"
        one_look = ExactTest if keys.is_exact else MatchTest
        kind = one_look if by_matches else BettingTest
        test = kind(
            keys.threshold,
            keys.false_accept * (1 - keys.reserve),
            keys.miss * (1 - keys.reserve),
            proposer.max_hypotheses or len(space),
            keys.indifference,
            futility=keys.futility,
        )
        if self.population.name == "new_values":
            _check_values(self.job, self.population.values or 0, test)
        return test

    @property
    def _rule(self) -> DecisionRule:
        """The rule by which the job decides: pairs that count, and when evidence is looked at."""
        test = self.job.test
        return DecisionRule(
            self.kinds,
            test.keep_threshold,
            test.use == "fixed",
            test.score,
            test.above_baselines,
            self.job.pairs.holdout_width,
            test.weights != "even",
            test.is_exact,
            test.reserve,
            test.control == "fdr",
        )

    def search(
        self, facts: ModelFacts, encoded: Sequence[Encoded], proposer: Proposer | None = None
    ) -> Search:
        """Returns the search. `proposer`: the job's, or what stands for it; made anew where none is
        given.

        Raises: JobError for what the model lacks, PairsError where variables cannot be told apart.
        """
        space = self.space(facts)
        proposer = proposer or self.proposer(space, facts)
        expecteds = self.expected_answers(encoded)
        check_variables(*self.test_pairs(expecteds))
        job = self.job
        rule = self._rule
        for_weights = weight_pairs(job, len(space))
        plan = ScreeningPlan(
            pair_counts(job, proposer.fit_pairs or for_weights),
            job.test.most_pairs,
            job.pairs.solved_only,
            not rule.at_end,
            job.space.is_fitted,
            is_open(job),
            self.left_out,
        )
        return Search(
            proposer,
            self.test(proposer, space),
            expecteds,
            plan,
            self.population,
            job.resources.rows,
            job.fit if job.space.is_fitted else None,
            job.controls,
            rule,
            attribution_plan(proposer, space, for_weights, job.test.weights == "attribution"),
            frozenset(h.id for h in space) if is_open(job) else None,
            self.continued,
        )

    def expected_answers(self, encoded: Sequence[Encoded]) -> dict[int, ExpectedAnswers]:
        """Returns the answers that outputs are compared with, by pair."""
        pairs = {p.index: p for p in self.pairs}
        matchers = matchers_of(encoded)
        meant = self.job.prompt_format.meant
        found: dict[int, ExpectedAnswers] = {}
        for e in encoded:
            pair = pairs[e.index]
            meanings = {v: meant(pair.counterfactual[v]) for v in e.counterfactual} | {
                "": meant(pair.answers["base"])
            }
            found[e.index] = expected_answers(
                e,
                pair.split,
                pair.set,
                matchers[pair.added],
                meanings,
                pair.contents,
                pair.matching,
                pair.added,
            )
        return found

    def test_pairs(self, pairs: Mapping[int, ExpectedAnswers]) -> tuple[list[ExpectedAnswers], str]:
        """Returns the test pairs among `pairs`, and what errors call them."""
        test = [p for p in pairs.values() if p.split == "test"]
        wanted = self.job.pairs.test
        at_hand = f" at hand ({wanted} wanted)" if len(test) > wanted else ""
        return test, f"{len(test)} test pairs{at_hand}"

    def hash(self, pairs_digest: str, model_digest: str = "") -> str:
        """Returns the job hash. `model_digest`: of the model as it was opened, for one that no file
        has. Raises: ModelError where the model's files cannot be read."""
        digests = _file_digests(self.job)
        if self.job.model.is_given:
            digests[MODEL] = model_digest
        return self.job.hash(digests, pairs_digest)


def shares_by_tokens(
    pairs: Mapping[int, ExpectedAnswers], variables: Sequence[str]
) -> dict[tuple[str, str], float]:
    """Returns for every two variables the share of test pairs on which they expect different
    answers, by the compared tokens."""
    return differing_shares(
        [p.counterfactual for p in pairs.values() if p.split == "test"], variables
    )


def shared_sources(pairs: Sequence[Pair]) -> tuple[str, ...]:
    """Returns the names of the sources that every pair has, in the order of the first."""
    return (
        tuple(name for name in pairs[0].sources if all(name in p.sources for p in pairs))
        if pairs
        else ()
    )


def pair_counts(job: Job, used: int, spare: int = 1) -> dict[Split, int]:
    """Returns how many pairs of each split; of fit pairs only the `used` ones of the proposer,
    where nothing is fit and no scale is taken."""
    if job.space.is_fitted or job.test.score == "logit_difference":
        used = job.pairs.fit
    used = min(used, job.pairs.fit)
    fit: dict[Split, int] = {"fit": spare * used} if used else {}
    test = job.pairs.test * (GENERATIONS if is_open(job) else 1)
    return {**fit, "test": spare * test, "holdout": spare * job.pairs.holdout}


def weight_pairs(job: Job, hypotheses: int = WEIGHTED_FROM) -> int:
    """Returns on how many fit pairs effects are computed for the weights of so many hypotheses,
    where no proposer needs them; 0: weights are even.

    By default only where that takes no pairs or values away from the test.
    """
    pairs = min(job.pairs.fit, WEIGHT_PAIRS)
    if job.test.weights != "auto":
        return pairs if job.test.weights == "attribution" else 0
    drawn = job.problem.use is not None and not job.pairs.disjoint
    at_hand = drawn or job.space.is_fitted or job.test.score == "logit_difference"
    wanted = job.test.use == "sequential" and hypotheses >= WEIGHTED_FROM and not is_open(job)
    return pairs if at_hand and wanted else 0


def is_open(job: Job) -> bool:
    """Says whether hypotheses may be chosen by verdicts from no set that was fixed before: a user's
    own proposer may do so, and ours do not."""
    return job.propose.use not in READY


def _check_values(job: Job, values: int, test: AnytimeTest) -> None:
    """Raises: JobError where so few values are held out, or so few pairs asked for, that no
    hypothesis could ever be accepted.
    """
    least, pairs = fewest_pairs(test), min(job.pairs.test, job.test.most_pairs)
    needs = (
        f"test.generalise: values at K = {test.hypotheses} cannot accept anything with fewer than"
    )
    if values < 2 * least:
        raise JobError(
            f"{needs} {2 * least} values that are held out for the test, and of the values of "
            f"{job.pairs.disjoint[0]} there are {values}; give a problem with more, or fewer fit "
            f"and holdout pairs or hypotheses, or claim these values alone (generalise: pairs)"
        )
    if pairs < MATCHINGS * least:
        raise JobError(
            f"{needs} {MATCHINGS * least} pairs, {MATCHINGS} matchings of {2 * least} values, and "
            f"the job allows {pairs}; raise pairs.test and test.max_pairs"
        )


def population_of(job: Job, sample: PairSample) -> Population:
    """Returns what the verdicts of a job are about, whose claim is named."""
    if job.test.claim == "these_pairs":
        return THESE_PAIRS
    if job.pairs.disjoint:
        new = job.test.generalise == "values"
        return Population("new_values" if new else "these_values", sample.values)
    trained = job.space.is_fitted
    if job.problem.use is None:  # lines are dealt out by content where something is trained
        return Population("test_part") if trained else SAMPLER
    return Population("not_trained_on" if trained else "sampler", fixed=sample.listed)


def _file_digests(job: Job) -> dict[str, str]:
    """Returns digests of the files that the job names, as `Job.hash` takes them: contents count,
    paths do not. Pairs count as pairs."""
    digests = {}
    functions = {MODEL: job.model.path, PROBLEM: job.problem.use or "", PROPOSER: job.propose.use}
    for file in named_files(job):
        if file.is_code:
            content = sha256(Path(file.path).read_bytes())
            digests[file.key] = f"{content}:{functions[file.key].rpartition(':')[2]}"
        elif file.key == MODEL:
            if Path(file.path).exists():
                digests[MODEL] = digest_of(file.path, job.model.trust_remote_code)
        elif file.key != PAIRS:
            digests[f"sae {file.path}"] = _layers_digest(file.path)
    if (point := installed_proposers().get(job.propose.use)) is not None:
        digests[PROPOSER] = f"{source_digest(point.module)}:{job.propose.use}"
    return digests


def _layers_digest(path: str) -> str:
    """Returns the digest of a sparse autoencoder over all its layers."""
    whole = hashlib.sha256()
    for found in sorted(glob.glob(glob.escape(path).replace(LAYER, "*"))):
        whole.update(bytes.fromhex(SaeFile.at(Path(found)).digest))
    return whole.hexdigest()
