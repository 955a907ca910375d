"""Derives the level that each hypothesis of a run spends, and on which part of the test pairs it is
tested; weights from the effects on fit pairs that the journal has.

It is of verdicts.py and estimates.py, written from docs/explanation/statistics.md.
"""

import json
import math
from collections import Counter, defaultdict

TOLD = (
    "the level of each hypothesis: weights are of a space that is not all proposed, and that has "
    "sets of units, several components or named sources (what all spend is checked to be δ at most)"
)


def levels(run, rows, told):  # by hypothesis: what it spends, its parts, the share of the errors
    sizes = Counter(row["generation"] for row in rows.values() if row["control"] is None)
    run.differs("K", k := run.info["k"], max(k, sizes.total() if k else 0))
    weighted = run.ours and run.test.get("weights", "even") != "even"
    of, whole, found = *(weights(run, rows) if weighted else ({}, True)), {}
    run.taken = [] if whole else [TOLD]
    renewed = {h for _, names in run.more if run.exact for h in names}
    for h, row in rows.items():
        g, size = sorted(sizes).index(row["generation"]), sizes[row["generation"]]
        at = [0] if not g or run.ours else [] if k else [g]
        level = of.get(h, 1 / (k or size * (g + 1) * (g + 2)))
        level *= run.delta * (1 - run.reserve)
        if not whole and h in told and h not in renewed and row["control"] is None:
            step = 8 * math.log2(told[h]["level"] * math.e * k / (run.delta * (1 - run.reserve)))
            run.differs(f"{h}: the step of its weight", step, max(0, round(step)))
            level = told[h]["level"]
        found[h] = level, at, 1 - run.reserve
    spent = math.fsum(found[h][0] for h, row in rows.items() if row["control"] is None)
    run.differs("the error that all spend", max(spent, run.delta), run.delta)
    for i, (_, names) in enumerate(run.more, 1) if run.exact else ():
        kept, at = run.reserve / (i * (i + 1)), len(run.parts) - len(run.more) + i - 1
        names = names if run.parts[at][1] else ()  # no further pair is solved
        level = kept * run.delta / max(1, sum(rows[h]["control"] is None for h in names))
        found |= {h: (level, [at], kept) for h in names}
    return found


def effects(run):  # on fit pairs, by variable and place; the table names the places
    events, found = run.counted("attributed", ""), {}
    pairs = [run.pairs[p] for e in events for p in e["pairs"]]
    by = defaultdict(list)
    for row in run.table("tables/effects/*.parquet"):
        by[row["variable"]].append(row)
    for v, told in by.items():
        changing = sum(p["cf"][v] != p["base"] for p in pairs)
        for row, sums in zip(
            told, zip(*(e["effects"][v] for e in events), strict=True), strict=True
        ):
            effect = None if None in sums else math.fsum(sums) / changing
            run.differs(f"the effect on {v} of {row['units']}", row["effect"], effect)
            found[v, *places(json.loads(row["units"]))] = effect
    return found


def places(units):
    known = (json.dumps([u["site"], u["source"], u["source_site"]]) for u in units)
    return dict.fromkeys(known)


def weights(run, rows):  # by hypothesis; and whether all are known that share δ
    known, k = effects(run), run.info["k"]
    own = {h: row for h, row in rows.items() if row["control"] is None}
    for h, row in own.items():
        of = [known.get((row["variable"], p)) for p in places(json.loads(row["units"]))]
        own[h] = row["variable"], 0.0 if None in of else math.fsum(of)
    family = list(own.values())
    if len(family) < k:  # not all are proposed: every site with as many subspaces as each other
        named = [(v, json.loads(place)) for v, place in known]
        simple = len({site["component"] for _, (site, *_) in named}) == 1 and not run.has_sets
        simple &= not any(source or "<-" in v for v, (_, source, _) in named)
        if known and not (simple and k % len(known) == 0):
            return {}, False
        family = [(v, e or 0.0) for (v, _), e in known.items()] * (k // max(1, len(known)))
    by = defaultdict(list)
    for v, e in family:
        by[v].append(e)
    sums = {v: (len(es), math.fsum(es), math.fsum(e**3 for e in es)) for v, es in by.items()}
    found = {}
    for h, (v, e) in own.items() if any(map(any, by.values())) else ():
        size, first, third = sums[v]
        over = (math.e - 1) * (size * (e / first + e**3 / third) / 2 if first else 1)
        found[h] = 2 ** (math.floor(8 * math.log2(1 + over) + 1e-9) / 8) / math.e / len(family)
    return found, True
