"""Scores of an answer (search/score_scale.py has their formulas), from the logits that an output is
decided from.

Invariants: which logits are read follows from the base alone, so that a row that several pairs or
interventions share is run and read once; scores are functions of logits, which in float32 each fast
path is held to when a replica starts (selfcheck.py): they move by no more than a few of the largest
difference of a logit; what is decided again by the oracle is scored again by it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from raysearch.core.controls import arbitrary_labels
from raysearch.core.events import Encoded, Ids, Scores
from raysearch.core.hypothesis import Intervention
from raysearch.engine.networks.network import ModelInput
from raysearch.errors import JobError

FARTHEST = 1e6
"""Logits below the highest at which an answer that a model rules out (-inf) is taken to be: a
journal holds numbers."""
DIGITS = 6
"""Behind the point: beyond them float32 has only noise."""


@dataclass(frozen=True, slots=True)
class AnswerLogits:
    """What is read of a row: `logits` of some ids, relative to the highest; `total`: log of the sum
    of all exponentials of those.

    `squares`: the sum of all squared probabilities.
    """

    logits: Mapping[int, float]
    total: float
    squares: float

    def score(self, name: str, answer: int, base: int) -> float:
        """The score of `answer`, where the base's own is `base`."""
        log_probability = self.logits[answer] - self.total
        match name:
            case "probability":
                value = math.exp(log_probability)
            case "logit_difference":
                value = self.logits[answer] - self.logits[base]
            case "kl":
                value = max(-log_probability, 0.0)
            case _:
                assert name == "squared_error", name
                value = max(self.squares - 2 * math.exp(log_probability) + 1, 0.0)
        return round(value, DIGITS)


@dataclass(frozen=True)
class Scoring:
    """What is to be scored: the scores that the job declares (`names`), of the answers to `pairs`,
    all of the run.

    Raises: JobError for an answer of several ids.
    """

    names: tuple[str, ...] = ()
    pairs: Sequence[Encoded] = ()
    _of_base: dict[ModelInput, Ids] = field(init=False, default_factory=dict)
    _labels: dict[str, Mapping[Ids, Ids]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if not self.names:
            return
        for variable in self.pairs[0].counterfactual if self.pairs else ():
            self._labels[variable] = arbitrary_labels(
                pair.counterfactual[variable] for pair in self.pairs
            )
        for pair in self.pairs:
            answers = [
                ids for v, ids in pair.counterfactual.items() for ids in (ids, self._labels[v][ids])
            ]
            read = [_only(ids) for ids in (pair.answers["base"], *answers)]
            self._of_base[pair.base] = tuple(sorted({*self._of_base.get(pair.base, ()), *read}))

    def of_bases(self, bases: Iterable[ModelInput]) -> list[Ids]:
        """Whose logits are read of a row on each of these; none of a source that is no base."""
        return [self._of_base.get(base, ()) for base in bases]

    def scores(
        self,
        pairs: Sequence[Encoded],
        heard: Sequence[AnswerLogits | None],
        intervention: Intervention | None = None,
    ) -> Scores | None:
        """Of each pair, in their order; None where the job declares none. `intervention`: under
        which, None without any."""
        if not self.names:
            return None
        arbitrary = intervention is not None and intervention.control == "arbitrary_labels"
        variables = pairs[0].counterfactual if pairs else {}
        found: dict[str, dict[str, tuple[float, ...]]] = {name: {} for name in self.names}
        for variable in variables:
            for name in self.names:
                values = []
                for pair, said in zip(pairs, heard, strict=True):
                    assert said is not None, "a row on the base of a pair is read"
                    wanted = pair.counterfactual[variable]
                    answer = self._labels[variable][wanted] if arbitrary else wanted
                    values.append(said.score(name, _only(answer), _only(pair.answers["base"])))
                found[name][variable] = tuple(values)
        return found


def heard_error(one: AnswerLogits | None, other: AnswerLogits | None) -> float:
    """How far what scores are made of differs in two computations of a row: the most that a logit
    which is read, or `total`, does."""
    if one is None or other is None:
        return 0.0
    return max(
        abs(one.total - other.total), *(abs(one.logits[at] - other.logits[at]) for at in one.logits)
    )


def read_logits(
    logits: Float[Tensor, "row answer"], ids: Sequence[Ids]
) -> list[AnswerLogits | None]:
    """What is read of each row, at its ids; None of a row without any."""
    wide = max((len(of) for of in ids), default=0)
    if not wide:
        return [None] * len(ids)
    at = torch.tensor([[*of, *[0] * (wide - len(of))] for of in ids], device=logits.device)
    below = logits - logits.amax(dim=-1, keepdim=True)
    total = below.logsumexp(dim=-1)
    squares = (2 * below).logsumexp(dim=-1) - 2 * total
    read = below.gather(-1, at).clamp(min=-FARTHEST)
    rows = zip(ids, read.tolist(), total.tolist(), squares.exp().tolist(), strict=True)
    return [
        AnswerLogits(dict(zip(of, values, strict=False)), *rest) if of else None
        for of, values, *rest in rows
    ]


def _only(ids: Ids) -> int:
    if len(ids) != 1:
        raise JobError(
            f"answer.scores: are of answers of one token or class, and one is compared by "
            f"{len(ids)}; leave them out, or use "
            "answer.compare: first_token"
        )
    return ids[0]
