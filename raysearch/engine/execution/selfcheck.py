"""The self-check: finds the fastest executor that is right for a model, and the gap below which the
canonical computation decides.

Each executor is compared with the canonical computation on rows like those that will be asked for.
Outputs depend on the *gap* between the best two of the compared logits (all ids, or the choices),
so the error of the gap is measured; the largest error of a single logit is several times as large
and irrelevant to outputs. It matters for scores: if a job has some, the logits that they read are
checked too, in float32. A row whose gap exceeds `SAFETY` times the largest observed error, and
`least_near_tie`, is decided by the executor; all others by the canonical computation. So outputs do
not depend on the batch. In half precision an executor that is batch-invariant decides all rows, for
its outputs do not depend on the batch anyway.

Invariants: an executor that fails the check is not used, and a warning says so; plain (the
canonical computation) is always right; a network that makes discrete choices (a mixture of experts)
is discontinuous, so in half precision no other executor is trusted with it.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch

from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.answer_scores import Scoring, answer_logits_error
from raysearch.engine.execution.batch_invariance import MakeExecutor, is_batch_invariant
from raysearch.engine.execution.executors import (
    Executor,
    ExecutorName,
    PlainExecutor,
)
from raysearch.engine.execution.memory import RowLimit
from raysearch.engine.execution.predict import (
    NEAR_TIE,
    Prediction,
    gap_error,
    least_near_tie,
    predict,
    with_scores,
)
from raysearch.engine.execution.replay import Replay
from raysearch.engine.execution.replay_executor import ReplayExecutor
from raysearch.engine.execution.router_detection import DiscreteChoices
from raysearch.engine.execution.tensor_executor import whole_run_executor
from raysearch.engine.execution.usage import UsageMeter
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.network import LanguageModel, Network, tokens_of
from raysearch.engine.patching.rows import Row
from raysearch.errors import RaysearchError
from raysearch.visible_text import one_line

log = logging.getLogger(__name__)

SAFETY = 2.0
"""A gap is trusted from this multiple of the largest error on. On 300 rows of each of 21 random
families, in bfloat16 and float16, the largest error was below this or below `least_near_tie`,
except for a mixture of experts in float16, which `DiscreteChoices` detects."""
MOST = 16.0
"""Largest error that counts as rounding, in steps of the highest logit (SmolLM2-135M: 1.7 in
bfloat16, 2.2 in float16)."""
LOGIT = 2.5e-4
"""Largest difference, in float32, of a logit that scores read; in half precision scores are
journalled as their batch rounds them."""
HALF = 0.5
"""Largest share of tested rows that may be near-ties: an executor with more saves nothing."""
TRIED = {"float32": 6, "bfloat16": 16, "float16": 16}
"""Number of pairs, by dtype, whose rows are tested, some six for each: in half precision the
largest error of many rows is needed."""


@dataclass(frozen=True, slots=True)
class ExecutorChoice:
    """The fastest executor that passed, with a cache that holds what it needs.

    `tolerance` (logits): how far the executor and the canonical computation may be apart in a gap.
    `near_tie` (logits): gaps below it are decided by the canonical computation. `share`: the share
    of tested rows that are. `wave_tokens`: as in `ModelFacts`; None if it was not measured.
    """

    executor: Executor
    cache: ActivationCache
    tolerance: float
    near_tie: float
    share: float = 0.0
    wave_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class GapErrors:
    """Errors of an executor on some rows: the largest error of a gap (logits; infinite if only one
    side is finite), and the gaps that it found.

    `logit_error`: the largest error of a logit that scores read; 0 without scores.
    """

    largest: float
    gaps: tuple[float, ...]
    logit_error: float = 0.0

    def share(self, tolerance: float) -> float:
        """Returns the share of rows whose gap is below `tolerance`."""
        return sum(gap < tolerance for gap in self.gaps) / max(len(self.gaps), 1)


@torch.inference_mode()
def select_executor(
    network: Network,
    hook_points: Components,
    rows: Sequence[Row],
    limit: RowLimit,
    max_bytes: int,
    dtype: str,
    meter: UsageMeter | None = None,
    scoring: Scoring | None = None,
    plain: PlainExecutor | None = None,
) -> ExecutorChoice:
    """Returns the fastest executor that agrees with the canonical computation on `rows`; warns why
    a faster one is not used.

    `rows`: as `selfcheck_rows` makes them. `scoring`: the scores that the cache reads. `plain`: the
    canonical computation, if one exists already.
    """
    plain = PlainExecutor(network, hook_points) if plain is None else plain
    scoring = Scoring() if scoring is None else scoring
    plain.canonical.prove(rows)
    trial, choice = _reference(network.name, plain, rows, dtype, scoring)
    nominal = NEAR_TIE[dtype]
    one_by_one = ActivationCache(
        network, hook_points, RowLimit(1), nominal, 0, plain=True, meter=meter, scoring=scoring
    )
    slowest = ExecutorChoice(plain, one_by_one, nominal, nominal)
    if dtype != "float32" and choice.seen:
        log.warning(
            "%s: makes discrete choices on its way (%s), which in %s may go either way in a batch: "
            "each row is run by itself, "
            "slowly; in float32 rows are batched",
            network.name,
            choice.seen,
            dtype,
        )
        return slowest

    def empty_cache(keys: bool = False) -> ActivationCache:
        return ActivationCache(
            network, hook_points, limit, 0.0, max_bytes, keys=keys, meter=meter, scoring=scoring
        )

    runs_whole = partial(whole_run_executor, network, hook_points), empty_cache
    batched = trial.checked(*runs_whole, "each row is run by itself, slowly")
    if batched is None:
        return slowest
    if not isinstance(network, LanguageModel):
        return trial.settled(batched, *runs_whole)
    replayed = _replayed(trial, network, hook_points, partial(empty_cache, keys=True))
    return trial.settled(batched, *runs_whole) if replayed is None else replayed


def _reference(
    name: str, plain: PlainExecutor, rows: Sequence[Row], dtype: str, scoring: Scoring
) -> tuple["_Trial", DiscreteChoices]:
    """Runs the canonical computation on `rows`; returns what executors are held to, and the
    discrete choices that the model made on its way."""
    wanted, highest, choice = {}, [], DiscreteChoices()
    by_length = sorted(rows, key=lambda row: tokens_of(row.base))
    watched = {*by_length[:1], *by_length[-1:]}  # to watch is slow; others make the same choices
    for row in rows:
        with choice if row in watched else nullcontext():
            logits = plain.logits([row])
        (wanted[row],) = with_scores(predict(logits, [row.among]), logits, scoring, [row.base])
        highest.append(float(logits.max()))
    held = LOGIT if dtype == "float32" else math.inf
    least, step, half = least_near_tie(dtype, highest), _step(dtype, highest), dtype != "float32"
    return _Trial(name, wanted, least, step, held, half), choice


def _replayed(
    trial: "_Trial",
    network: LanguageModel,
    hook_points: Components,
    empty_cache: Callable[[], ActivationCache],
) -> ExecutorChoice | None:
    """Returns replay, with rows that share a prefix if that passes, else with copies; None if
    neither does."""
    if not network.can_replay:
        log.warning("%s: takes no cache: rows are run whole, not from the patch on", network.name)
        return None
    for shares, otherwise, level in (
        (True, "each row gets a copy of the keys and values before its patch", logging.INFO),
        (False, "rows are run whole, not from the patch on", logging.WARNING),
    ):
        replay = Replay(network, hook_points, shares)
        make = partial(ReplayExecutor, network, hook_points, shares_prefix=shares, replay=replay)
        found = trial.checked(make, empty_cache, otherwise, level)
        if found is not None:
            return trial.settled(found, make, empty_cache)
    return None


_TRIED: Mapping[ExecutorName, str] = {
    "plain": "each row by itself",
    "batched": "several rows in one batch",
    "replay": "only the tokens and layers that a patch can change, on keys and values kept from "
    "the run without it",
}


@dataclass(frozen=True)
class _Trial:
    """The reference for executors of the model `name`, which is in half precision if `half`. In
    logits, `least`: the smallest near-tie; `step`: rounding step of the highest logit; `held`: the
    largest difference of a logit that scores read."""

    name: str
    wanted: Mapping[Row, Prediction]
    least: float
    step: float
    held: float
    half: bool

    def checked(
        self,
        make: MakeExecutor,
        empty_cache: Callable[[], ActivationCache],
        otherwise: str,
        level: int = logging.WARNING,
    ) -> ExecutorChoice | None:
        """Returns the executor that `make` makes of a cache, with its tolerance; None if it fails,
        with a log message (of `level`) that names the alternative (`otherwise`)."""
        cache = empty_cache()
        executor = make(cache)
        try:
            error = error_of(executor, cache, self.wanted)
            tolerance = max(self.least, SAFETY * error.largest)
            why = self._fault(error, tolerance)
        except (
            RaysearchError,
            RuntimeError,
            ValueError,
            TypeError,
            LookupError,
            AttributeError,
            AssertionError,
        ) as e:
            log.debug("%s: the %s path fails", self.name, executor.name, exc_info=True)
            log.log(
                level,
                "%s: the %s path (%s) was tried, and this model's code stops there with an error "
                "(%s: %s), so %s; answers stay the same",
                *(self.name, executor.name, _TRIED[executor.name], type(e).__name__),
                *(one_line(e), otherwise),
            )
            return None
        if why:
            log.log(
                level,
                "%s: the %s path is not the same as one run at a time (%s): %s",
                self.name,
                executor.name,
                why,
                otherwise,
            )
            return None
        return ExecutorChoice(executor, cache, tolerance, tolerance, error.share(tolerance))

    def _fault(self, error: GapErrors, tolerance: float) -> str:
        """Returns why an executor with that error is not used; empty if it may be."""
        most = max(self.least / SAFETY, MOST * self.step)
        if self.wanted and not error.gaps:
            return "no row that was tried has finite logits"
        if not error.largest <= most:
            return (
                f"logits differ by up to {error.largest:.2g} in the gap of the best two; "
                f"allowed {most:.2g}"
            )
        if not error.logit_error <= self.held:
            return (
                f"logits that scores read differ by up to {error.logit_error:.2g}; "
                f"allowed {self.held:.2g}"
            )
        if tolerance > self.least and error.share(tolerance) > HALF:
            return (
                f"{error.share(tolerance):.0%} of rows would be near-ties, closer than "
                f"{tolerance:.2g} logits"
            )
        return ""

    def settled(
        self,
        choice: ExecutorChoice,
        make: MakeExecutor,
        empty_cache: Callable[[], ActivationCache],
    ) -> ExecutorChoice:
        """Returns `choice`, which `make` made, without near-ties if it is in half precision and
        batch-invariant."""
        if self.half and is_batch_invariant(make, empty_cache, list(self.wanted)):
            choice = replace(choice, near_tie=0.0, share=0.0)
        choice.cache.set_tolerance(choice.near_tie)
        return choice


@torch.inference_mode()
def error_of(
    executor: Executor, cache: ActivationCache, wanted: Mapping[Row, Prediction]
) -> GapErrors:
    """Returns the errors of `executor` on the rows of `wanted`, and of `cache` on those without
    patches."""
    free = [row for row in wanted if executor.is_free(row)]
    one_by_one = [row for row in wanted if not row.patches]
    found = list(
        zip(
            (*free, *one_by_one),
            cache.predictions([row.unpatched for row in (*free, *one_by_one)]),
            strict=True,
        )
    )
    for batch in executor.batches([row for row in wanted if not executor.is_free(row)]):
        logits = executor.logits(batch, choices_only=not cache.scoring.names)
        predictions = predict(logits, [row.among for row in batch])
        found += zip(
            batch,
            with_scores(predictions, logits, cache.scoring, [row.base for row in batch]),
            strict=True,
        )
    errors = [gap_error(prediction, wanted[row]) for row, prediction in found]
    logit_error = [
        answer_logits_error(prediction.answer_logits, wanted[row].answer_logits)
        for row, prediction in found
        if prediction.finite
    ]
    gaps = tuple(prediction.gap for _, prediction in found if prediction.finite)
    return GapErrors(max(errors, default=0.0), gaps, max(logit_error, default=0.0))


def _step(dtype: str, highest: Sequence[float]) -> float:
    """Returns the spacing of `dtype` at the size of the highest logits."""
    largest = max((abs(logit) for logit in highest if math.isfinite(logit)), default=0.0)
    return torch.finfo(getattr(torch, dtype)).eps * largest
