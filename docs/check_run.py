"""Derives the verdicts of a run anew from its journal and pairs, without raysearch: `python
docs/check_run.py RUN` prints each difference. It needs numpy and pyarrow alone, and is written from
docs/reference/journal.md, tables.md beside it and docs/explanation/statistics.md."""

import json
import math
import random
import re
import sys
from collections import Counter, defaultdict
from fractions import Fraction
from functools import cache
from hashlib import sha256
from itertools import count, pairwise, takewhile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

OURS = ("exhaustive", "refine", "smallest_subspace", "attribution")
NODES, WEIGHTS = np.polynomial.legendre.leggauss(300)
UP, DOWN = 1 / 4, 2 / 3  # the spikes of the priors for accepting, and for rejecting
FACTORIALS = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, 2**20)))])  # logs of them
log_choose = lambda n, k: FACTORIALS[n] - FACTORIALS[k] - FACTORIALS[n - k]  # noqa: E731


def log_chances(n, s, fixed):  # of one sequence of n, if 0, 1, ... of the fixed pairs match
    logs, m = np.full(fixed + 1, -np.inf), np.arange(s, fixed - (n - s) + 1)
    logs[m] = log_choose(fixed - n, m - s) - log_choose(fixed, m)
    return logs


def log_ratio(n, s, p):  # of the likelihood averaged over all rates, to that at p
    return -math.log(n + 1) - log_choose(n, s) - s * math.log(p) - (n - s) * math.log1p(-p)


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
def log_e(n, s, x, fixed, of, edge, spike=None):
    """Log e-value of n pairs with s matches, or with scores x, against a mean of at most `edge`; of
    one look (no spike) minus the log of the p-value."""
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
def chance(
    n, s, last, fixed, edges, level, miss
):  # that a test of n pairs accepts, rejects at last
    of = last, None, fixed, None
    ups = [log_e(last, m, *of[1:], edges[0], UP) for m in range(last + 1)]
    downs = [log_e(last, last - m, *of[1:], edges[1], DOWN) for m in range(last + 1)]
    m, alike = np.arange(s, last - n + s + 1), UP / (UP + (1 - UP) / (n + 1)) * (s == n)
    logs = log_choose(m, m - s) + log_choose(last - m, last - n + s - m)
    more = np.exp(logs - log_choose(last + 1, last - n)) * (1 - alike)
    ups, downs = np.array(ups) >= -math.log(level), np.array(downs) >= -math.log(miss)
    return more[ups[m]].sum() + alike * ups[-1], more[downs[m]].sum()


def lower(n, s, x, fixed, of, exact):  # the lower end of the 95 % interval
    if exact and fixed:
        possible = (Fraction(m, fixed) for m in range(s, fixed + 1))
        return float(next(p for p in possible if log_p(n, s, fixed, p) < math.log(40)))
    if x is None and fixed is not None:
        logs = log_chances(n, s, fixed)
        inside = np.logaddexp.reduce(logs) - math.log(fixed + 1) - logs < math.log(20)
        return float(np.argmax(inside)) / max(fixed, 1)
    low, high, halvings = 0.0, s / max(n, 1), 100 * (s > 0)
    if x:
        low, high, halvings = max(math.fsum(x) / fixed - 1e-9, 0.0) if fixed else 0.0, 1.0, 17
    for _ in range(halvings):
        p = (low + high) / 2
        log = log_p(n, s, None, p) if exact else log_ratio(n, s, p) if x is None else None
        log = log_wealth(np.array(x), p, fixed, of) if log is None else log
        at = math.log(40 if exact or x is not None else 20)
        low, high = (p, high) if log >= at else (low, p)
    return low


class Run:
    def __init__(self, folder):
        self.folder, self.wrong, self.said, self.parts, self.trained = folder, [], {}, [], False
        self.info = json.loads((self.folder / "run.json").read_text())
        rooms = re.findall(r"^(\w+):\n((?:  .*\n)+)", (folder / "job.yaml").read_text(), re.M)
        rooms = {name: dict(re.findall(r"^  (\w+): (.*)", keys, re.M)) for name, keys in rooms}
        self.test, self.kinds, self.keys = rooms["test"], rooms["pairs"]["kinds"], rooms["pairs"]
        about = json.loads(pq.read_schema(folder / "pairs.parquet").metadata[b"population"])
        self.fixed, self.new = about["fixed"], about["name"] == "new_values"
        self.ours = rooms["propose"]["use"] in OURS
        self.exact = (self.test["use"], self.test["score"], self.new) == ("fixed", "matches", False)
        self.score = None if self.test["score"] == "matches" else self.test["score"]
        self.pairs = {row["index"]: row for row in self.table("pairs.parquet")}
        for p in self.pairs.values():
            of = {s["name"]: tuple(s["answer_ids"]) for s in p["sources"] if s["answer_ids"]}
            cf = {c["variable"]: tuple(c["ids"]) for c in p["counterfactual"] if c["ids"]}
            inputs = sorted((s["name"], s["text"], s["tensor"]) for s in p["sources"])
            p |= {"base": tuple(p["base_answer_ids"]), "from": of, "cf": cf}
            p["content"] = p["base_text"], p["base_tensor"], inputs
            self.said |= {a: a for a in (p["base"], *p["from"].values(), *p["cf"].values())}
            self.said |= {tuple(a["said"]): tuple(a["answer"]) for a in p["aliases"]}
        self.journal()
        self.screen()

    def table(self, glob):
        return [r for f in sorted(self.folder.glob(glob)) for r in pq.read_table(f).to_pylist()]

    def differs(self, what, told, derived):
        numbers = all(isinstance(v, float | int) for v in (told, derived))
        if told != derived and not (numbers and abs(told - derived) <= 1e-6):
            self.wrong.append(f"{what} is {told!r}; {derived!r} follows")

    def journal(self):  # reads the first event of each block, and what failed
        lines, counts, self.seen, self.fails = {}, {}, defaultdict(dict), defaultdict(list)
        for driver in (self.folder / "journal").iterdir():
            texts = b"".join(f.read_bytes() for f in sorted(driver.glob("*.jsonl"))).splitlines()
            sums = [b',"sum":"%.16s"}' % sha256(t[:-26] + b"}").hexdigest().encode() for t in texts]
            good = [json.loads(t) for t, s in zip(texts, sums, strict=True) if t[-26:] == s]
            lines[driver.name] = [line["entry"] for line in good]
            if [g["seq"] for g in good] != [*range(max(len(texts) - 1, len(good)))]:
                self.wrong.append(f"journal/{driver.name}: a line is damaged, or lost")
        for driver, of in sorted(lines.items(), reverse=True):
            read = [e["read"] for e in of[:2] if e["type"] == "follows"] or [{}]
            counts = {**read[0], driver: len(of), **counts}
        for e in (e for driver in sorted(counts) for e in lines.get(driver, ())[: counts[driver]]):
            of, block = (e.get("split"), e.get("intervention")), e.get("block")
            self.done, self.trained = e.get("status") == "done", self.trained or "seed" in e
            if e["type"] in ("screened", "measured") and block not in self.seen[of]:
                self.seen[of][block], self.fails[of] = e, []
            elif e["type"] == "retried":  # what failed goes on after the last block that counted
                for of, at in ((of, at) for of, at in self.fails.items() if len(at) >= 3):
                    self.seen[of] = {b: o for b, o in self.seen[of].items() if b < at[-1]}
                self.fails.clear()
            elif e["type"] == "failed" or e.get("cause") in ("worker", "deadline"):
                of = of if block is not None else (of[0], "+".join(e["group"]))
                self.fails[of].append(e["blocks"][0] if block is None else block)

    def read(self, output):  # the answer that it stands for: the longest that it begins with
        known = (self.said.get(tuple(output[:length])) for length in range(len(output), 0, -1))
        return next((answer for answer in known if answer is not None), tuple(output))

    def screen(self):  # which pairs count, in parts for generations, and their blocks
        events = [e for (_, one), of in self.seen.items() if one is None for e in of.values()]
        solved, used, first, every = {}, {}, 0, self.keys["solved_only"] == "false"
        for event, i, p in ((e, i, p) for e in events for i, p in enumerate(e["pairs"])):
            of, sources = self.pairs[p], event["sources"]
            right = [self.read(sources[s][i]) == a for s, a in of["from"].items()]
            solved[p] = every or (self.read(event["base"][i]) == of["base"] and all(right))
        for split in ("fit", "test"):
            of = [p for p in self.pairs if solved.get(p) and self.pairs[p]["split"] == split]
            trained = [self.pairs[p]["content"] for p in used.get("fit", ()) if self.trained]
            used[split] = [p for p in of if self.pairs[p]["content"] not in trained]
        left, parts, want = used["test"], [], min(int(self.keys["test"]), len(used["test"]))
        fixed, later = self.test["use"] == "fixed", 0
        while not self.ours and (n := min(want, max(len(left) // 2, min(later, len(left))))) >= 4:
            parts, left, later = [*parts, left[:n]], left[n:], 256
        for part in parts or [left[:want]]:
            ends, most = [0], min(len(part), int(self.test["pairs" if fixed else "max_pairs"]))
            while (at := ends[-1]) < most:
                ends.append(min(most, at + 32 if fixed else max(2, at + 1, at * 21 // 20)))
            if self.new and not fixed:  # blocks of values
                of = [self.pairs[p]["matching"] // 4 for p in part[:most]]
                ends = [0, *(i for i in range(1, most) if of[i] != of[i - 1]), most]
            self.parts.append((part, first, [part[a:b] for a, b in pairwise(ends)]))
            first += len(ends) - 1
        self.tested = {i.partition("@")[0]: i for s, i in self.seen if s == "test" and i}

    def tests(self, row, used):  # what each pair should give; the tests: (threshold, fixed pairs)
        v, shift = row["variable"], row["control"] == "arbitrary_labels"
        values = sorted({p["cf"][v] for p in self.pairs.values()})
        random.Random("0.arbitrary_labels").shuffle(values)
        labels = dict(zip(values, values[shift:] + values[:shift], strict=True))
        want = {i: labels[p["cf"][v]] for i, p in self.pairs.items()}
        change = [p for p in used if want[p] != self.pairs[p]["base"]]
        counts = used if self.kinds == "unfiltered" else change
        taus = [self.test["threshold"], self.test["keep_threshold"]]
        taus = [Fraction(taus[0] if tau == "null" else tau) for tau in taus]
        sizes = [len(counts), (len(used) - len(change)) * (self.kinds == "both")]
        tests = [(t, n if self.fixed else None) for t, n in zip(taus, sizes, strict=True) if n]
        return want, tests, Counter(self.pairs[p]["set"] for p in counts)

    def part(self, row, want, e, keep):  # (match, score, set) of each pair that counts
        found, c, ablates = [], self.info["scale"], '"operation"' in row["units"]
        xs = e["scores"][self.score][row["variable"]] if self.score else e["pairs"]
        for p, output, x in zip(e["pairs"], map(self.read, e["outputs"]), xs, strict=True):
            same = self.pairs[p]["base"]
            if keep == (want[p] == same) or (self.kinds == "unfiltered" and not keep):
                match = output != same if ablates else output == want[p]
                x = min(max((x + c) / (2 * c), 0.0), 1.0) if c else x if self.score else match
                found.append((match, x, self.pairs[p]["set"], self.pairs[p]["matching"]))
        return found

    def sides(self, part, fixed=None):  # what both e-values are of
        x = tuple(p[1] for p in part) if self.score or self.new else None
        of, n, s = self.new and tuple(p[3] for p in part), len(part), sum(p[0] for p in part)
        return (n, s, x, fixed, of), (n, n - s, x and tuple(1 - v for v in x), fixed, of)

    def figures(self, part, fixed=None):  # the columns
        (n, s, x, *_), _ = up, down = self.sides(part, fixed)
        row = {"n": n, "matches": s, "iia": (math.fsum(x) if x else s) / n if n else None}
        return row | {"low": lower(*up, self.exact), "high": 1 - lower(*down, self.exact)}

    def weights(self, rows):  # of hypotheses, by their effects on fit pairs
        def places(units):
            known = (json.dumps([u["site"], u["source"], u["source_site"]]) for u in units)
            return dict.fromkeys(known)

        effects = self.table("tables/effects/*.parquet")
        known = {(e["variable"], *places(json.loads(e["units"]))): e["effect"] for e in effects}
        of, by, found = {}, defaultdict(list), {}
        for h, row in ((h, row) for h, row in rows.items() if row["control"] is None):
            all_of = [known.get((row["variable"], p)) for p in places(json.loads(row["units"]))]
            of[h] = row["variable"], 0.0 if None in all_of else math.fsum(all_of)
            by[row["variable"]].append(of[h][1])
        sums = {v: (len(es), math.fsum(es), math.fsum(e**3 for e in es)) for v, es in by.items()}
        for h, (v, e) in of.items() if any(map(any, by.values())) else ():
            size, first, third = sums[v]
            over = (math.e - 1) * (size * (e / first + e**3 / third) / 2 if first else 1)
            found[h] = 2 ** (math.floor(8 * math.log2(1 + over) + 1e-9) / 8) / math.e / len(of)
        return found

    def decide(self, given, level, at):  # what `verdicts` holds of a hypothesis, and what `sets`
        key = self.tested.get(name := given["intervention"], name)
        at = at or [n for n, p in enumerate(self.parts) if p[1] in self.seen["test", key]] or [0]
        used, first, blocks = self.parts[at[-1]] if at[-1] < len(self.parts) else ([], 0, [])
        (want, tests, sizes), job = self.tests(given, used), self.test
        futility, miss = float(job.get("futility", 0)), float(Fraction(job["miss"]) / len(tests))
        asked, width = [p for block in blocks for p in block], Fraction(job["indifference"])
        change = sum(want[p] != self.pairs[p]["base"] for p in asked)
        lasts = len(asked) if self.kinds == "unfiltered" else change, len(asked) - change
        edges, parts = [(t - width, 1 - t - width) for t, _ in tests], ([], [])
        spikes = () if self.exact else (UP, DOWN)
        events = [*takewhile(bool, map(self.seen["test", key].get, count(first)))][: len(blocks)]
        self.differs(f"{name}: pairs", [e["pairs"] for e in events], blocks[: len(events)])
        for seen, event in enumerate(events or [None], 1):
            for keep in (False, True) if event else ():
                parts[keep].extend(self.part(given, want, event, keep))
            sides = [self.sides(p, n) for p, (_, n) in zip(parts, tests, strict=False)]
            es = [log_e(*u, a, *spikes[:1]) for (u, _), (a, _) in zip(sides, edges, strict=True)]
            of = zip(es, sides, edges, strict=True)
            found = [(up, log_e(*d, b, *spikes[1:])) for up, (_, d), (_, b) in of]
            said = [0 if u >= -math.log(level) else 1 + (d < -math.log(miss)) for u, d in found]
            verdict = "reject" if 1 in said else "undecided" if any(said) else "accept"
            last = seen >= len(blocks)
            if last or (verdict != "undecided" and job["use"] == "sequential"):
                break
            if futility > 0 and not (self.score or self.new) and job["use"] == "sequential":
                of = zip(sides, lasts, edges, strict=False)
                chances = [chance(u[0], u[1], m, u[3], e, level, miss) for (u, _), m, e in of]
                last = min(a for a, _ in chances) + sum(r for _, r in chances) < futility
                if last:
                    break
        tried = [len(n) for (_, i), n in self.fails.items() if re.split("[@#]", str(i))[0] == name]
        if not last and (verdict == "undecided" or job["use"] == "fixed"):
            verdict = "failed" if max(tried, default=0) > 2 else None
        ups, downs = zip(*found, strict=True)
        told = {"accept": min(ups), "reject": max(downs)}.get(verdict, max(min(ups), *downs))
        row = {"verdict": verdict, "level": level, "evidence": told, "keep_n": len(parts[1])}
        row |= self.figures(parts[0], fixed := tests[0][1])
        kinds = {kind: [p for p in parts[0] if p[2] == kind] for _, _, kind, _ in parts[0]}
        return row, {k: self.figures(p, fixed and sizes[k]) for k, p in kinds.items() if k}


def check(folder):
    run = Run(Path(folder))
    run.differs("evidence_version", run.info["evidence_version"], 9)
    run.differs("above_baselines", run.test.get("above_baselines", "false"), "false")
    rows = {row["hypothesis"]: row for row in run.table("tables/hypotheses/*.parquet")}
    told = {row["hypothesis"]: row for row in run.table("tables/verdicts/*.parquet")}
    sets = defaultdict(dict)
    sets |= {(row["hypothesis"], row["set"]): row for row in run.table("tables/sets/*.parquet")}
    sizes = Counter(row["generation"] for row in rows.values() if row["control"] is None)
    run.differs("K", k := run.info["k"], max(k, sizes.total() if k else 0))
    delta, weights = float(run.test["false_accept"]), {}
    if run.ours and run.test.get("weights", "even") != "even":
        weights = run.weights(rows)
    for h, row in rows.items():
        g, size = sorted(sizes).index(row["generation"]), sizes[row["generation"]]
        at = [0] if not g or run.ours else [] if k else [g]
        kept, level = told.pop(h, {}), delta * weights.get(h, 1 / (k or size * (g + 1) * (g + 2)))
        if kept and weights and len(weights) < k:  # of a set that is not all proposed
            level = kept["level"]
        found, of_sets = run.decide(row, level, at)
        for column in (found if found["verdict"] else ["verdict"]) if kept or run.done else ():
            run.differs(f"{h}: {column}", kept.get(column), found[column])
        for kind, column in ((k, c) for k, of in of_sets.items() if found["verdict"] for c in of):
            run.differs(f"{h}, {kind}: {column}", sets[h, kind].get(column), of_sets[kind][column])
    run.wrong += [f"{h}: has a verdict and is no hypothesis" for h in told]
    unknown = run.tested.keys() - {row["intervention"] for row in rows.values()}
    return run.wrong + [f"{i}: was measured and is no hypothesis" for i in unknown]


if __name__ == "__main__":
    sys.exit("\n".join(check(sys.argv[1])) or None)
