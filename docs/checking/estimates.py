"""Derives what follows the verdicts of a run anew, without raysearch: estimates on the holdout,
controls and baselines.

It is of docs/check_run.py, and written from the same pages as verdicts.py.
"""

import json
import math
from hashlib import sha256

import numpy as np

from checking.formulas import ends, log_choose
from checking.journal import Run
from checking.levels import levels
from checking.policies import best_policy

CONTROLS = ("self_swap", "random_source")


def log_tail(n, s, p):  # of the chance of s or more matches in n draws
    if s <= 0 or p <= 0:
        return 0.0 if s <= 0 else -math.inf
    k = np.arange(s, n + 1)
    return np.logaddexp.reduce(log_choose(n, k) + k * math.log(p) + (n - k) * math.log1p(-p))


def exact_low(n, s):  # the lower end of Clopper and Pearson's 95 % interval
    low, high = 0.0, 1.0 if s else 0.0
    for _ in range(50):
        p = (low + high) / 2
        low, high = (low, p) if log_tail(n, s, p) >= math.log(0.025) else (p, high)
    return low


def exact(n, s):
    return exact_low(n, s), 1 - exact_low(n, n - s)


def needed(n, total, width, most):  # pairs for an interval of that half width, by the test pairs
    for pairs in range(1, most + 1) if width > 0 else ():
        low, high = exact(pairs, math.floor(pairs * (total + 1) / (n + 2)))
        if (high - low) / 2 <= width:
            return pairs
    return most


def paired(differences, fixed=None, of=None):  # the 95 % interval of a mean difference
    up, down = (tuple((1 + sign * d) / 2 for d in differences) for sign in (1, -1))
    low, high = ends((len(up), 0, up, fixed, of), (len(up), 0, down, fixed, of), False)
    return 2 * low - 1, 2 * high - 1


class Estimates:
    def __init__(self, folder):
        self.run = run = Run(folder)
        self.width = float(run.keys.get("holdout_width", 0.05))
        self.plans = {}
        fit, self.left_out = self.usable("fit", ()), []
        both = zip(run.parts, run.horizons, strict=True)
        tested = [b for (*_, blocks), of in both for b in blocks[: of[0]]]
        used = [run.pairs[p]["content"] for p in fit if run.trained]
        used += [run.pairs[p]["content"] for b in tested for p in b]
        pairs = self.usable("holdout", used)
        self.blocks = [pairs[i : i + 8] for i in range(0, len(pairs), 8)]

    def usable(self, split, contents):  # the pairs of a split that were screened, solved, not used
        run, right = self.run, {}
        for event in self.run.counted(split, None):
            for i, p in enumerate(event["pairs"]):
                of, said = run.pairs[p], event["sources"]
                right[p] = run.read(event["base"][i], p) == of["base"]
                right[p] &= all(run.read(said[s][i], p) == a for s, a in of["from"].items())
        every = run.keys["solved_only"] == "false"
        found = [p for p in run.pairs if p in right and (right[p] or every)]
        found = [p for p in found if run.pairs[p]["content"] not in contents]
        return found[: int(run.keys[split])]

    def counts(self, row, want, p):
        if self.run.pairs[p]["content"] in self.left_out:
            return False
        return self.run.kinds == "unfiltered" or want[p] != self.run.pairs[p]["base"]

    def values(self, row, want, events):  # by pair that counts: (match, score)
        run, found, c = self.run, {}, self.run.info["scale"]
        for e in events:
            xs = e["scores"][run.score][row["variable"]] if run.score else e["pairs"]
            outputs = map(run.read, e["outputs"], e["pairs"])
            for p, output, x in zip(e["pairs"], outputs, xs, strict=True):
                ablates = '"operation"' in row["units"]
                match = output != run.pairs[p]["base"] if ablates else output == want[p]
                x = (min(max((x + c) / (2 * c), 0.0), 1.0) if c else x) if run.score else match
                if self.counts(row, want, p):
                    found[p] = match, float(x)
        return found

    def estimate(self, row, verdict):  # the columns of an accepted hypothesis's holdout
        run, key = self.run, self.run.tested[row["intervention"]]
        want, h = run.tests(row, ())[0], row["hypothesis"]
        first = [*run.seen["test", key].values()][:1]
        phases = [k for k, (_, names) in enumerate(run.more, 1) if h in names]
        self.left_out = run.later[max([0, *phases, *(e["phase"] for e in first)])]
        counts = [sum(self.counts(row, want, p) for p in b) for b in self.blocks]
        n, total = verdict["n"], verdict["iia"] * verdict["n"] if run.score else verdict["matches"]
        plan = n, total, sum(counts)
        if plan not in self.plans:
            self.plans[plan] = needed(n, total, self.width, sum(counts))
        most = next(k for k in range(len(counts) + 1) if sum(counts[:k]) >= self.plans[plan])
        events = self.run.counted("holdout", key)[:most]
        run.differs(f"{key}: holdout pairs", [e["pairs"] for e in events], self.blocks[:most])
        own = self.values(row, want, events)
        xs, s = tuple(x for _, x in own.values()), sum(m for m, _ in own.values())
        found = {"holdout_n": len(own), "holdout_iia": math.fsum(xs) / len(xs) if xs else None}
        low, high = exact(len(own), s) if xs else (None, None)
        if xs and run.score:
            falls = tuple(1 - x for x in xs)
            low, high = ends((len(xs), 0, xs, None, None), (len(xs), 0, falls, None, None), False)
        different = len({repr(run.pairs[p]["content"]) for p in own})
        found |= {"holdout_low": low, "holdout_high": high, "holdout_distinct": different}
        swaps = row["control"] is None and '"operation"' not in row["units"]
        for name in CONTROLS:
            seen = self.control(row, want, name, most, own) if swaps else None
            found[f"{name}_iia"] = sum(seen) / len(seen) if seen else None
            found |= {"random_source_n": None if seen is None else len(seen)}
        return found

    def control(self, row, want, name, most, own):  # what it scores until it is decided
        run, units = self.run, json.loads(row["units"])
        whole = all(u["subspace"]["featurizer"] == "identity" for u in units)
        own_site = all(u["source_site"] in (None, u["site"]) for u in units)
        if name == "self_swap" and whole and own_site and not run.score:
            out = {
                p: run.read(o, p)
                for e in self.run.counted("holdout", None)
                for p, o in zip(e["pairs"], e["base"], strict=True)
            }
            return [float(out[p] == want[p]) for p in own]
        for site in (s for u in units for s in (u["site"], u["source_site"]) if s):
            site["layer"] = site["layer"] or 0
        fitted = row["variable"] if "@" in run.tested[row["intervention"]] else None
        content = {"units": units, "kind": "interchange", "control": name, "variable": fitted}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        fit = run.tested[row["intervention"]].partition("@")[1:]
        key = sha256(text.encode()).hexdigest()[:16] + "".join(fit)
        events = self.run.counted("holdout", key)[:most]
        run.differs(f"{key}: pairs", [e["pairs"] for e in events], self.blocks[: len(events)])
        for seen in range(most + 1):
            theirs = self.values(row, want, events[:seen])
            low, high = paired([own[p][1] - x for p, (_, x) in theirs.items()])
            if seen == most or (theirs and (low > 0 or high <= 2 * self.width)):
                break
        run.differs(f"{key}: blocks", len(events) >= seen, True)
        return [x for _, x in theirs.values()]

    def baseline(self, row, verdict):  # the columns that compare with the best policy
        run, (policy, same) = self.run, best_policy(self.run, row["variable"])
        key = run.tested[row["intervention"]]
        self.left_out = []
        used, numbers, _ = run.parts[run.part_of(row, self.at[row["hypothesis"]])]
        want, tests, *_ = run.tests(row, used)
        seen = self.values(row, want, self.run.counted("test", key, blocks=numbers))
        seen = list(seen.items())[: verdict["n"]]
        right = [policy(run.pairs[p]) == run.pairs[p]["cf"][row["variable"]] for p, _ in seen]
        differences = [float(m) - r for (_, (m, _)), r in zip(seen, right, strict=True)]
        found = {"baseline_iia": sum(right) / len(right)}
        accepted, fixed = verdict["verdict"] == "accept" and not same, tests[0][1]
        of = tuple(run.pairs[p]["matching"] for p, _ in seen) if run.new else None
        low, high = paired(differences, fixed, of) if accepted else (None, None)
        return found | {"margin_low": low, "margin_high": high}


def check(folder):
    it = Estimates(folder)
    rows = {row["hypothesis"]: row for row in it.run.table("tables/hypotheses/*.parquet")}
    told = {row["hypothesis"]: row for row in it.run.table("tables/verdicts/*.parquet")}
    it.at = {h: at for h, (_, at, _) in levels(it.run, rows, told).items()}
    it.run.wrong = []
    failed = any(len(at) > 2 for (split, _), at in it.run.fails.items() if split == "holdout")
    for verdict in told.values():
        row, found = rows[verdict["hypothesis"]], {}
        if verdict["verdict"] == "accept" and not failed:
            found |= it.estimate(row, verdict)
        if verdict["n"] and row["control"] is None and '"operation"' not in row["units"]:
            found |= it.baseline(row, verdict)
        for column, derived in found.items():
            it.run.differs(f"{row['hypothesis']}: {column}", verdict[column], derived)
    return it.run.wrong
