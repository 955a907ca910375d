"""How many pairs a search needs, by mechanism, and whether its errors hold.

Searches are simulated: which hypotheses are true, the outcomes of pairs and the effects are drawn;
looks, thresholds, futility and weights are those of a run (`raysearch/stats`,
`raysearch/proposers/weights.py`). Outcomes of one pair are correlated over hypotheses (a Gaussian
copula, 0.3). `today` is the rule before all of these: looks at 4, 8, 12, then half as many again.

    python -m benchmarks.search_cost                  # the table of benchmarks/RESULTS.md
    python -m benchmarks.search_cost --k 500 --searches 20

Effects are `useful` (true sites 0.6 to 1, others as on capitals), as on `capitals` (of its true
sites two in five have 0.1 to 0.2 only), or `useless` (of the same sizes, independent of the truth).
Columns: pairs for each hypothesis, as simulated and as expected (exactly, for the drawn IIAs and
effects); the ratio of the expected ones to today's; `false` is the share of searches with a false
accept; `missed` is the share of true hypotheses that are rejected, `found` that are accepted.
`+ calibrated` has thresholds of the weights' rule with the exact errors by pair 512 (dynamic
programming, whether or not any stops as futile), not those that Ville's inequality bounds; `fdr` is
`test.control: fdr`, whose pairs are simulated alone. Exits
with 1 if a goal fails: with useful effects at most 0.65 of today's pairs at K = 500 and 10^4, with
useless ones at most 1.05; 3 pairs at an IIA of 0, and at .95 and 1 at most 1.25 of Wald's bound.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from raysearch.proposers.weights import weigh
from raysearch.stats.evidence import Evidence, looks
from raysearch.stats.false_discovery import e_bh
from raysearch.stats.match_test import MatchTest
from raysearch.stats.power import power, verdicts

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

LAST, THRESHOLD, ERROR, CORRELATION = 512, 0.8, 0.05, 0.3
EXPECTED = 2
"""Searches of each kind for which expectations are computed."""
SEARCHES = {500: 40, 10_000: 6, 1_000_000: 1}
TRUE = {1.0: 0.3, 0.98: 0.2, 0.95: 0.3, 0.9: 0.2}
FALSE = {0.0: 0.60, 0.05: 0.20, 0.1: 0.08, 0.3: 0.07, 0.5: 0.04, 0.7: 0.01}
"""Distribution of the IIA among true and among false hypotheses."""
BEFORE = (4, 8, 12, 18, 27, 40, 60, 90, 135, 202, 303, 454, LAST)
"""Looks of the rule before."""


@dataclass(frozen=True)
class Mechanism:
    """A rule for verdicts, by what it has of today's."""

    name: str
    looks: tuple[int, ...] = looks(LAST)
    spikes: bool = True
    futility: bool = True
    effects: str = ""
    calibrated: bool = False
    fdr: bool = False

    def test(self, level: float) -> MatchTest:
        test = MatchTest(THRESHOLD, level, ERROR)
        test = calibrated(test) if self.calibrated else test
        test = test if self.spikes else replace(test, spikes=(0.0, 0.0))
        return test if self.futility else replace(test, futility=0.0)


MECHANISMS = (
    Mechanism("today", BEFORE, spikes=False, futility=False),
    Mechanism("looks", spikes=False, futility=False),
    Mechanism("+ spikes", futility=False),
    Mechanism("+ futility"),
    Mechanism("+ weights, useful", effects="useful"),
    Mechanism("+ calibrated", effects="useful", calibrated=True),
    Mechanism("+ weights, capitals", effects="capitals"),
    Mechanism("+ weights, useless", effects="useless"),
    Mechanism("fdr", fdr=True),
)
AT_THRESHOLD = (
    Mechanism("even", futility=False),
    Mechanism("weights, useless", futility=False, effects="useless"),
)


@cache
def calibrated(test: MatchTest) -> MatchTest:
    """Returns the test with the lowest thresholds whose errors by the last pair are as asked."""
    sure = replace(test, futility=0.0)

    def accepts(log: float) -> float:
        at = replace(sure, false_accept=math.exp(log), miss=1e-9)
        return power(at, THRESHOLD, LAST).accept - test.false_accept

    def rejects(log: float) -> float:
        at = replace(sure, false_accept=1e-9, miss=math.exp(log))
        return power(at, THRESHOLD, LAST).reject - test.miss

    def highest(error: Callable[[float], float], level: float) -> float:
        low, high = math.log(level), min(math.log(level) + 3, -0.01)
        for _ in range(12):
            middle = (low + high) / 2
            low, high = (middle, high) if error(middle) <= 0 else (low, middle)
        return math.exp(low)

    return replace(
        test, false_accept=highest(accepts, test.false_accept), miss=highest(rejects, test.miss)
    )


def drawn(k: int, share: float, rng: np.random.Generator) -> Floats:
    """Returns the true IIA of each hypothesis; a share of them is true."""
    true = round(k * share)
    return np.concatenate(
        [
            rng.choice(list(TRUE), true, p=list(TRUE.values())),
            rng.choice(list(FALSE), k - true, p=list(FALSE.values())),
        ]
    )


def effects(kind: str, iia: Floats, rng: np.random.Generator) -> Floats:
    """Returns an effect of each hypothesis; those of `capitals` are about those of its run."""
    k, true = len(iia), iia >= THRESHOLD
    small, middle = rng.uniform(0, 0.01, k), rng.uniform(0.01, 0.1, k)
    false = np.choose(
        rng.choice(3, k, p=(0.6, 0.25, 0.15)), [small, middle, rng.uniform(0.1, 0.5, k)]
    )
    large, early = rng.uniform(0.6, 1, k), rng.uniform(0.1, 0.2, k)
    if kind == "useful":
        return np.where(true, large, false)
    found = np.where(true, np.where(rng.random(k) < 0.6, large, early), false)
    return rng.permutation(found) if kind == "useless" else found


@dataclass
class Outcome:
    """Sums over searches."""

    pairs: int = 0
    expected: float = 0.0
    searches: int = 0
    false: int = 0
    true_ones: int = 0
    missed: int = 0
    found: int = 0
    false_share: float = 0.0


def search(rule: Mechanism, iia: Floats, seed: int, total: Outcome) -> None:
    """Simulates one search, look by look."""
    rng = np.random.default_rng([seed, 1])
    k = len(iia)
    given = effects(rule.effects, iia, rng) if rule.effects else None
    of = [] if given is None else weigh([("v", float(e)) for e in given])
    levels, level = np.unique(ERROR * np.array(of or [1 / k] * k), return_inverse=True)
    tests = [rule.test(float(one)) for one in levels]
    if total.searches < EXPECTED:
        cells, counts = np.unique(np.stack([level, iia]), axis=1, return_counts=True)
        total.expected += sum(
            int(count) * _expected(tests[int(at)], float(true), rule.looks)
            for (at, true), count in zip(cells.T, counts, strict=True)
        )
    alive, matches, seen = np.arange(k), np.zeros(k, dtype=np.int64), 0
    accepted, rejected = np.zeros(k, dtype=bool), np.zeros(k, dtype=bool)
    lenient, ended = MatchTest(THRESHOLD, ERROR, ERROR), np.zeros(k, dtype=np.int64)
    cut = np.clip(ndtri(iia), -40, 40)
    shared = np.random.default_rng([seed, 2]).standard_normal(LAST)
    for look in rule.looks:
        for pair in range(seen, look):
            own = np.random.default_rng([seed, 3, pair]).standard_normal(k, dtype=np.float32)[alive]
            score = math.sqrt(CORRELATION) * shared[pair] + math.sqrt(1 - CORRELATION) * own
            matches[alive] += score <= cut[alive]
        total.pairs += len(alive) * (look - seen)
        seen = look
        stops = np.zeros(len(alive), dtype=bool)
        for at, test in enumerate(tests):
            mine = level[alive] == at
            masks = verdicts(test, look, LAST)
            accepts, rejects, ends = (mask[matches[alive]] & mine for mask in masks)
            if rule.fdr and look < LAST:  # no verdict is likely even at the lowest that e-BH asks
                ends &= verdicts(lenient, look, LAST)[2][matches[alive]]
            ended[alive[ends]] = look
            accepted[alive[accepts]] = rejected[alive[rejects]] = True
            stops |= accepts | rejects | ends
        alive = alive[~stops]
    if rule.fdr:
        accepted |= _beside(tests, level, ended, matches, int(accepted.sum()))
    true = iia > THRESHOLD
    total.searches += 1
    total.false_share += float((accepted & ~true).sum() / max(accepted.sum(), 1))
    total.false += bool((accepted & (iia <= THRESHOLD)).any())
    total.true_ones += int(true.sum())
    total.missed += int((rejected & (iia >= THRESHOLD)).sum())
    total.found += int((accepted & true).sum())


def _beside(tests: Sequence[MatchTest], level: Ints, n: Ints, s: Ints, alone: int) -> Bools:
    """Returns which hypotheses that ended undecided e-BH accepts, beside those accepted alone."""
    excess = np.full(len(n), -np.inf)
    for h in np.flatnonzero(n):
        up, _ = tests[level[h]].log_evidence(Evidence(int(n[h]), int(s[h])))
        excess[h] = up - tests[level[h]].accept_at if up >= -math.log(ERROR) else -math.inf
    count = e_bh([math.inf] * alone + excess[excess > -math.inf].tolist())
    return np.asarray(excess >= -math.log(max(count, 1)))


@cache
def _expected(test: MatchTest, iia: float, ends: tuple[int, ...]) -> float:
    return power(test, iia, LAST, ends=ends).pairs


def table(sizes: Sequence[int], searches: int | None) -> tuple[float, list[str]]:
    """Prints pairs by mechanism; returns the worst ratio with useful effects at K up to 10^4, and the
    goals that fail."""
    failed, worst = [], {"useful": 0.0, "useless": 0.0}
    print("| K | true | rule | searches | pairs each | expected | ratio | false | missed | found |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for k in sizes:
        for share in (0.01, 0.06):
            before = 0.0
            for rule in MECHANISMS:
                total = Outcome()
                for seed in range(searches or SEARCHES.get(k, 20)):
                    search(rule, drawn(k, share, np.random.default_rng([k, seed])), seed, total)
                each = total.pairs / (total.searches * k)
                expected = total.expected / (min(total.searches, EXPECTED) * k)
                before = before or expected
                true = max(total.true_ones, 1)
                known = "- | -" if rule.fdr else f"{expected:.2f} | {expected / before:.3f}"
                print(
                    f"| {k} | {share:.0%} | {rule.name} | {total.searches} | {each:.2f} | "
                    f"{known} | {total.false / total.searches:.3f} | "
                    f"{total.missed / true:.4f} | {total.found / true:.4f} |",
                    flush=True,
                )
                if rule.effects in worst and (rule.effects == "useless" or k <= 10_000):
                    worst[rule.effects] = max(worst[rule.effects], expected / before)
    failed += [f"useful {worst['useful']:.3f}"] * (worst["useful"] > 0.65)
    failed += [f"useless {worst['useless']:.3f}"] * (worst["useless"] > 1.05)
    print(f"\nworst with useful effects {worst['useful']:.3f}, useless {worst['useless']:.3f}")
    return worst["useful"], failed


def at_the_threshold(k: int, searches: int) -> list[str]:
    """Prints how many searches accept any of `k` hypotheses that are all at the threshold, where the
    bound is tight, and how many are rejected of those."""
    print(f"\nall {k} at the threshold, without the futility stop: ", end="")
    failed = []
    for rule in AT_THRESHOLD:
        total = Outcome()
        for seed in range(searches):
            search(rule, np.full(k, THRESHOLD), seed, total)
        share, missed = total.false / searches, total.missed / (searches * k)
        failed += [f"{rule.name}: false {share:.3f}"] * (
            share > ERROR + 3 * math.sqrt(ERROR / searches)
        )
        failed += [f"{rule.name}: missed {missed:.3f}"] * (missed > ERROR)
        print(f"{rule.name}: false {share:.4f}, rejected {missed:.4f}; ", end="", flush=True)
    print()
    return failed


def false_discoveries(k: int, searches: int) -> list[str]:
    """Prints the mean share of false accepts, and the power at .9, where all false ones are at the
    threshold."""
    print(f"\nfalse discovery rate, K = {k}, all false ones at the threshold, true ones at .9:")
    failed = []
    for share in (0.1, 0.5):
        for rule in (Mechanism("fwer"), Mechanism("fdr", fdr=True)):
            total, true = Outcome(), round(share * k)
            for seed in range(searches):
                search(rule, np.repeat([0.9, THRESHOLD], [true, k - true]), seed, total)
            rate = total.false_share / searches
            failed += [f"false discovery rate {rate:.3f}"] * (rate > ERROR)
            print(
                f"{share:.0%} true, {rule.name}: rate {rate:.4f}, found "
                f"{total.found / total.true_ones:.3f}, pairs {total.pairs / (k * searches):.0f}",
                flush=True,
            )
    return failed


def against_wald(sizes: Sequence[int]) -> list[str]:
    """Prints exact expected pairs at even weights beside Wald's bound, to the right verdict alone."""
    failed = []
    print("\n| K | IIA 0 | .95 | Wald | ratio | 1 | Wald | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for k in sizes:
        test = MatchTest(THRESHOLD, ERROR, ERROR, k)
        none = power(test, 0.0, LAST).pairs
        row = f"| {k} | {none:.2f} "
        failed += [f"pairs at 0: {none:.2f}"] * (none > 3)
        for iia in (0.95, 1.0):
            bound = math.log(k / ERROR) / _divergence(iia)
            needed = power(test, iia, LAST).pairs
            row += f"| {needed:.1f} | {bound:.1f} | {needed / bound:.2f} "
            failed += [f"K = {k}, {iia}: {needed / bound:.2f}"] * (needed > 1.25 * bound)
        print(row + "|")
    return failed


def _divergence(iia: float) -> float:
    """Returns the Kullback-Leibler divergence of a rate from the threshold, in nats."""
    rest = 1 - iia
    tail = rest * math.log(rest / (1 - THRESHOLD)) if rest else 0.0
    return iia * math.log(iia / THRESHOLD) + tail


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--k", type=int, nargs="+", default=list(SEARCHES))
    parser.add_argument("--searches", type=int, default=None)
    asked = parser.parse_args()
    began = time.perf_counter()
    for name, mix in (("true", TRUE), ("false", FALSE)):
        print(f"IIA of {name} hypotheses: {', '.join(f'{i:g}: {p:.0%}' for i, p in mix.items())}")
    ratio, failed = table(asked.k, asked.searches)
    failed += at_the_threshold(50, 4 * (asked.searches or 100))
    failed += false_discoveries(200, asked.searches or 20)
    failed += against_wald(asked.k)
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
    print(f"goals that fail: {'; '.join(failed) or 'none'}")
    print(f"ratio: {ratio:.3f}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
