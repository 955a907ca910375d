"""Writes the page's prose: the question, the claim with its numbers, and its limitations.

Invariants: a sentence states only what job.yaml and the tables hold; every symbol stands with its
word.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raysearch.core import claims
from raysearch.core.claims import BEYOND, mean_words, operations
from raysearch.core.option_names import PAIR_KINDS
from raysearch.proposers.registry import family_words
from raysearch.report.claim import continued_words
from raysearch.report.run_data import RunData


def title(data: RunData) -> str:
    """Returns the question in one line."""
    variables = data.proposed.values("variable")
    named = [*variables[:6], f"{len(variables) - 6} more"] if len(variables) > 7 else variables
    listed = " and ".join(filter(None, [", ".join(named[:-1]), named[-1]]))
    model = "/".join(Path(data.facts.model or "the model").parts[-2:])
    return claims.question(data.ablates, listed, model, len(variables) == 1)


def question(data: RunData) -> list[str]:
    """Describes model, problem, test and hypotheses of the search."""
    problem: Mapping[str, Any] = data.job.get("problem") or {}
    options = ", ".join(f"{key}: {value}" for key, value in (problem.get("options") or {}).items())
    variables = _in_order(data, "variable")
    where = [
        _counted(_in_order(data, key), one, f"{one}s")
        for key, one in (
            ("layer", "layer"),
            ("component", "component"),
            ("position", "position"),
            ("head", "head"),
        )
    ]
    return [
        f"Model: {data.facts.model or 'not named'}. Problem: "
        f"{problem.get('use') or problem.get('pairs') or 'not named'}"
        f"{f' ({options})' if options else ''}. Variables of its causal model: "
        f"{_listed(variables)}.",
        f"A hypothesis says: “{variables[0]} is at this site”. It is tested "
        f"{'; or '.join(w.asked.format(variable=variables[0]) for w in operations(data.ablates))}. "
        f"The share of pairs on which it does is the IIA.{_scored(data)}",
        f"{_n(len(data.rows), 'hypothesis', 'hypotheses')}: {'; '.join(filter(None, where))}.",
    ]


def claim(data: RunData) -> list[str]:
    """Explains accept, reject and undecided with this job's numbers."""
    test: Mapping[str, Any] = data.job.get("test") or {}
    tau, miss = test.get("threshold"), test.get("miss")
    band = test.get("indifference") or 0.0
    kinds = (data.job.get("pairs") or {}).get("kinds", "change")
    continued = data.info.get("continued")
    sentences = [
        f"Accepted: {data.count('accept')} of {len(data.rows)}. An accept says that the site is "
        f"{_shown(data, _share(tau, -band))} {data.population}: the claim is about these pairs "
        f"alone; it says nothing {BEYOND[data.population_name]}.",
        f"Error level: {_bound(test)}, {_family(data)}. "
        f"A hypothesis whose true share is at least {_share(tau, band)} is rejected with a chance "
        f"of at most {_percent(miss)}, each "
        "one separately. Undecided says that the pairs were not enough for either; failed, that it "
        "could not be measured.",
        f"What counts: {PAIR_KINDS.get(kinds, kinds)}. {_stopping(test, bool(continued))}",
        *([f"This run was {words}."] if (words := continued_words(continued)) else []),
        _splits(data),
        *(f"Pairs that do not count: {line}." for line in data.dropped),
        *_baselines(data),
    ]
    if data.controls:
        controls = _n(len(data.controls), "control was", "controls were")
        sentences.append(f"{controls} tested beside them, outside K and outside the alignment.")
    return sentences


def limitations(data: RunData) -> list[str]:
    """Returns what an accept does not say, in sentences."""
    of = operations(data.ablates)
    trained = (
        "Of a trained subspace it does not say that it is the best one, only that the one that was "
        "found does it on pairs not trained on."
    )
    test: Mapping[str, Any] = data.job.get("test") or {}
    return [
        *(sentence for words in of for sentence in words.limits),
        f"It says nothing {BEYOND[data.population_name]}.",
        *([trained] if any(data.rows.values("fit")) else []),
        mean_words(test, bool(data.info.get("continued"))),
    ]


def interval_levels(data: RunData) -> str:
    """Says which level the intervals of accepted hypotheses have."""
    of = next((row["selected"] for row in data.rows if row["selected"]), None)
    text = "Intervals: 95 % of each hypothesis by itself"
    if of is None:
        return f"{text}; corrected for selection once all have a verdict."
    return (
        f"{text}; below, corrected for the selection of these {of}: of the accepted hypotheses, "
        "the share whose corrected interval misses its true share is expected to be at most 5 % "
        "(e-BY)."
    )


def every_threshold(data: RunData) -> str:
    """Explains the verdicts at every threshold, of one test, with this job's levels."""
    test: Mapping[str, Any] = data.job.get("test") or {}
    band = test.get("indifference") or 0.0
    less = f", less {band:g}" if band else ""
    more = f", plus {band:g}" if band else ""
    return (
        "At every threshold: the same pairs accept at each threshold up to the first figure "
        "(green), and reject at each from the second on (red); between, they decide neither (the "
        "line: the job's threshold). Accepts hold for all thresholds and all hypotheses at once: "
        f"with a chance of at most {_percent(test.get('false_accept'))} some first figure{less} is "
        "not below the true share. Rejections hold for all thresholds of one hypothesis at once: "
        f"with a chance of at most {_percent(test.get('miss'))} its second figure{more} is not "
        "above it. A search at another threshold would have stopped after other pairs."
    )


def _scored(data: RunData) -> str:
    score = data.facts.score
    if score.counted:
        return ""
    return (
        f" This search judges by a number of each pair in [0, 1] instead, the "
        f"{score.description.removeprefix('mean ')}: where a share is spoken "
        "of, its mean is meant."
    )


def _shown(data: RunData, least: str) -> str:
    """Returns what an accept shows, up to the name of the population."""
    of = operations(data.ablates)
    score = data.facts.score
    if not score.counted:
        return f"{of[0].shown}: the {score.description} is at least {least} over"
    becomes = "; or, of an ablation, ".join(f"{w.shown}: the answer {w.match}" for w in of)
    return f"{becomes} on at least {least} of"


def _family(data: RunData) -> str:
    """Describes the hypotheses over which the error level holds: the proposed ones, or all
    possible."""
    return family_words((data.job.get("propose") or {}).get("use"), len(data.rows))


def _baselines(data: RunData) -> list[str]:
    """Says what the best policy without any network scores on each variable's pairs, and where the
    variable is that policy."""
    best: dict[str, Mapping[str, Any]] = {}
    for row in data.rows.only("variable", "n", "baseline", "baseline_iia"):
        before = best.get(row["variable"])
        if row["baseline_iia"] is not None and (before is None or row["n"] >= before["n"]):
            best[row["variable"]] = row
    told = [
        f"{v}: {row['baseline_iia']:.2f} by what {row['baseline']}"
        + (", which is the variable itself on these pairs" * (row["baseline_iia"] == 1))
        for v, row in best.items()
    ]
    return [f"Without any network, on the same pairs: {'; '.join(told)}."] if told else []


def _stopping(test: Mapping[str, Any], continued: bool) -> str:
    if test.get("use") == "fixed":
        how = "anew, on its further pairs alone" if test.get("reserve") else "by the same evidence"
        return (
            f"Every hypothesis was measured on the same {test.get('pairs')} pairs and judged once, "
            f"at the end{f'; what was undecided then was judged again {how}' * continued}."
        )
    return (
        f"The test looks again and again and may stop at each look, after at most "
        f"{test.get('max_pairs')} pairs; its error level and "
        "its 95 % intervals (each of one hypothesis by itself) hold at whichever look it stopped."
    )


def _splits(data: RunData) -> str:
    parts = []
    for split in data.splits:
        solved = (
            ""
            if split.solved is None or not split.drawn
            else f", of which the model solves {split.solved / split.drawn:.0%}"
        )
        parts.append(f"{split.name}: {split.used} used of {split.drawn} drawn{solved}")
    held = next((s for s in data.splits if s.name == "holdout"), None)
    wanted = (data.job.get("pairs") or {}).get("holdout")
    none_left = bool(wanted) if held is None else bool(held.drawn and not held.used)
    why = (
        "no holdout pair was drawn or read"
        if held is None
        else "all were tested, or the model solves none"
    )
    empty = f" The holdout has no pair ({why}): there is no estimate on other pairs."
    return (
        f"Pairs: {'; '.join(parts)}. Verdicts rest on test pairs; holdout pairs are none of those, "
        f"decide nothing and estimate again what was accepted.{empty if none_left else ''}"
    )


def _bound(test: Mapping[str, Any]) -> str:
    level = _percent(test.get("false_accept"))
    if test.get("control") == "fdr":
        return (
            "of all accepts of the whole search, the expected share that is false (the false "
            f"discovery rate) is at most {level}; this bounds no single accept"
        )
    return f"the chance that any accept of the whole search is false is at most {level}"


def _share(threshold: float | None, band: float) -> str:
    return "the threshold" if threshold is None else f"{threshold + band:.4g}"


def _percent(share: float | None) -> str:
    return "the job's level" if share is None else f"{100 * share:.4g} %"


def _in_order(data: RunData, key: str) -> list[str]:
    return [str(value) for value in data.proposed.values(key) if value is not None]


def _counted(names: Sequence[str], one: str, many: str) -> str:
    """Formats names as "3 layers (0, 1, 2)", naming at most a dozen."""
    if not names:
        return ""
    return f"{_n(len(names), one, many)} ({_listed(names)})"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 12 else f"{', '.join(names[:6])}, … {names[-1]}"


def _n(n: int, one: str, many: str) -> str:
    return f"{n:,} {one if n == 1 else many}"
