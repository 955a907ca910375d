"""Finds the best policy of a variable, which looks into no network, by what the pairs of a run
expect. It is of verdicts.py and estimates.py, written from docs/reference/journal.md.
"""

from collections import Counter
from functools import cache


@cache
def best_policy(run, v):  # a function of a pair; whether it is the variable itself on all pairs
    every = [p for p in run.pairs.values() if not p["added"]]
    every = [p for p in every if run.kinds == "unfiltered" or p["cf"][v] != p["base"]]
    never = [p for p in every if p["split"] != "test"] or every
    often = Counter(p["cf"][v] for p in never).most_common(1)[0][0]
    sources = dict.fromkeys(s for p in never for s in p["from"])
    kinds = [[lambda p, s=s: p["from"].get(s) for s in sources]]
    kinds += [[lambda p, w=w: p["cf"].get(w) for w in never[0]["cf"] if w != v]]
    kinds += [[lambda p: often], [lambda p: p["base"]]]

    def right(policy, pairs):
        return sum(policy(p) == p["cf"][v] for p in pairs)

    best = [max(of, key=lambda policy: right(policy, never)) for of in kinds if of]
    best = max(best, key=lambda policy: right(policy, never))
    return best, right(best, every) == len(every)
