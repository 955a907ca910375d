"""The words that a job chooses among, each list once, with the meaning of each word.

A job's keys, their schema and documentation, error texts and reports take the words from here.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

Loss = Literal["cross_entropy", "logit_difference"]
ScheduleName = Literal["linear", "constant", "cosine"]
Optimizer = Literal["adam", "adamw", "sgd"]
Compare = Literal["first_token", "sequence", "choices", "class"]
COMPARISONS: Mapping[Compare, str] = {
    "first_token": "the first token of a language model's answer",
    "sequence": "all its tokens, of as many as the longest answer of the run has, decoded greedily "
    "with the intervention in force",
    "choices": "the best, by its first token, of the answers that each pair lists",
    "class": "the class of a network on tensors",
}
"""The parts of an answer that can be compared."""

Dtype = Literal["float32", "bfloat16", "float16"]
PoolName = Literal["ray", "local"]
ExportFormat = Literal["raysearch", "mib", "pyvene"]

OperationName = Literal["interchange", "zero", "mean", "resample"]
OTHER_BASES: Mapping[str, int] = {"mean": 32, "resample": 1}
"""By operation, the number of other bases whose mean activation is put in; fewer where a run has
fewer that fit."""

OPERATIONS: Mapping[OperationName, str] = {
    "interchange": "the source's activation is put in",
    "zero": "an ablation: zeros are put in",
    "mean": f"an ablation: the mean over {OTHER_BASES['mean']} other bases of the run is put in",
    "resample": "an ablation: the activation of one other base, drawn for each pair, is put in",
}
"""The ways to change a unit."""

PairKinds = Literal["change", "both", "unfiltered"]
PAIR_KINDS: Mapping[PairKinds, str] = {
    "change": "change pairs: those whose counterfactual differs from the base's own answer",
    "both": "change pairs, and keep pairs (whose answer should stay; an ablation should change it) "
    "beside them: both must do",
    "unfiltered": "all pairs alike, changing or not",
}
"""The pairs that decide."""

ScoreName = Literal["logit_difference", "probability", "kl", "squared_error"]
SCORES: Mapping[ScoreName, str] = {
    "logit_difference": "logit of the counterfactual minus that of the base's answer",
    "probability": "of the counterfactual",
    "kl": "-ln of the probability",
    "squared_error": "from the counterfactual alone, summed over all answers",
}
"""Scores that may be measured with each output."""

TestedScore = Literal["matches", "probability", "logit_difference"]
TESTED_SCORES: Mapping[TestedScore, str] = {
    "matches": "the share of outputs that are the counterfactual",
    "probability": "the mean probability of the counterfactual",
    "logit_difference": "the mean logit difference, on one scale from fit pairs, where 0 is as far "
    "for the base's answer as the model goes by itself, and 1 as far for the counterfactual",
}
"""Quantities that a test may be on."""


def meanings_text(words: Mapping[Any, str]) -> str:
    """Returns `name: meaning; name: meaning`, for the description of a key."""
    return "; ".join(f"{name}: {meaning}" for name, meaning in words.items())


def or_text(words: Iterable[str]) -> str:
    """Returns `a, b or c`, for an error."""
    *most, last = words
    return f"{', '.join(most)} or {last}"


def number_of(count: int, noun: str) -> str:
    """Returns `1 hypothesis`, `2 hypotheses`; of any noun with a plural on s."""
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun[:-2]}es" if noun.endswith("is") else f"{count} {noun}s"
