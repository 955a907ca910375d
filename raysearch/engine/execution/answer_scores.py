"""Scores of an answer, from the logits that the output is decided by (search/score_scale.py has the
formulas).

Invariants: the logits that are read depend on the base alone, so that a row shared by several pairs
or interventions is run and read once; scores are functions of logits, for which each fast executor
is checked in float32 when a replica starts (selfcheck.py): they differ by at most a few times the
largest difference of a logit; rows decided again by the oracle are scored again by it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from raysearch.core.controls import labels_of
from raysearch.core.events import Encoded, Ids, Scores
from raysearch.core.hypothesis import Intervention
from raysearch.engine.execution.cached_runs import on_device
from raysearch.engine.networks.network import ModelInput
from raysearch.engine.patching.rows import Indices
from raysearch.errors import JobError

FARTHEST = 1e6
"""Distance below the highest logit, in logits, that stands for an answer that the model rules out
(-inf): a journal holds finite numbers."""
DIGITS = 6
"""Decimal places of a score; more would be float32 noise."""

AnswerLogits = tuple[float, ...]
"""What scores read of a row: the sum of all squared probabilities, the log of the sum of the
exponentials of all logits, and the logits of the ids that are read of its base
(`Scoring.of_base`), in this order. Logits are relative to the highest."""
IDS = 2
"""Where the logits of the ids begin."""


@dataclass(frozen=True, slots=True)
class AnswerColumns:
    """The column of each pair's answers in its row of answer logits (`AnswerLogits`).

    Args:
        base: column of the base's own answer.
        counterfactual: that of the counterfactual answer, by variable.
        arbitrary: that of the answer in its place under arbitrary labels, by variable.
    """

    base: Int[Indices, "pair"]
    counterfactual: Mapping[str, Int[Indices, "pair"]]
    arbitrary: Mapping[str, Int[Indices, "pair"]]


@dataclass(frozen=True)
class Scoring:
    """The scores that the job declares (`names`) for the answers to `pairs`, all pairs of the run.

    `values`: how many numbers are read of a row, 0 without scores.

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

    @property
    def values(self) -> int:
        return IDS + max(map(len, self._of_base.values()), default=0) if self.names else 0

    def of_base(self, base: ModelInput) -> Ids:
        """Returns the answer ids whose logits to read; none for an input that is only a source."""
        return self._of_base.get(base, ())

    def ids(self, bases: Iterable[ModelInput]) -> Int[Indices, "base id"]:
        """Returns the ids of each base, filled up with -1."""
        of_bases = [self.of_base(base) for base in bases]
        found = np.full((len(of_bases), self.values - IDS), -1)
        for at, ids in enumerate(of_bases):
            found[at, : len(ids)] = ids
        return found

    def columns(self, pairs: Sequence[Encoded]) -> AnswerColumns | None:
        """Returns where the answers to pairs stand; None if the job declares no score."""
        if not self.names:
            return None

        def of(answers: Iterable[Ids]) -> Int[Indices, "pair"]:
            each = zip(pairs, answers, strict=True)
            found = [self.of_base(p.base).index(_only(answer)) for p, answer in each]
            return IDS + np.array(found, dtype=np.int64)

        wanted = {
            variable: [pair.counterfactual[variable] for pair in pairs] for variable in self._labels
        }
        return AnswerColumns(
            of(pair.answers["base"] for pair in pairs),
            {variable: of(answers) for variable, answers in wanted.items()},
            {
                variable: of(self._labels[variable].get(answer, answer) for answer in answers)
                for variable, answers in wanted.items()
            },
        )

    def scores(
        self,
        columns: AnswerColumns | None,
        read: Sequence[AnswerLogits | None] | Float[NDArray[np.float64], "pair value"],
        intervention: Intervention | None = None,
    ) -> Scores | None:
        """Returns the scores of each pair in order, by score name and variable; None without
        `columns`. Names are sorted, as those that a journal gives back. `read`: of the pairs' rows;
        `intervention`: the one in force, None without any."""
        if columns is None:
            return None
        arbitrary = intervention is not None and intervention.control_kind.arbitrary_labels
        answers = columns.arbitrary if arbitrary else columns.counterfactual
        values = np.array(read, dtype=np.float64).reshape(len(columns.base), self.values)
        assert not np.isnan(values).any(), "a row on the base of a pair is read"
        return {
            name: {
                variable: tuple(_score(name, values, at, columns.base).round(DIGITS).tolist())
                for variable, at in answers.items()
            }
            for name in sorted(self.names)
        }


def _score(
    name: str,
    read: Float[NDArray[np.float64], "row value"],
    answer: Int[Indices, "row"],
    base: Int[Indices, "row"],
) -> Float[NDArray[np.float64], "row"]:
    """Returns the score `name` of rows, whose answer and base's own answer stand at these columns
    of what is `read`."""
    rows = np.arange(len(read))
    logits = read[rows, answer]
    log_probability = logits - read[:, 1]
    match name:
        case "probability":
            return np.exp(log_probability)
        case "logit_difference":
            return logits - read[rows, base]
        case "kl":
            return (-log_probability).clip(min=0.0)
        case _:
            assert name == "squared_error", name
            distance: NDArray[np.float64] = read[:, 0] - 2 * np.exp(log_probability) + 1
            return distance.clip(min=0.0)


def answer_logits_error(one: AnswerLogits | None, other: AnswerLogits | None) -> float:
    """Returns the largest difference of two computations of a row in a logit that scores read, or
    in the log of the sum of all their exponentials."""
    if one is None or other is None:
        return 0.0
    return max(abs(a - b) for a, b in zip(one[1:], other[1:], strict=True))


def read_logits(
    logits: Float[Tensor, "row answer"], ids: Int[Indices, "row id"]
) -> Float[NDArray[np.float64], "row value"]:
    """Returns what scores read of rows (`AnswerLogits`), with 0 where an id is -1. Waits for the
    device once."""
    below = logits - logits.amax(dim=-1, keepdim=True)
    exponentials = below.exp()
    total = exponentials.sum(dim=-1, keepdim=True)
    squares = exponentials.square_().sum(dim=-1, keepdim=True) / total.square()
    at = on_device(ids, logits.device)
    read = below.gather(-1, at.clamp(min=0)).clamp(min=-FARTHEST).masked_fill(at < 0, 0.0)
    return torch.cat((squares, total.log(), read), 1).double().cpu().numpy()


def _only(ids: Ids) -> int:
    if len(ids) != 1:
        raise JobError(
            f"answer.scores: are of answers of one token or class, and one is compared by "
            f"{len(ids)}; leave them out, or use "
            "answer.compare: first_token"
        )
    return ids[0]
