"""Checks a run without raysearch: derives its verdicts anew from its journal and its pairs.

Run it as `python docs/check_run.py RUN`. It needs Python 3.11, numpy and pyarrow, and is written
from docs/reference/journal.md, docs/reference/tables.md and docs/explanation/statistics.md alone.
It prints each difference; its exit code is 1 if there is one, else 0.
"""

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

NODES, WEIGHTS = np.polynomial.legendre.leggauss(64)
FACTORIALS = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, 2**20)))])  # logs of them


def log_choose(n, k):
    return FACTORIALS[n] - FACTORIALS[k] - FACTORIALS[n - k]


def log_chances(n, s, fixed):  # of one sequence of n, if 0, 1, ... of the fixed pairs match
    logs, m = np.full(fixed + 1, -np.inf), np.arange(s, fixed - (n - s) + 1)
    logs[m] = log_choose(fixed - n, m - s) - log_choose(fixed, m)
    return logs


def log_ratio(n, s, p):  # of the likelihood averaged over all rates, to that at p
    return -math.log(n + 1) - log_choose(n, s) - s * math.log(p) - (n - s) * math.log1p(-p)


def log_wealth(x, mean, fixed):  # of a bettor on scores x against `mean`
    price, total = mean, float(x.sum())
    if fixed is not None:
        allowed = fixed * mean + 1e-9
        if total > allowed or total + fixed - len(x) <= allowed:
            return math.inf if total > allowed else -math.inf
        price = (allowed - (np.cumsum(x) - x)) / (fixed - np.arange(len(x)))
    gains = np.log1p((NODES[:, None] + 1) / 2 * (x / np.clip(price, 1e-9, 1) - 1))
    return np.logaddexp.reduce(gains.sum(axis=1) + np.log(WEIGHTS / 2))


def log_e(n, s, x, fixed, edge):
    """Log e-value of n pairs with s matches, or with scores x, against a mean of at most `edge`."""
    if x is not None or n == 0:
        return log_wealth(np.array(x), float(edge), fixed) if n else 0.0
    if fixed is None:  # P(Beta(1+s, 1+n-s) > p) = P(Binomial(n+1, p) <= s)
        j, p = np.arange(s + 1), float(edge)
        tail = log_choose(n + 1, j) + j * math.log(p) + (n + 1 - j) * math.log1p(-p)
        return log_ratio(n, s, p) + min(np.logaddexp.reduce(tail), 0) - math.log1p(-p)
    null, logs = math.floor(edge * fixed), log_chances(n, s, fixed)
    more = np.logaddexp.reduce(logs[null + 1 :]) - math.log(fixed - null)
    return more if more == -math.inf else more - logs[null]


def lower(n, s, x, fixed):  # the lower end of the 95 % interval
    if x is None and fixed is not None:
        logs = log_chances(n, s, fixed)
        inside = np.logaddexp.reduce(logs) - math.log(fixed + 1) - logs < math.log(20)
        return float(np.argmax(inside)) / max(fixed, 1)
    low, high, halvings = 0.0, s / max(n, 1), 100 * (s > 0)
    if x:
        low, high, halvings = max(math.fsum(x) / fixed - 1e-9, 0.0) if fixed else 0.0, 1.0, 17
    for _ in range(halvings):
        p = (low + high) / 2
        log = log_ratio(n, s, p) if x is None else log_wealth(np.array(x), p, fixed)
        low, high = (p, high) if log >= math.log(20 if x is None else 40) else (low, p)
    return low


class Run:
    def __init__(self, folder):
        self.folder, self.wrong, self.said, self.scale = Path(folder), [], {}, None
        self.info = json.loads((self.folder / "run.json").read_text())
        rooms = re.findall(r"^(\w+):\n((?:  .*\n)+)", (folder / "job.yaml").read_text(), re.M)
        rooms = {name: dict(re.findall(r"^  (\w+): (.*)", keys, re.M)) for name, keys in rooms}
        self.test, self.kinds, self.keys = rooms["test"], rooms["pairs"]["kinds"], rooms["pairs"]
        self.score = None if self.test["score"] == "matches" else self.test["score"]
        self.pairs = {row["index"]: row for row in self.table("pairs.parquet")}
        for p in self.pairs.values():
            sources = [(s["name"], tuple(s["answer_ids"])) for s in p["sources"] if s["answer_ids"]]
            answers = [(c["variable"], tuple(c["ids"])) for c in p["counterfactual"] if c["ids"]]
            p |= {"base": tuple(p["base_answer_ids"]), "from": dict(sources), "cf": dict(answers)}
            self.said |= {a: a for a in (p["base"], *p["from"].values(), *p["cf"].values())}
            self.said |= {tuple(a["said"]): tuple(a["answer"]) for a in p["aliases"]}
        self.journal()
        self.screen()

    def table(self, glob):
        files = sorted(self.folder.glob(glob))
        merged = max((f.name[:49] for f in files if ".merged." in f.name), default="")
        return [r for f in files if f.name >= merged for r in pq.read_table(f).to_pylist()]

    def differs(self, what, told, derived):
        numbers = all(isinstance(v, float | int) for v in (told, derived))
        if told != derived and not (numbers and abs(told - derived) <= 1e-6):
            self.wrong.append(f"{what} is {told!r}; {derived!r} follows")

    def journal(self):  # reads the first event of each block, and what failed
        lines, counts, self.seen, self.fails = {}, {}, defaultdict(dict), Counter()
        for folder in (self.folder / "journal").iterdir():
            files = sorted(folder.glob("*.jsonl"))
            texts = b"".join(file.read_bytes() for file in files).splitlines()
            sums = [b',"sum":"%.16s"}' % sha256(t[:-26] + b"}").hexdigest().encode() for t in texts]
            good = [json.loads(t) for t, s in zip(texts, sums, strict=True) if t[-26:] == s]
            lines[folder.name] = [line["entry"] for line in good]
            if [g["seq"] for g in good] != [*range(max(len(texts) - 1, len(good)))]:
                self.wrong.append(f"journal/{folder.name}: a line is damaged, or lost")
        for driver in sorted(lines, reverse=True):
            read = [e["read"] for e in lines[driver][:2] if e["type"] == "follows"] or [{}]
            counts = {**read[0], driver: len(lines[driver]), **counts}
        for e in (e for driver in sorted(counts) for e in lines.get(driver, ())[: counts[driver]]):
            of, block = (e.get("split"), e.get("intervention")), e.get("block")
            self.done = e.get("status") == "done"
            if e["type"] in ("screened", "measured") and block not in self.seen[of]:
                self.seen[of][block], self.fails[of] = e, 0
            elif e["type"] == "retried":  # what failed goes on after the last block that counted
                for of in (of for of, n in self.fails.items() if n >= 3):
                    self.seen[of] = dict(enumerate(self.counted(*of)))
                self.fails.clear()
            elif e["type"] == "failed" or e.get("cause") in ("worker", "deadline"):
                self.fails[of if block is not None else (of[0], "+".join(e["group"]))] += 1

    def counted(self, *of):
        return list(takewhile(bool, (self.seen[of].get(block) for block in count())))

    def read(self, output):  # the answer that it stands for: the longest that it begins with
        known = (self.said.get(tuple(output[:length])) for length in range(len(output), 0, -1))
        return next((answer for answer in known if answer is not None), tuple(output))

    def screen(self):  # which pairs count, their blocks, and the scale of logit differences
        events = [e for (_, one), of in self.seen.items() if one is None for e in of.values()]
        solved, leads, used, ends, every = {}, {}, {}, [0], self.keys["solved_only"] == "false"
        for event, i, p in ((e, i, p) for e in events for i, p in enumerate(e["pairs"])):
            of, sources = self.pairs[p], event["sources"]
            right = [self.read(sources[s][i]) == a for s, a in of["from"].items()]
            solved[p] = every or (self.read(event["base"][i]) == of["base"] and all(right))
            told = (event.get("scores") or {}).get("logit_difference", {})
            leads[p] = [-d[i] for v, d in told.items() if of["cf"][v] != of["base"]]
        for split in ("fit", "test"):
            of = [p for p in self.pairs if solved.get(p) and self.pairs[p]["split"] == split]
            used[split] = of[: int(self.keys[split])]
        if self.score == "logit_difference":
            self.scale = float(np.mean([lead for p in used["fit"] for lead in leads[p]]))
        self.used, fixed = used["test"], self.test["use"] == "fixed"
        most = min(len(self.used), int(self.test["pairs" if fixed else "max_pairs"]))
        while ends[-1] < most:
            end = ends[-1] + 32 if fixed else ends[-1] + 4 if ends[-1] < 12 else ends[-1] * 3 // 2
            ends.append(min(end, most))
        self.blocks = [self.used[a:b] for a, b in pairwise(ends)]
        self.tested = {i.partition("@")[0]: i for s, i in self.seen if s == "test" and i}

    def tests(self, row):  # what each pair should give, and the tests: (threshold, fixed pairs)
        v, shift = row["variable"], row["control"] == "arbitrary_labels"
        values = sorted({p["cf"][v] for p in self.pairs.values()})
        random.Random("0.arbitrary_labels").shuffle(values)
        labels = dict(zip(values, values[shift:] + values[:shift], strict=True))
        want = {i: labels[p["cf"][v]] for i, p in self.pairs.items()}
        change = [p for p in self.used if want[p] != self.pairs[p]["base"]]
        counts = self.used if self.kinds == "unfiltered" else change
        taus = [self.test["threshold"], self.test["keep_threshold"]]
        taus = [Fraction(taus[0] if tau == "null" else tau) for tau in taus]
        sizes = [len(counts), (len(self.used) - len(change)) * (self.kinds == "both")]
        fixed = self.test["claim"] == "these_pairs"
        tests = [(t, n if fixed else None) for t, n in zip(taus, sizes, strict=True) if n]
        return want, tests, Counter(self.pairs[p]["set"] for p in counts)

    def part(self, row, want, events, keep=False):  # (match, score, set) of each pair that counts
        found, c, ablates = [], self.scale, '"operation"' in row["units"]
        for e in events:
            xs = e["scores"][self.score][row["variable"]] if self.score else e["pairs"]
            for p, output, x in zip(e["pairs"], map(self.read, e["outputs"]), xs, strict=True):
                same = self.pairs[p]["base"]
                if keep == (want[p] == same) or (self.kinds == "unfiltered" and not keep):
                    match = output != same if ablates else output == want[p]
                    x = min(max((x + c) / (2 * c), 0.0), 1.0) if c else x
                    found.append((match, x, self.pairs[p]["set"]))
        return found

    def figures(self, part, tau=Fraction(1, 2), fixed=None):  # log e-values, and the columns
        x, width = self.score and tuple(p[1] for p in part), Fraction(self.test["indifference"])
        n, s, other = len(part), sum(p[0] for p in part), x and tuple(1 - v for v in x)
        up, down = (n, s, x, fixed), (n, n - s, other, fixed)
        mean = (math.fsum(x) if x else s) / n if n else None
        es = log_e(*up, tau - width), log_e(*down, 1 - tau - width)
        return es, {"n": n, "matches": s, "iia": mean, "low": lower(*up), "high": 1 - lower(*down)}

    def decide(self, given, level):  # what `verdicts` holds of a hypothesis, and what `sets` does
        name, (want, tests, sizes), job = given["intervention"], self.tests(given), self.test
        key = self.tested.get(name, name)
        events = self.counted("test", key)
        self.differs(f"{name}: pairs", [e["pairs"] for e in events], self.blocks[: len(events)])
        for seen in range(min(len(events), 1), len(events) + 1):
            parts = [self.part(given, want, events[:seen], keep) for keep in (False, True)]
            found = [self.figures(p, *t) for p, t in zip(parts, tests, strict=False)]
            miss, last = -math.log(Fraction(job["miss"]) / len(tests)), seen == len(self.blocks)
            said = [0 if up >= -math.log(level) else 1 + (down < miss) for (up, down), _ in found]
            verdict = "reject" if 1 in said else "undecided" if any(said) else "accept"
            if last or (verdict != "undecided" and job["use"] == "sequential"):
                break
        tried = [n for (_, i), n in self.fails.items() if re.split("[@#]", str(i))[0] == name]
        if not last and (verdict == "undecided" or job["use"] == "fixed"):
            verdict = "failed" if max(tried, default=0) > 2 else None
        ups, downs = ([es[i] for es, _ in found] for i in (0, 1))
        told = {"accept": min(ups), "reject": max(downs)}.get(verdict, max(min(ups), *downs))
        (_, keep), fixed = self.figures(parts[1]), tests[0][1]
        row = {**found[0][1], "verdict": verdict, "level": float(level), "evidence": told}
        row |= {"keep_n": keep["n"], "keep_iia": keep["iia"]}
        if verdict == "accept":
            held = self.figures(self.part(given, want, self.counted("holdout", key)))[1]
            row |= {"holdout_n": held["n"], "holdout_iia": held["iia"]}
        kinds = {kind: [p for p in parts[0] if p[2] == kind] for _, _, kind in parts[0]}
        return row, {k: self.figures(p, fixed=fixed and sizes[k])[1] for k, p in kinds.items() if k}


def check(folder):
    run = Run(Path(folder))
    run.differs("evidence_version", run.info["evidence_version"], 8)
    rows = {row["hypothesis"]: row for row in run.table("tables/hypotheses/*.parquet")}
    told = {row["hypothesis"]: row for row in run.table("tables/verdicts/*.parquet")}
    sets = defaultdict(dict)
    sets |= {(row["hypothesis"], row["set"]): row for row in run.table("tables/sets/*.parquet")}
    order = sorted((row["generation"], row["control"] is not None, h) for h, row in rows.items())
    j, real = 0, sum(not control for _, control, _ in order)
    k = real if run.info.get("k") is None else run.info["k"]
    run.differs("K", k, max(k, real if k else 0))
    for _, control, h in order:
        j += not control
        found, of_sets = run.decide(rows[h], Fraction(run.test["false_accept"]) / (k or j * j + j))
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
