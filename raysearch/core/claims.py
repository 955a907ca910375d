"""Sentences on what an accept shows and what it does not: one list, by what is done to a site, by
the population, and by whether a test may stop early.

Pages, command line, notebooks, trackers and model cards take their words from here. Invariants: an
ablation shows necessity, and never sufficiency or which variable a site carries; what is beyond a
population is said to be so; a mean is called biased for the reason that it is.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from raysearch.core.population import PopulationName


@dataclass(frozen=True, slots=True)
class OperationWords:
    """The words for what is done to a site.

    Args:
        shown: what an accept shows.
        asked: how a hypothesis is tested, with the place of its variable.
        match: what the answer becomes on a pair that is a match.
        score: what a share of matches is.
        not_shown: what an accept does not show.
        limits: the same in sentences, with what a reject does not show.
    """

    shown: str
    asked: str
    match: str
    score: str
    not_shown: str
    limits: tuple[str, ...]


INTERCHANGE = OperationWords(
    "sufficient under interchange",
    "by interchange: the model reads the base, but at the site it is given the activation of its "
    "run on the source. Then the answer should become the counterfactual: what the causal model "
    "answers when {variable} comes from the source",
    "becomes the predicted one",
    "share of pairs whose output is the counterfactual",
    "that the variable lives there and nowhere else",
    (
        "It does not say that the variable is nowhere else: other sites may carry it too, and a "
        "site may only pass it on.",
        "It does not say that the causal model is the only one that fits: another one with the "
        "same counterfactuals is accepted alike.",
        "It does not say that a rejected site carries nothing: only that an interchange of this "
        "subspace there does not do it.",
    ),
)
ABLATION = OperationWords(
    "necessary for the base's answer",
    "by ablation: the model reads the base, but at the site it is given an activation that says "
    "nothing of it (zero, a mean, or another base's). Then the answer should no longer be the "
    "base's, on pairs on which {variable} matters",
    "is no longer the base's",
    "share of pairs whose output is no longer the base's answer",
    "which variable the site carries",
    (
        "Of an ablation it does not say which variable the site carries, nor that the site alone "
        "would do: only that the base's answer is lost without what is there.",
        "It does not say that a site whose ablation is rejected is not used: others may take over "
        "once it is gone, and what replaced the activation may still serve.",
    ),
)

_BEYOND_SAMPLER = "of inputs that this sampler does not make"
BEYOND: Mapping[PopulationName, str] = {
    "sampler": _BEYOND_SAMPLER,
    "not_trained_on": _BEYOND_SAMPLER,
    "not_tested_before": _BEYOND_SAMPLER,
    "these_values": "of other values than those held out",
    "new_values": _BEYOND_SAMPLER,
    "these_pairs": "of any other pair, which rests on the holdout",
    "test_part": "of pairs outside of that part",
}
"""The limits of verdicts, by population."""

STOPPED = "A mean at a stopping time is biased away from the threshold"
FIXED = (
    "A mean over a number of pairs that was fixed beforehand is unbiased, but those of accepted "
    "hypotheses were chosen for being high"
)


def operations(ablates: Collection[bool]) -> tuple[OperationWords, ...]:
    """Returns the words for what a run does to its sites. `ablates`: of each hypothesis, or unit,
    whether it is an ablation; empty: none is.
    """
    swaps = [INTERCHANGE] if not ablates or False in ablates else []
    return (*swaps, ABLATION) if True in ablates else tuple(swaps)


def question(ablates: Collection[bool], variables: str, model: str, one: bool = True) -> str:
    """Returns what a search, or a figure of it, asks. `one`: whether `variables` names one."""
    if operations(ablates) == (ABLATION,):
        return f"Which sites of {model} are needed where {variables} matters?"
    return f"Where {'is' if one else 'are'} {variables} in {model}?"


def score_words(ablates: Collection[bool]) -> str:
    """Says what a share of matches is."""
    return ", or of an ablation ".join(words.score for words in operations(ablates))


def not_shown(ablates: Collection[bool]) -> str:
    """Returns what an accept of a run does not show, as the end of "it does not say"."""
    found = operations(ablates)
    if len(found) == 1:
        return found[0].not_shown
    return f"{INTERCHANGE.not_shown}, or of an ablation {ABLATION.not_shown}"


def mean_words(test: Mapping[str, Any], continued: bool = False) -> str:
    """Says what is wrong with the means of a run, and what to go by.

    Args:
        test: the keys of `test` of its job.
        continued: whether undecided hypotheses went on on further pairs; on these alone, where
            the test keeps a reserve for it.
    """
    fixed = test.get("use") == "fixed" and (not continued or bool(test.get("reserve")))
    return f"{FIXED if fixed else STOPPED}: go by the interval and the holdout."
