"""Derives what the verdicts of a run are about, and the counts beside them: the population and its
size, different pairs, copies, keep pairs, matches without an intervention, and what was left out.

It is of verdicts.py, and written from docs/reference/journal.md alone.
"""

import json
from collections import Counter, defaultdict

import pyarrow.parquet as pq


def name_of(run):  # the population that the job, its problem and what was left out come to
    flags = pq.read_schema(run.folder / "pairs.parquet").metadata
    left = json.loads(flags.get(b"left_out", b"[]"))
    if run.test["claim"] == "these_pairs":
        return "these_pairs"
    if run.keys.get("disjoint", "[]") != "[]":
        return "new_values" if run.test.get("generalise") == "values" else "these_values"
    if any(of["reason"] == "used_before" for of in left):
        return "not_tested_before"
    if not run.trained:
        return "sampler"
    return "test_part" if run.of_lines else "not_trained_on"


def population(run):  # whether the run names it so
    told, follows = run.about["name"], name_of(run)
    if (told, follows) != ("not_trained_on", "sampler"):  # nothing was fit: it claims less
        run.differs("population of pairs.parquet", told, follows)
    if run.about["fixed"] and told not in ("these_pairs", "sampler") and run.of_lines:
        run.differs("fixed, of pairs.parquet", True, False)


def beside(run, given, part, parts, sizes):  # columns of a verdict
    changes, keeps = parts
    of, told = run.parts[part][0] if part < len(run.parts) else [], run.about["name"]
    first = {repr(run.pairs[p]["content"]): p for p in reversed(of)}
    size = sizes[0] if run.fixed else run.about["values"]
    needs = "necessity, " if '"operation"' in given["units"] else ""
    row = {
        "population": told,
        "population_size": None if told == "new_values" else size,
        "claim": needs + ("these_pairs" if told == "these_pairs" else "sampler"),
        "part": part,
        "distinct": sum(first.get(repr(run.pairs[p]["content"])) == p for *_, p in changes),
        "copies": sum(copied for *_, copied, _ in changes),
        "keep_iia": sum(x for _, x, *_ in keeps) / len(keeps) if keeps else None,
    }
    v, every = given["variable"], (p for p in run.output if run.pairs[p]["split"] == "test")
    screened = [p for p in every if not run.pairs[p]["added"]]
    if not run.more:  # else they are of the pairs at hand when it was decided
        row["base_match_unfiltered"] = share(run, v, screened)
        of = [p for p in of if run.kinds == "unfiltered" or changed(run, v, p)]
        row["no_intervention_iia"] = share(run, v, of)
    return row


def changed(run, v, p):
    return run.pairs[p]["cf"][v] != run.pairs[p]["base"]


def share(run, v, pairs):  # that gives the counterfactual without an intervention
    right = [run.read(run.output[p], p) == run.pairs[p]["cf"][v] for p in pairs]
    return sum(right) / len(right) if right else None


def left_out(run):  # the counts of `dropped`
    sums, drawn, used = Counter(), {}, {}
    for row in run.table("tables/dropped/*.parquet"):
        key = row["variable"], row["split"], row["set"]
        sums[key] += row["pairs"]
        run.differs(f"dropped, {key}: drawn", row["drawn"], drawn.setdefault(key, row["drawn"]))
        run.differs(f"dropped, {key}: used", row["used"], used.setdefault(key, row["used"]))
    for key, n in sums.items():
        run.differs(f"dropped, {key}: drawn", drawn[key], used[key] + n)
    counted = defaultdict(int)
    for p in (p for *_, blocks in run.parts for block in blocks for p in block):
        for v in run.pairs[p]["cf"]:
            counted[v, "test", run.pairs[p]["set"]] += run.kinds != "change" or changed(run, v, p)
    for key in (key for key in used if key[1] == "test" and not run.more):
        run.differs(f"dropped, {key}: used", used[key], counted[key])
