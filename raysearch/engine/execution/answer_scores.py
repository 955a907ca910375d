"""Scores of an answer, from the logits that the output is decided by (search/score_scale.py has the
formulas).

Invariants: the logits that are read depend on the base alone, so that a row shared by several pairs
or interventions is run and read once; scores are functions of logits, for which each fast executor
is checked in float32 when a replica starts (selfcheck.py): they differ by at most a few times the
largest difference of a logit; rows decided again by the oracle are scored again by it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from raysearch.core.controls import labels_of
from raysearch.core.events import Encoded, Ids, Scores
from raysearch.core.hypothesis import Intervention
from raysearch.engine.networks.network import ModelInput
from raysearch.errors import JobError

FARTHEST = 1e6
"""Distance below the highest logit, in logits, that stands for an answer that the model rules out
(-inf): a journal holds finite numbers."""
DIGITS = 6
"""Decimal places of a score; more would be float32 noise."""


@dataclass(frozen=True, slots=True)
class AnswerLogits:
    """Logits of some ids of a row, relative to the highest; `total`: the log of the sum of the
    exponentials of all of them.

    `squares`: the sum of all squared probabilities.
    """

    logits: Mapping[int, float]
    total: float
    squares: float

    def score(self, name: str, answer: int, base: int) -> float:
        """Returns the score `name` of `answer`; `base` is the base's own answer."""
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
    """The scores that the job declares (`names`) for the answers to `pairs`, all pairs of the run.

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
            self._labels[variable] = labels_of(self.pairs, variable)
        for pair in self.pairs:
            answers = [
                answer
                for v, ids in pair.counterfactual.items()
                for answer in (ids, self._labels[v].get(ids, ids))
            ]
            read = [_only(ids) for ids in (pair.answers["base"], *answers)]
            self._of_base[pair.base] = tuple(sorted({*self._of_base.get(pair.base, ()), *read}))

    def of_bases(self, bases: Iterable[ModelInput]) -> list[Ids]:
        """Returns for each base the answer ids whose logits to read; none for an input that is
        only a source."""
        return [self._of_base.get(base, ()) for base in bases]

    def scores(
        self,
        pairs: Sequence[Encoded],
        answer_logits: Sequence[AnswerLogits | None],
        intervention: Intervention | None = None,
    ) -> Scores | None:
        """Returns the scores of each pair in order, by score name and variable; None if the job
        declares none. Names are sorted, as those that a journal gives back. `intervention`: the
        one in force, None without any."""
        if not self.names:
            return None
        arbitrary = intervention is not None and intervention.control_kind.arbitrary_labels
        variables = pairs[0].counterfactual if pairs else {}
        found: dict[str, dict[str, tuple[float, ...]]] = {name: {} for name in sorted(self.names)}
        for variable in variables:
            for name in self.names:
                values = []
                for pair, read in zip(pairs, answer_logits, strict=True):
                    assert read is not None, "a row on the base of a pair is read"
                    wanted = pair.counterfactual[variable]
                    answer = self._labels[variable].get(wanted, wanted) if arbitrary else wanted
                    values.append(read.score(name, _only(answer), _only(pair.answers["base"])))
                found[name][variable] = tuple(values)
        return found


def answer_logits_error(one: AnswerLogits | None, other: AnswerLogits | None) -> float:
    """Returns the largest difference of two computations of a row in a logit that scores read, or
    in `total`."""
    if one is None or other is None:
        return 0.0
    return max(
        abs(one.total - other.total), *(abs(one.logits[at] - other.logits[at]) for at in one.logits)
    )


def read_logits(
    logits: Float[Tensor, "row answer"], ids: Sequence[Ids]
) -> list[AnswerLogits | None]:
    """Returns the logits of each row at its ids; None for a row without ids."""
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
