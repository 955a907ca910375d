"""Says in a plan which pairs do not count, as far as it shows before the model is run."""

from collections import Counter
from collections.abc import Iterable

from raysearch.core.pair_counts import UNREPORTED, PairCount


def dropped_words(dropped: Iterable[PairCount]) -> list[str]:
    """Returns a line for each split and reason, with the remedy and the variables that have the
    fewest and the most; nothing where all pairs count."""
    found: dict[tuple[str, str, str], Counter[str]] = {}
    for c in dropped:
        if c.reason not in UNREPORTED:
            by = found.setdefault((c.split or "drawn", c.why, c.way_out), Counter())
            by[c.variable] += c.pairs
    lines = [
        f"  {_fewest_to_most(by)} {split} pairs: {why} ({out})"
        for (split, why, out), by in found.items()
    ]
    head = "pairs that do not count, as far as it shows before the model is run"
    return ["", head, *lines] if lines else []


def _fewest_to_most(by: Counter[str]) -> str:
    """The fewest and the most pairs of any variable, each with its name."""
    ordered = by.most_common()
    (last, most), (first, fewest) = ordered[0], ordered[-1]
    if len(by) == 1:
        return f"{first}: {fewest}"
    if fewest == most:
        return f"{len(by)} variables, of each: {most}"
    return f"{fewest} ({first}) to {most} ({last})"
