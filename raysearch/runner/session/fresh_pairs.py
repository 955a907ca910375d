"""Leaves out test pairs that a run of the store has tested on, where the job asks for fresh ones.

Invariants: what is left is written with the run when it begins, and a resumed run reads it there,
so that a run stays a function of its job and its journal.
"""

from collections.abc import Collection
from dataclasses import replace

from raysearch.causal import LeftOutCount
from raysearch.core.population import POPULATIONS, Population
from raysearch.errors import PairsError
from raysearch.runner.resolution.resolved_job import ResolvedJob
from raysearch.store.used_pairs import EarlierRun


def with_fresh_pairs(resolved: ResolvedJob, runs: Collection[EarlierRun]) -> ResolvedJob:
    """Returns the job without the test pairs that one of `runs` has tested on, if it asks for that.

    Raises:
        PairsError: no test pair is left, or the population would not be the one that is named.
    """
    if not resolved.job.pairs.fresh:
        return resolved
    tested = frozenset[tuple[str, ...]]().union(*(run.pairs for run in runs))
    kept = [p for p in resolved.pairs if p.split != "test" or p.contents not in tested]
    n = len(resolved.pairs) - len(kept)
    if not any(p.split == "test" for p in kept):
        raise PairsError(
            f"pairs.fresh: all {n} test pairs at hand were tested on by runs of this store; "
            f"another pairs.seed draws others, if there are any, or leave fresh out"
        )
    if not n:
        return resolved
    of = resolved.population
    if of.name == "test_part":
        raise PairsError(
            f"pairs.fresh: {n} of the test pairs were tested on by runs of this store, and without "
            f"them verdicts would not be about {POPULATIONS[of.name]}; claim those at hand alone "
            f"(test.claim: these_pairs), or leave fresh out"
        )
    if of.name in ("sampler", "not_trained_on"):
        of = Population("not_tested_before", fixed=of.fixed)
    pairs = tuple(replace(p, index=i) for i, p in enumerate(kept))
    left_out = (*resolved.left_out, LeftOutCount("used_before", "test", None, n))
    return replace(resolved, pairs=pairs, left_out=left_out, population=of)
