"""Derives the verdicts of a run anew from its journal and pairs, without raysearch.

Run `python docs/check_run.py RUN`: it prints each difference. It needs numpy and pyarrow alone, and
is written from docs/explanation/statistics.md; read_run.py beside it reads the run.
"""

import math
import sys
from fractions import Fraction
from functools import cache
from itertools import takewhile

import numpy as np
from read_run import Run

NODES, WEIGHTS = np.polynomial.legendre.leggauss(300)
UP, DOWN = 1 / 4, 2 / 3  # the spikes of the priors for accepting, and for rejecting
SPAN = [Fraction(k, 100) for k in (*range(5, 90, 5), *range(90, 100))]
COLUMNS = ("selected", "fcr_level", "fcr_low", "fcr_high", "fdr_verdict")
FACTORIALS = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, 2**20)))])  # logs of them
log_choose = lambda n, k: FACTORIALS[n] - FACTORIALS[k] - FACTORIALS[n - k]  # noqa: E731


def log_chances(n, s, fixed):  # of one sequence of n, if 0, 1, ... of the fixed pairs match
    logs, m = np.full(fixed + 1, -np.inf), np.arange(s, fixed - (n - s) + 1)
    logs[m] = log_choose(fixed - n, m - s) - log_choose(fixed, m)
    return logs


def log_wealth(x, mean, fixed, of=None, spike=0.0):  # of a bettor on scores, in matchings
    price, total = mean, float(x.sum())
    if fixed is not None:
        allowed = fixed * mean + 1e-9
        if total > allowed or total + fixed - len(x) <= allowed:
            return math.inf if total > allowed else -math.inf
        price = (allowed - (np.cumsum(x) - x)) / (fixed - np.arange(len(x)))
    with np.errstate(divide="ignore"):  # what is bet whole is lost by a score of 0
        gains = np.log1p(np.append(NODES + 1, 2)[:, None] / 2 * (x / np.clip(price, 1e-9, 1) - 1))
        weights = np.log(np.append((1 - spike) * WEIGHTS / 2, spike))
    gains = np.maximum(gains, -1e12)
    if of:  # the mean over the four matchings of each block of values
        gains = gains @ (np.arange(4 * (max(of) // 4 + 1)) == np.array(of)[:, None])
        gains = np.logaddexp.reduce(gains.reshape(len(gains), -1, 4), axis=2) - math.log(4)
    return np.logaddexp.reduce(gains.sum(axis=1) + weights)


def log_p(n, s, fixed, edge):  # minus the log of the chance of at least s matches
    m = np.arange(s, n + 1)
    if fixed is None:
        logs = log_choose(n, m) + m * math.log(edge) + (n - m) * math.log1p(-edge)
    else:
        most = math.floor(edge * fixed)
        m = m[(m <= most) & (n - m <= fixed - most)]
        logs = log_choose(most, m) + log_choose(fixed - most, n - m) - log_choose(fixed, n)
    return -min(np.logaddexp.reduce(logs), 0.0) if len(m) else math.inf


@cache
def log_e(n, s, x, fixed, of, edge, spike):
    """Log e-value of n pairs with s matches, or with scores x, against a mean of at most `edge`; of
    one look by tails (no spike) minus the log of the p-value."""
    if spike is None or n == 0:
        return log_p(n, s, fixed, edge) if n else 0.0
    if x is not None or fixed is None:  # of draws, matches are scores of 0 and 1
        x = np.arange(n) < s if x is None else np.array(x)
        return log_wealth(x, float(edge), fixed, of, spike)
    null, logs = math.floor(edge * fixed), log_chances(n, s, fixed)
    slab = math.log((1 - spike) / (fixed - null)) + np.logaddexp.reduce(logs[null + 1 :])
    more = np.logaddexp(slab, math.log(spike) if s == n else -np.inf)
    return more if more == -math.inf else more - logs[null]


@cache
def chances(n, s, last, fixed, edges, level, miss):
    """Predictive chances that a test with s of n matches accepts at the pair `last`, and rejects."""
    every, of = range(last + 1), (None, fixed, None)
    ups = np.array([log_e(last, m, *of, edges[0], UP) for m in every]) >= -math.log(level)
    downs = np.array([log_e(last, last - m, *of, edges[1], DOWN) for m in every])
    m, alike = np.arange(s, last - n + s + 1), UP / (UP + (1 - UP) / (n + 1)) * (s == n)
    logs = log_choose(m, m - s) + log_choose(last - m, last - n + s - m)
    more = np.exp(logs - log_choose(last + 1, last - n)) * (1 - alike)
    return more[ups[m]].sum() + alike * ups[-1], more[downs[m] >= -math.log(miss)].sum()


def lower(n, s, x, fixed, of, tails, error=0.05):  # the lower end of an interval
    one, two = -math.log(error), math.log(2 / error)
    if x is None and fixed is not None:
        logs = log_chances(n, s, fixed)
        out = np.logaddexp.reduce(logs) - math.log(fixed + 1) - logs < one
        if tails and fixed:
            out = [log_p(n, s, fixed, Fraction(m, fixed)) < two for m in range(fixed + 1)]
        return float(np.argmax(out)) / max(fixed, 1)

    def excluded(p):
        if x is not None or tails:
            log = log_p(n, s, None, p) if x is None else log_wealth(np.array(x), p, fixed, of)
            return log >= two
        likelihood = s * math.log(p) + (n - s) * math.log1p(-p)
        return -math.log(n + 1) - log_choose(n, s) - likelihood >= one

    low, high, halvings = 0.0, s / max(n, 1), 100 * (s > 0)
    if x:
        low, high, halvings = max(math.fsum(x) / fixed - 1e-9, 0.0) if fixed else 0.0, 1.0, 17
    for _ in range(halvings):
        middle = (low + high) / 2
        low, high = (middle, high) if excluded(middle) else (low, middle)
    return low


def ends(up, down, tails, error=0.05):
    return lower(*up, tails, error), 1 - lower(*down, tails, error)


def e_bh(excesses):  # what it asks of each log of e-value times level
    ranked = [(excess, -math.log(k) - 1e-9) for k, excess in enumerate(sorted(excesses)[::-1], 1)]
    return min((asked for excess, asked in ranked if excess >= asked), default=math.inf)


class Checked(Run):
    def __init__(self, folder):
        super().__init__(folder)
        self.tails, self.alone = self.exact, -math.log(self.delta * (1 - self.reserve))
        self.spikes = (None, None) if self.tails else (UP, DOWN)
        self.width = Fraction(self.test["indifference"])
        self.waits = self.once or self.score or self.new or float(self.test["futility"]) == 0

    def sides(self, part, fixed=None):  # what both e-values are of
        x = tuple(p[1] for p in part) if self.score or self.new else None
        of, n, s = self.new and tuple(p[3] for p in part), len(part), sum(p[0] for p in part)
        return (n, s, x, fixed, of), (n, n - s, x and tuple(1 - v for v in x), fixed, of)

    def figures(self, part, fixed=None):  # the columns
        (n, s, x, *_), _ = sides = self.sides(part, fixed)
        row = {"n": n, "matches": s, "iia": (math.fsum(x) if x else s) / n if n else None}
        return row | dict(zip(("low", "high"), ends(*sides, self.tails), strict=True))

    def edges(self, tau):  # of the nulls of accepting and, mirrored, of rejecting
        return tau - self.width, 1 - tau - self.width

    def evidence(self, sides, edges, spikes):  # logs of each test: to accept, to reject
        both = zip(sides, edges, strict=False)
        return [(log_e(*u, a, spikes[0]), log_e(*d, b, spikes[1])) for (u, d), (a, b) in both]

    def verdict(self, sides, edges, level, miss):
        logs = [(u >= -math.log(level), d) for u, d in self.evidence(sides, edges, self.spikes)]
        if any(not accepts and down >= -math.log(miss) for accepts, down in logs):
            return "reject"
        return "accept" if all(accepts for accepts, _ in logs) else "undecided"

    def span(self, sides, edges, level, miss):  # the verdict at every threshold
        def said(t):
            keep = self.edges(t) if self.test["keep_threshold"] == "null" else edges[-1]
            return self.verdict(sides, [self.edges(t), keep], level, miss)

        inside = [t for t in SPAN if self.width < t < 1 - self.width]
        accepted = [*takewhile(lambda t: said(t) == "accept", inside)]
        rejected = [*takewhile(lambda t: said(t) == "reject", reversed(inside))]
        return [float(of[-1]) if of else None for of in (accepted, rejected)]

    def is_futile(self, sides, lasts, edges, level, miss):
        level, of = self.delta if self.fdr else level, zip(sides, lasts, edges, strict=False)
        both = [chances(*up[:2], last, up[3], edge, level, miss) for (up, _), last, edge in of]
        return min(a for a, _ in both) + sum(r for _, r in both) < float(self.test["futility"])

    def decide(self, given, level, at, share):  # what `verdicts` holds of it, and `sets`
        used, blocks, events, course = self.measured(given, at)
        want, tests, sizes = self.tests(given, used)
        errors = level, float(Fraction(self.test["miss"]) / len(tests)) * share
        edges, fixed, parts = [self.edges(t) for t, _ in tests], tests[0][1], ([], [])
        for seen, event in enumerate(events or [None], 1):
            for keep in (False, True) if event else ():
                parts[keep].extend(self.part(given, want, event, keep))
            sides = [self.sides(p, n) for p, (_, n) in zip(parts, tests, strict=False)]
            verdict, end = self.verdict(sides, edges, *errors), course.end(event)
            last = seen >= end
            if not last and verdict == "undecided" and not self.waits:
                last = self.is_futile(sides, self.lasts(want, blocks[:end]), edges, *errors)
            last = last and not (verdict == "undecided" and course.goes_on(seen))
            if last or (verdict != "undecided" and not self.once):
                break
        if not last and (verdict == "undecided" or self.once):
            verdict = "failed" if self.gave_up(given["intervention"]) else None
        row = {"verdict": verdict, "level": level, "keep_n": len(parts[1])}
        row |= self.figures(parts[0], fixed)
        row["accept_to"], row["reject_from"] = self.span(sides, edges, *errors)
        kinds = {kind: [p for p in parts[0] if p[2] == kind] for _, _, kind, _ in parts[0]}
        sets = {k: self.figures(p, fixed and sizes[k]) for k, p in kinds.items() if k}
        ups, downs = zip(*self.evidence(sides, edges, self.spikes), strict=True)
        e = min(up for up, _ in self.evidence(sides, edges, (UP, DOWN)))
        may = verdict in ("accept", "undecided") and e >= self.alone
        excess = e + math.log(level) if may else -math.inf
        return row, sets, (min(ups), max(downs)), excess, sides[0]

    def select(self, found, generations):  # what e-BH accepts of each, beside what is accepted
        accepted = 0
        for g in sorted(set(generations.values())) if self.fdr else ():
            of = [(one[0], one[3]) for h, one in found.items() if generations[h] == g]
            accepted += sum(row["verdict"] == "accept" for row, _ in of)
            waiting = [(row, excess) for row, excess in of if row["verdict"] == "undecided"]
            asked = e_bh([*(excess for _, excess in waiting), *[0.0] * accepted])
            for row in (row for row, excess in waiting if excess >= asked):
                row["verdict"], accepted = "accept", accepted + 1

    def selection(self, found):  # the rows of `selection`
        asked = -1e-9 if self.more else e_bh([excess for *_, excess, _ in found.values()])
        accepted = {h for h, (row, *_) in found.items() if row["verdict"] == "accept"}
        counted_as = 1 if self.more else len(accepted)
        for h, (row, _, _, excess, sides) in found.items():
            one, by_fdr = [None] * 4, "accept" if excess >= asked else None
            if h in accepted:
                error = 0.05 * min(1.0, counted_as * row["level"] / self.delta)
                one = [len(accepted), 1 - error, *ends(*sides, False, error)]
            if h in accepted or by_fdr:
                yield h, dict(zip(COLUMNS, [*one, by_fdr], strict=True))


def check(folder):
    run = Checked(folder)
    run.differs("evidence_version", run.info["evidence_version"], 9)
    run.differs("above_baselines", run.test.get("above_baselines", "false"), "false")
    rows = {row["hypothesis"]: row for row in run.table("tables/hypotheses/*.parquet")}
    told = {row["hypothesis"]: row for row in run.table("tables/verdicts/*.parquet")}
    sets = {(row["hypothesis"], row["set"]): row for row in run.table("tables/sets/*.parquet")}
    found = {h: run.decide(rows[h], *of) for h, of in run.levels(rows, told).items()}
    real = {h: of for h, of in found.items() if rows[h]["control"] is None}
    run.select(real, {h: row["generation"] for h, row in rows.items()})
    for h, (row, of_sets, (up, down), *_) in found.items():
        kept, verdict = told.pop(h, {}), row["verdict"]
        if run.retried and run.fdr and kept.get("verdict") == "undecided":
            verdict = row["verdict"] = "undecided"  # settled before the retry
        row["evidence"] = {"accept": up, "reject": down}.get(verdict, max(up, down))
        if kept or run.done:
            run.differ(h, kept, row if verdict else {"verdict": None})
        for kind, figures in of_sets.items() if verdict else ():
            run.differ(f"{h}, {kind}", sets.get((h, kind), {}), figures)
    if run.done:
        kept = {row.pop("hypothesis"): row for row in run.table("tables/selection/*.parquet")}
        derived = dict(run.selection(real))
        for h in sorted(kept | derived):
            run.differ(h, kept.get(h, {}), derived.get(h, dict.fromkeys(COLUMNS)))
    run.wrong += [f"{h}: has a verdict and is no hypothesis" for h in told]
    unknown = run.tested.keys() - {row["intervention"] for row in rows.values()}
    return run.wrong + [f"{i}: was measured and is no hypothesis" for i in unknown]


if __name__ == "__main__":
    sys.exit("\n".join(check(sys.argv[1])) or None)
