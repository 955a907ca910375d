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
from hashlib import sha256
from itertools import count, pairwise, takewhile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

OURS = ("exhaustive", "refine", "smallest_subspace", "attribution")
NODES, WEIGHTS = np.polynomial.legendre.leggauss(64)
FACTORIALS = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, 2**20)))])  # logs of them
log_choose = lambda n, k: FACTORIALS[n] - FACTORIALS[k] - FACTORIALS[n - k]  # noqa: E731


def log_chances(n, s, fixed):  # of one sequence of n, if 0, 1, ... of the fixed pairs match
    logs, m = np.full(fixed + 1, -np.inf), np.arange(s, fixed - (n - s) + 1)
    logs[m] = log_choose(fixed - n, m - s) - log_choose(fixed, m)
    return logs


def log_ratio(n, s, p):  # of the likelihood averaged over all rates, to that at p
    return -math.log(n + 1) - log_choose(n, s) - s * math.log(p) - (n - s) * math.log1p(-p)


def log_wealth(x, mean, fixed, of=None):  # of a bettor on scores x, in matchings, against `mean`
    price, total = mean, float(x.sum())
    if fixed is not None:
        allowed = fixed * mean + 1e-9
        if total > allowed or total + fixed - len(x) <= allowed:
            return math.inf if total > allowed else -math.inf
        price = (allowed - (np.cumsum(x) - x)) / (fixed - np.arange(len(x)))
    gains = np.log1p((NODES[:, None] + 1) / 2 * (x / np.clip(price, 1e-9, 1) - 1))
    if of:  # the mean over the four matchings of each block of values
        gains = gains @ (np.arange(4 * (max(of) // 4 + 1)) == np.array(of)[:, None])
        gains = np.logaddexp.reduce(gains.reshape(64, -1, 4), axis=2) - math.log(4)
    return np.logaddexp.reduce(gains.sum(axis=1) + np.log(WEIGHTS / 2))


def log_e(n, s, x, fixed, of, edge):
    """Log e-value of n pairs with s matches, or with scores x, against a mean of at most `edge`."""
    if x is not None or n == 0:
        return log_wealth(np.array(x), float(edge), fixed, of) if n else 0.0
    if fixed is None:  # P(Beta(1+s, 1+n-s) > p) = P(Binomial(n+1, p) <= s)
        j, p = np.arange(s + 1), float(edge)
        tail = log_choose(n + 1, j) + j * math.log(p) + (n + 1 - j) * math.log1p(-p)
        return log_ratio(n, s, p) + min(np.logaddexp.reduce(tail), 0) - math.log1p(-p)
    null, logs = math.floor(edge * fixed), log_chances(n, s, fixed)
    more = np.logaddexp.reduce(logs[null + 1 :]) - math.log(fixed - null)
    return more if more == -math.inf else more - logs[null]


def lower(n, s, x, fixed, of=None):  # the lower end of the 95 % interval
    if x is None and fixed is not None:
        logs = log_chances(n, s, fixed)
        inside = np.logaddexp.reduce(logs) - math.log(fixed + 1) - logs < math.log(20)
        return float(np.argmax(inside)) / max(fixed, 1)
    low, high, halvings = 0.0, s / max(n, 1), 100 * (s > 0)
    if x:
        low, high, halvings = max(math.fsum(x) / fixed - 1e-9, 0.0) if fixed else 0.0, 1.0, 17
    for _ in range(halvings):
        p = (low + high) / 2
        log = log_ratio(n, s, p) if x is None else log_wealth(np.array(x), p, fixed, of)
        low, high = (p, high) if log >= math.log(20 if x is None else 40) else (low, p)
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
                ends.append(min(most, at + 32 if fixed else at + 4 if at < 12 else at * 3 // 2))
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

    def part(self, row, want, events, keep=False):  # (match, score, set) of each pair that counts
        found, c, ablates = [], self.info["scale"], '"operation"' in row["units"]
        for e in events:
            xs = e["scores"][self.score][row["variable"]] if self.score else e["pairs"]
            for p, output, x in zip(e["pairs"], map(self.read, e["outputs"]), xs, strict=True):
                same = self.pairs[p]["base"]
                if keep == (want[p] == same) or (self.kinds == "unfiltered" and not keep):
                    match = output != same if ablates else output == want[p]
                    x = min(max((x + c) / (2 * c), 0.0), 1.0) if c else x if self.score else match
                    found.append((match, x, self.pairs[p]["set"], self.pairs[p]["matching"]))
        return found

    def figures(self, part, tau=Fraction(1, 2), fixed=None):  # log e-values, and the columns
        x = tuple(p[1] for p in part) if self.score or self.new else None
        of, width = self.new and [p[3] for p in part], Fraction(self.test["indifference"])
        n, s, other = len(part), sum(p[0] for p in part), x and tuple(1 - v for v in x)
        up, down = (n, s, x, fixed, of), (n, n - s, other, fixed, of)
        row = {"n": n, "matches": s, "iia": (math.fsum(x) if x else s) / n if n else None}
        es = log_e(*up, tau - width), log_e(*down, 1 - tau - width)
        return es, row | {"low": lower(*up), "high": 1 - lower(*down)}

    def decide(self, given, k, at):  # what `verdicts` holds of a hypothesis, and what `sets`
        key = self.tested.get(name := given["intervention"], name)
        at = at or [n for n, p in enumerate(self.parts) if p[1] in self.seen["test", key]] or [0]
        used, first, blocks = self.parts[at[-1]] if at[-1] < len(self.parts) else ([], 0, [])
        (want, tests, sizes), job = self.tests(given, used), self.test
        level = Fraction(job["false_accept"]) / k
        events = [*takewhile(bool, map(self.seen["test", key].get, count(first)))][: len(blocks)]
        self.differs(f"{name}: pairs", [e["pairs"] for e in events], blocks[: len(events)])
        for seen in range(min(len(events), 1), len(events) + 1):
            parts = [self.part(given, want, events[:seen], keep) for keep in (False, True)]
            found = [self.figures(p, *t) for p, t in zip(parts, tests, strict=False)]
            miss, last = -math.log(Fraction(job["miss"]) / len(tests)), seen == len(blocks)
            said = [0 if up >= -math.log(level) else 1 + (down < miss) for (up, down), _ in found]
            verdict = "reject" if 1 in said else "undecided" if any(said) else "accept"
            if last or (verdict != "undecided" and job["use"] == "sequential"):
                break
        tried = [len(n) for (_, i), n in self.fails.items() if re.split("[@#]", str(i))[0] == name]
        if not last and (verdict == "undecided" or job["use"] == "fixed"):
            verdict = "failed" if max(tried, default=0) > 2 else None
        ups, downs = ([es[i] for es, _ in found] for i in (0, 1))
        told = {"accept": min(ups), "reject": max(downs)}.get(verdict, max(min(ups), *downs))
        row = {**found[0][1], "verdict": verdict, "level": float(level), "evidence": told}
        fixed, row["keep_n"] = tests[0][1], len(parts[1])
        kinds = {kind: [p for p in parts[0] if p[2] == kind] for _, _, kind, _ in parts[0]}
        return row, {k: self.figures(p, fixed=fixed and sizes[k])[1] for k, p in kinds.items() if k}


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
    for h, row in rows.items():
        g, size = sorted(sizes).index(row["generation"]), sizes[row["generation"]]
        at = [0] if not g or run.ours else [] if k else [g]
        found, of_sets = run.decide(row, k or size * (g + 1) * (g + 2), at)
        kept = told.pop(h, {})
        for column in (found if found["verdict"] else ["verdict"]) if kept or run.done else ():
            run.differs(f"{h}: {column}", kept.get(column), found[column])
        for kind, column in ((k, c) for k, of in of_sets.items() if found["verdict"] for c in of):
            run.differs(f"{h}, {kind}: {column}", sets[h, kind].get(column), of_sets[kind][column])
    run.wrong += [f"{h}: has a verdict and is no hypothesis" for h in told]
    unknown = run.tested.keys() - {row["intervention"] for row in rows.values()}
    return run.wrong + [f"{i}: was measured and is no hypothesis" for i in unknown]


if __name__ == "__main__":
    sys.exit("\n".join(check(sys.argv[1])) or None)
