"""Reads a run without raysearch: its pairs, journal and screening, and which pairs count.

verdicts.py and estimates.py beside it derive verdicts and estimates from that. It is written
from docs/reference/journal.md and tables.md alone, and needs pyarrow.
"""

import json
import random
import re
from collections import Counter, defaultdict
from fractions import Fraction
from hashlib import sha256
from itertools import count, pairwise, takewhile
from pathlib import Path

import pyarrow.parquet as pq

from checking.continuations import Course, extend

NONE = [], [], []
OURS = ("exhaustive", "refine", "smallest_subspace", "attribution")


class Run:
    def __init__(self, folder):
        folder = self.folder = Path(folder)
        self.wrong, self.said, self.parts, self.trained = [], {}, [], False
        self.taken = []  # what is not derived
        self.info = json.loads((self.folder / "run.json").read_text())
        rooms = re.findall(r"^(\w+):\n((?:  .*\n)+)", (folder / "job.yaml").read_text(), re.M)
        one = r"^  (\w+): *(.*(?:\n  (?: .*|- .*))*)"  # a key, and what stands behind or below it
        rooms = {name: dict(re.findall(one, keys, re.M)) for name, keys in rooms}
        self.test, self.kinds, self.keys = rooms["test"], rooms["pairs"]["kinds"], rooms["pairs"]
        self.has_sets = rooms.get("space", {}).get("units", "[]") != "[]"
        about = json.loads(pq.read_schema(folder / "pairs.parquet").metadata[b"population"])
        self.fixed, self.new, self.about = about["fixed"], about["name"] == "new_values", about
        self.of_lines = rooms.get("problem", {}).get("pairs", "null") != "null"
        self.ours = rooms["propose"]["use"] in OURS
        self.once, self.retried = self.test["use"] == "fixed", False
        self.delta, self.more, self.last = float(self.test["false_accept"]), [], {}
        self.broken = {}  # what failed before a continuation
        self.reserve = float(self.test.get("reserve", 0))
        self.fdr = self.test.get("control") == "fdr"
        self.score = None if self.test["score"] == "matches" else self.test["score"]
        self.exact = self.once and (self.score, self.fdr, self.new) == (None, False, False)
        self.exact &= self.test.get("horizon") != "open"
        self.pairs = {row["index"]: row for row in self.table("pairs.parquet")}
        for p in self.pairs.values():
            of = {s["name"]: tuple(s["answer_ids"]) for s in p["sources"] if s["answer_ids"]}
            cf = {c["variable"]: tuple(c["ids"]) for c in p["counterfactual"] if c["ids"]}
            inputs = sorted((s["name"], s["text"], s["tensor"]) for s in p["sources"])
            p |= {"base": tuple(p["base_answer_ids"]), "from": of, "cf": cf}
            p["content"] = p["base_text"], p["base_tensor"], inputs
            p["added"] = p.get("added") or 0
        for p in self.pairs.values():
            for last in range(p["added"], 1 + max(p["added"] for p in self.pairs.values())):
                of = self.said.setdefault(last, {})
                of |= {a: a for a in (p["base"], *p["from"].values(), *p["cf"].values())}
                of |= {tuple(a["said"]): tuple(a["answer"]) for a in p["aliases"]}
        self.journal()
        self.screen()

    def table(self, glob):
        return [r for f in sorted(self.folder.glob(glob)) for r in pq.read_table(f).to_pylist()]

    def differs(self, what, told, derived):
        numbers = all(isinstance(v, float | int) for v in (told, derived))
        if told != derived and not (numbers and abs(told - derived) <= 1e-6):
            self.wrong.append(f"{what} is {told!r}; {derived!r} follows")

    def differ(self, what, told, derived):  # in any column of a row
        for column, value in derived.items():
            self.differs(f"{what}: {column}", told.get(column), value)

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
            of = ("attributed", "") if e["type"] == "attributed" else of
            self.done, self.trained = e.get("status") == "done", self.trained or "seed" in e
            if e["type"] in ("screened", "measured", "attributed") and block not in self.seen[of]:
                self.seen[of][block], self.fails[of] = e | {"phase": len(self.more)}, []
            elif e["type"] == "continued":
                self.more.append((e["pairs"], set(e["hypotheses"])))
                self.last |= dict.fromkeys(e["hypotheses"], len(self.more))
                self.broken |= {of: at for of, at in self.fails.items() if len(at) >= 3}
            elif e["type"] == "retried":
                self.retried = True
                self.last |= dict.fromkeys(e["hypotheses"], len(self.more))
                # What failed goes on after the last block that counted.
                for of, at in ((of, at) for of, at in self.fails.items() if len(at) >= 3):
                    self.seen[of] = {b: o for b, o in self.seen[of].items() if b < at[-1]}
                self.fails.clear()
                self.broken = {}
            elif e["type"] == "failed" or e.get("cause") in ("worker", "deadline"):
                of = of if block is not None else (of[0], "+".join(e["group"]))
                self.fails[of].append(e["blocks"][0] if block is None else block)

    def read(self, output, p):  # the answer that it stands for: the longest that it begins with
        said = self.said[self.pairs[p]["added"]]
        known = (said.get(tuple(output[:length])) for length in range(len(output), 0, -1))
        return next((answer for answer in known if answer is not None), tuple(output))

    def screen(self):  # which pairs count, in parts for generations, and their blocks
        events = [e for (_, one), of in self.seen.items() if one is None for e in of.values()]
        solved, used, first, every = {}, {}, 0, self.keys["solved_only"] == "false"
        self.output = {}  # of each pair that was screened, without an intervention
        for event, i, p in ((e, i, p) for e in events for i, p in enumerate(e["pairs"])):
            of, sources = self.pairs[p], event["sources"]
            self.output[p] = event["base"][i]
            right = [self.read(sources[s][i], p) == a for s, a in of["from"].items()]
            solved[p] = every or (self.read(event["base"][i], p) == of["base"] and all(right))
        for split in ("fit", "test"):
            of = [p for p in self.pairs if solved.get(p) and self.pairs[p]["split"] == split]
            trained = [self.pairs[p]["content"] for p in used.get("fit", ()) if self.trained]
            used[split] = [p for p in of if self.pairs[p]["content"] not in trained]
        want = int(self.keys["test"])
        began = [p for p in used["test"] if not self.pairs[p]["added"]]
        dealt = min(want * (1 if self.ours else 6), len(began))
        left, parts, want = used["test"][:dealt], [], min(want, dealt)
        fixed, later = self.once, 0
        while not self.ours and (n := min(want, max(len(left) // 2, min(later, len(left))))) >= 4:
            parts, left, later = [*parts, left[:n]], left[n:], 256
        for part in parts or [left[:want]]:
            ends, most = [0], min(len(part), int(self.test["pairs" if fixed else "max_pairs"]))
            while (at := ends[-1]) < most:
                ends.append(min(most, at + 32 if fixed else max(2, at + 1, at * 21 // 20)))
            if self.new and not fixed:  # blocks of values
                of = [self.pairs[p]["matching"] // 4 for p in part[:most]]
                ends = [0, *(i for i in range(1, most) if of[i] != of[i - 1]), most]
            blocks = [part[a:b] for a, b in pairwise(ends)]
            self.parts.append((part, [*range(first, first + len(blocks))], blocks))
            first += len(blocks)
        self.tested = {i.partition("@")[0]: i for s, i in self.seen if s == "test" and i}

        extend(self, [] if self.fixed else used["test"][dealt:], first)

    def tests(self, row, used):  # what each pair should give; the tests: (threshold, fixed pairs)
        v, shift = row["variable"], row["control"] == "arbitrary_labels"
        values = sorted({p["cf"][v] for p in self.pairs.values() if not p["added"]})
        random.Random("0.arbitrary_labels").shuffle(values)
        labels = dict(zip(values, values[shift:] + values[:shift], strict=True))
        want = {i: labels.get(p["cf"][v], p["cf"][v]) for i, p in self.pairs.items()}
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
        outputs = map(self.read, e["outputs"], e["pairs"])
        for p, output, x in zip(e["pairs"], outputs, xs, strict=True):
            same = self.pairs[p]["base"]
            if keep == (want[p] == same) or (self.kinds == "unfiltered" and not keep):
                match = output != same if ablates else output == want[p]
                x = min(max((x + c) / (2 * c), 0.0), 1.0) if c else x if self.score else match
                of = self.pairs[p]
                copied = want[p] != same and output in of["from"].values()
                found.append((match, x, of["set"], of["matching"], copied, p))
        return found

    def counted(self, *of, blocks=None):  # the events of blocks, up to a gap
        return [*takewhile(bool, map(self.seen[of].get, blocks or count()))]

    def measured(
        self, given, at
    ):  # the pairs of a hypothesis, its blocks, their events, its course
        key = self.tested.get(name := given["intervention"], name)
        part = self.part_of(given, at)
        used, numbers, blocks = self.parts[part] if part < len(self.parts) else NONE
        events = self.counted("test", key, blocks=numbers) if numbers else []
        until = max([self.last.get(given["hypothesis"], 0), *(e["phase"] for e in events[:1])])
        events = [*takewhile(lambda e: e["phase"] <= until, events)]
        self.differs(f"{name}: pairs", [e["pairs"] for e in events], blocks[: len(events)])
        return used, blocks, events, Course(self, given, part)

    def part_of(self, given, at):  # the last of `at`, else of those on which it was measured
        seen = self.seen["test", self.tested.get(given["intervention"], given["intervention"])]
        at = at or [n for n, p in enumerate(self.parts) if p[1][:1] and p[1][0] in seen]
        return (at or [0])[-1]

    def lasts(self, want, blocks):  # how many pairs each test has seen after these blocks
        asked = [p for block in blocks for p in block]
        change = sum(want[p] != self.pairs[p]["base"] for p in asked)
        return len(asked) if self.kinds == "unfiltered" else change, len(asked) - change

    def gave_up(self, name):  # whether an intervention failed three times in a row at a block
        fails = {**self.fails, **self.broken}.items()
        of = [n for (_, i), n in fails if re.split("[@#]", str(i))[0] == name]
        return any(len(n) > 2 for n in of)
