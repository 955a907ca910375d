"""Derives the verdicts, intervals, levels and the selection of a run anew from its journal and pairs,
without raysearch.

It is of docs/check_run.py, is written from docs/explanation/statistics.md alone, and needs numpy;
journal.py beside it reads the run.
"""

import math
from fractions import Fraction
from itertools import takewhile

import numpy as np

from checking import accounts
from checking.formulas import DOWN, UP, chances, e_bh, ends, log_e, log_wealth
from checking.journal import Run
from checking.levels import levels
from checking.policies import best_policy

SPAN = [Fraction(k, 100) for k in (*range(5, 90, 5), *range(90, 100))]
COLUMNS = ("selected", "fcr_level", "fcr_low", "fcr_high", "fdr_verdict")


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

    def margin(self, given, part, fixed):  # the log e-value that it beats the best policy
        policy, same = best_policy(self, v := given["variable"])
        swaps = given["control"] is None and '"operation"' not in given["units"]
        if self.test.get("above_baselines") != "true" or same or not (swaps and part):
            return math.inf
        of = tuple(p[3] for p in part) if self.new else None
        pairs = [(match, self.pairs[p]) for match, *_, p in part]
        x = [(1 + match - (policy(p) == p["cf"][v])) / 2 for match, p in pairs]
        return log_wealth(np.array(x), 0.5, fixed, of)

    def beats(self, given, part, fixed, level):
        return self.margin(given, part, fixed) >= -math.log(level)

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
            held = verdict == "accept" and not self.beats(given, parts[0], fixed, level)
            verdict = "undecided" if held else verdict
            if not last and verdict == "undecided" and not (self.waits or held):
                last = self.is_futile(sides, self.lasts(want, blocks[:end]), edges, *errors)
            last = last and not (verdict == "undecided" and course.goes_on(seen))
            if last or (verdict != "undecided" and not self.once):
                break
        if not last and (verdict == "undecided" or self.once):
            verdict = "failed" if self.gave_up(given["intervention"]) else None
        row = {"verdict": verdict, "level": level, "keep_n": len(parts[1])}
        row |= self.figures(parts[0], fixed)
        row |= accounts.beside(self, given, self.part_of(given, at), parts, [n for _, n in tests])
        row["accept_to"], row["reject_from"] = self.span(sides, edges, *errors)
        if not self.beats(given, parts[0], fixed, level):
            row["accept_to"] = None
        kinds = {kind: [p for p in parts[0] if p[2] == kind] for _, _, kind, *_ in parts[0]}
        sets = {k: self.figures(p, fixed and sizes[k]) for k, p in kinds.items() if k}
        ups, downs = zip(*self.evidence(sides, edges, self.spikes), strict=True)
        e = min(up for up, _ in self.evidence(sides, edges, (UP, DOWN)))
        e = min(e, self.margin(given, parts[0], fixed))
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
    accounts.population(run)
    accounts.left_out(run)
    rows = {row["hypothesis"]: row for row in run.table("tables/hypotheses/*.parquet")}
    told = {row["hypothesis"]: row for row in run.table("tables/verdicts/*.parquet")}
    sets = {(row["hypothesis"], row["set"]): row for row in run.table("tables/sets/*.parquet")}
    found = {h: run.decide(rows[h], *of) for h, of in levels(run, rows, told).items()}
    real = {h: of for h, of in found.items() if rows[h]["control"] is None}
    run.select(real, {h: row["generation"] for h, row in rows.items()})
    for h, (row, of_sets, (up, down), *_) in found.items():
        kept, verdict = told.pop(h, {}), row["verdict"]
        if run.retried and run.fdr and kept.get("verdict") == "undecided":
            verdict = row["verdict"] = "undecided"  # settled before the retry
        row["evidence"] = {"accept": up, "reject": down}.get(verdict, max(up, down))
        if kept.get("part", 0) is None:  # a run of before
            del row["part"]
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
    run.wrong += [f"{i}: was measured and is no hypothesis" for i in unknown]
    return run.wrong, run.taken
