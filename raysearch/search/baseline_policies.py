"""Chooses the best policy of each variable before anything runs (`core/baselines.py`).

Invariants: scores come from pairs that are never tested, or, if there are none, from what all pairs
expect; no output of a model is read; ties go in the order of `POLICIES`.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from raysearch.core.baselines import Baseline
from raysearch.core.events import Ids
from raysearch.core.option_names import PairKinds
from raysearch.search.pair_blocks import ExpectedAnswers


@dataclass(frozen=True, slots=True)
class Policy:
    """A baseline with what it answers; `answer` is that of the policy `always`."""

    baseline: Baseline
    answer: Ids = ()

    def gives(self, pair: ExpectedAnswers) -> Ids | None:
        """Returns what the policy answers to a pair; None if the pair lacks what it needs."""
        match self.baseline.policy:
            case "copy":
                return pair.sources.get(self.baseline.of)
            case "act":
                return pair.counterfactual.get(self.baseline.of)
            case "always":
                return self.answer
            case "keep":
                return pair.base


def policies_of(
    pairs: Mapping[int, ExpectedAnswers], variable: str, kinds: PairKinds
) -> list[Policy]:
    """Returns the best policy of each kind for a variable, the best of all first."""
    counting = [e for e in pairs.values() if kinds == "unfiltered" or e.changes(variable)]
    never_tested = [e for e in counting if e.split != "test"] or counting
    found: dict[str, Policy] = {}
    for policy in _all_policies(never_tested, variable):
        best = found.get(policy.baseline.policy)
        if best is None or policy.baseline.share > best.baseline.share:
            found[policy.baseline.policy] = policy
    ranked = sorted(found.values(), key=lambda p: -p.baseline.share)
    return [_marked(p, counting) for p in ranked]


def best_policies(
    pairs: Mapping[int, ExpectedAnswers], kinds: PairKinds
) -> Mapping[str, Policy | None]:
    """Returns the best policy of each variable; None if no pair counts for it."""
    variables = next(iter(pairs.values())).counterfactual if pairs else ()
    return {v: next(iter(policies_of(pairs, v, kinds)), None) for v in variables}


def _all_policies(pairs: Sequence[ExpectedAnswers], variable: str) -> Iterator[Policy]:
    """Yields every policy with its score on `pairs`; of all answers the most frequent one."""
    if not pairs:
        return
    sources = dict.fromkeys(name for e in pairs for name in e.sources)
    yield from (_scored(Policy(Baseline(variable, "copy", s, 0.0, 0)), pairs) for s in sources)
    others = [v for v in pairs[0].counterfactual if v != variable]
    yield from (_scored(Policy(Baseline(variable, "act", v, 0.0, 0)), pairs) for v in others)
    (answer, _), *_ = Counter(e.counterfactual[variable] for e in pairs).most_common(1)
    yield _scored(Policy(Baseline(variable, "always", "", 0.0, 0), answer), pairs)
    yield _scored(Policy(Baseline(variable, "keep", "", 0.0, 0)), pairs)


def _scored(policy: Policy, pairs: Sequence[ExpectedAnswers]) -> Policy:
    b = policy.baseline
    right = sum(policy.gives(e) == e.counterfactual[b.variable] for e in pairs)
    scored = Baseline(b.variable, b.policy, b.of, right / len(pairs), len(pairs))
    return Policy(scored, policy.answer)


def _marked(policy: Policy, pairs: Sequence[ExpectedAnswers]) -> Policy:
    """Notes whether the policy gives the counterfactual of every pair."""
    b = policy.baseline
    same = all(policy.gives(e) == e.counterfactual[b.variable] for e in pairs)
    return Policy(Baseline(b.variable, b.policy, b.of, b.share, b.pairs, same), policy.answer)
