"""The self-check: which path holds on the model at hand, and how near a tie must be for the
canonical computation to decide it.

Each path is held against the canonical computation on rows such as will be asked for. What is
measured is the error of the *gap* of the best two of what is compared (all ids, or the choices),
for that is what an output hangs on; the largest error of a logit is several times it, and says
nothing of outputs. It does of scores: where a job has them, in float32 what they read is held too.
A row whose gap is above `SAFETY` times the largest error that was seen, and above `least_near_tie`,
is the path's to decide; the others are decided by the canonical computation. So outputs depend on
no company.

Invariants: a path that does not hold is not taken, and that is said; plain (the canonical
computation) always holds; a network that makes discrete choices on its way (a mixture of experts)
is continuous nowhere, so that in coarse numbers no path is trusted with it.
"""

import logging
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from raysearch.core.events import Ids
from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.answer_scores import Scoring, heard_error
from raysearch.engine.execution.executors import (
    BatchedExecutor,
    Executor,
    PlainExecutor,
    ReplayExecutor,
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
from raysearch.engine.execution.usage import UsageMeter
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.network import LanguageModel, Network
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.rows import Patch, Row, Source
from raysearch.errors import RaysearchError

log = logging.getLogger(__name__)

SAFETY = 2.0
"""A gap is trusted from so many times the largest error on. Of 300 rows of each of 21 random
families, in bfloat16 and float16, the largest error was below this or below `least_near_tie`, a
mixture of experts in float16 aside, which `_Chooses` finds."""
MOST = 16.0
"""Steps of the highest logit: an error above these is no rounding (SmolLM2-135M: 1.7 in bfloat16,
2.2 in float16)."""
LOGIT = 2.5e-4
"""In float32 what scores read (logits) may differ by so much; in coarser numbers they are
journalled as their batch rounds them."""
HALF = 0.5
"""Share of the rows tried: a path whose error leaves more of them to the canonical computation
saves nothing."""
TRIED = {"float32": 6, "bfloat16": 16, "float16": 16}
"""Pairs of which rows are tried, some six of each: the largest error of so many coarse numbers is
to speak for all that are asked."""
CHOICES = (
    torch.topk,
    torch.argmax,
    torch.sort,
    torch.argsort,
    Tensor.topk,
    Tensor.argmax,
    Tensor.sort,
    Tensor.argsort,
)


@dataclass(frozen=True, slots=True)
class ExecutorChoice:
    """The fastest path that holds, with captures that keep what it needs. `tolerance`: a gap
    (logits) below it is a near-tie.

    `share`: of the rows tried, those that were.
    """

    path: Executor
    captures: ActivationCache
    tolerance: float
    share: float = 0.0


@dataclass(frozen=True, slots=True)
class GapErrors:
    """Of a path on some rows: the largest error of a gap (logits, infinite where only one side is
    finite), and the gaps it found.

    `heard`: the largest error of what scores are made of (logits); 0 where there are none.
    """

    largest: float
    gaps: tuple[float, ...]
    heard: float = 0.0

    def share(self, tolerance: float) -> float:
        """Of rows whose gap is below `tolerance`."""
        return sum(gap < tolerance for gap in self.gaps) / max(len(self.gaps), 1)


@torch.inference_mode()
def select_executor(
    network: Network,
    taps: Components,
    rows: Sequence[Row],
    limit: RowLimit,
    max_bytes: int,
    dtype: str,
    meter: UsageMeter | None = None,
    scoring: Scoring | None = None,
    plain: PlainExecutor | None = None,
) -> ExecutorChoice:
    """The fastest path that gives for `rows` what the canonical computation gives; says why not a
    faster one.

    `rows`: as `trial_rows` makes them. `scoring`: the scores that captures read. `plain`: where the
    canonical computation is at hand.
    """
    plain = PlainExecutor(network, taps) if plain is None else plain
    scoring = Scoring() if scoring is None else scoring
    plain.canonical.prove(rows)
    wanted, highest, chooses = {}, [], _Chooses()
    for row in rows:
        with chooses:
            logits = plain.logits([row])
        (wanted[row],) = with_scores(predict(logits, [row.among]), logits, scoring, [row.base])
        highest.append(float(logits.max()))
    held = LOGIT if dtype == "float32" else math.inf
    trial = _Trial(
        network.name, wanted, least_near_tie(dtype, highest), _step(dtype, highest), held
    )
    nominal = NEAR_TIE[dtype]
    alone = ActivationCache(
        network, taps, RowLimit(1), nominal, 0, plain=True, meter=meter, scoring=scoring
    )
    slowest = ExecutorChoice(plain, alone, nominal)
    if dtype != "float32" and chooses.seen:
        log.warning(
            "%s: makes discrete choices on its way (%s), which in %s may go either way in a batch: "
            "each row is run by itself, "
            "slowly; in float32 rows are batched",
            network.name,
            chooses.seen,
            dtype,
        )
        return slowest
    captures = ActivationCache(network, taps, limit, 0.0, max_bytes, meter=meter, scoring=scoring)
    batched = trial.settled(
        BatchedExecutor(network, taps, captures), captures, "each row is run by itself, slowly"
    )
    if batched is None:
        return slowest
    if not isinstance(network, LanguageModel):
        return batched
    if not network.can_replay:
        log.warning("%s: takes no cache: rows are run whole, not from the patch on", network.name)
        return batched
    keeping = ActivationCache(
        network, taps, limit, 0.0, max_bytes, keys=True, meter=meter, scoring=scoring
    )
    replayed = trial.settled(
        ReplayExecutor(network, taps, keeping), keeping, "rows are run whole, not from the patch on"
    )
    return batched if replayed is None else replayed


@dataclass(frozen=True)
class _Trial:
    """What paths of the model `name` are held against. In logits, `least`: the least near-tie;
    `step`: of the highest logit; `held`: the most that what scores read may differ."""

    name: str
    wanted: Mapping[Row, Prediction]
    least: float
    step: float
    held: float

    def settled(
        self, path: Executor, captures: ActivationCache, otherwise: str
    ) -> ExecutorChoice | None:
        """The path with its tolerance; None where it does not hold, and then warns of what is done
        `otherwise`."""
        try:
            error = error_of(path, captures, self.wanted)
            most = max(self.least / SAFETY, MOST * self.step)
            tolerance, why = max(self.least, SAFETY * error.largest), ""
            if self.wanted and not error.gaps:
                why = "no row that was tried has finite logits"
            elif not error.largest <= most:
                why = f"logits differ by up to {error.largest:.2g} in the gap of the best two; allowed {most:.2g}"
            elif not error.heard <= self.held:
                why = f"logits that scores read differ by up to {error.heard:.2g}; allowed {self.held:.2g}"
            elif tolerance > self.least and error.share(tolerance) > HALF:
                why = f"{error.share(tolerance):.0%} of rows would be near-ties, closer than {tolerance:.2g} logits"
        except (
            RaysearchError,
            RuntimeError,
            ValueError,
            TypeError,
            LookupError,
            AttributeError,
            AssertionError,
        ) as e:
            why = f"{type(e).__name__}: {' '.join(str(e).split())[:200]}"
        if why:
            log.warning(
                "%s: the %s path is not the same as one run at a time (%s): %s",
                self.name,
                path.name,
                why,
                otherwise,
            )
            return None
        captures.settle(tolerance)
        return ExecutorChoice(path, captures, tolerance, error.share(tolerance))


@torch.inference_mode()
def error_of(
    path: Executor, captures: ActivationCache, wanted: Mapping[Row, Prediction]
) -> GapErrors:
    """How far `path` is from what is wanted of each row, and `captures` of those without patches."""
    free = [row for row in wanted if path.is_free(row)]
    alone = [row for row in wanted if not row.patches]
    said = list(
        zip(
            (*free, *alone), captures.decisions([row.alone for row in (*free, *alone)]), strict=True
        )
    )
    for batch in path.batches([row for row in wanted if not path.is_free(row)]):
        logits = path.logits(batch)
        decisions = predict(logits, [row.among for row in batch])
        said += zip(
            batch,
            with_scores(decisions, logits, captures.scoring, [row.base for row in batch]),
            strict=True,
        )
    errors = [gap_error(decision, wanted[row]) for row, decision in said]
    heard = [
        heard_error(decision.heard, wanted[row].heard) for row, decision in said if decision.finite
    ]
    gaps = tuple(decision.gap for _, decision in said if decision.finite)
    return GapErrors(max(errors, default=0.0), gaps, max(heard, default=0.0))


def selfcheck_rows(rows: Sequence[Row], layers: int, seed: int = 0) -> list[Row]:
    """What paths are held against the canonical computation on: `rows`, their bases without
    intervention, and an identity for each.

    The identity, one for each base of several tokens, takes the last token but one from the same
    text without its last, in a random layer: it is none where tokens look ahead.
    """
    rng = random.Random(f"{seed}.selfcheck")
    trial = [*rows, *(row.alone for row in rows)]
    for given in dict.fromkeys(row.base for row in rows):
        if isinstance(given, tuple) and len(given) > 1:
            trial.append(
                _swapped(
                    given,
                    given[:-1],
                    Point(rng.randrange(layers), "residual"),
                    len(given) - 2,
                )
            )
    return list(dict.fromkeys(trial))


def straddling(
    texts: Iterable[Ids], layers: int, lengths: Sequence[int], seed: int = 0
) -> list[Row]:
    """Rows on both sides of each of `lengths` that some of `texts` are longer than and others not.

    A text of just that length and one token longer, alone and lending to each other: a batch then
    has rows on both sides, and prefixes are taken across.
    """
    rng = random.Random(f"{seed}.straddling")
    known = sorted(set(texts), key=lambda text: (len(text), text))
    rows: list[Row] = []
    for length in lengths:
        longer = [text for text in known if len(text) > length]
        if not longer or not 2 <= len(known[0]) <= length:
            continue
        within, beyond, other = longer[0][:length], longer[0][: length + 1], rng.choice(known)
        for base, source in ((within, beyond), (beyond, within)):
            rows.append(Row(base))
            for at, lender in ((length - 2, source), (length - 1, source), (0, other)):
                rows.append(_swapped(base, lender, Point(rng.randrange(layers), "residual"), at))
    return list(dict.fromkeys(rows))


def _swapped(base: Ids, source: Ids, point: Point, token: int) -> Row:
    return Row(base, (Patch(point, (token,), (Source(Row(source), point, (token,)),)),))


def _step(dtype: str, highest: Sequence[float]) -> float:
    """The largest step between two numbers of `dtype` that are as large as the highest logits."""
    largest = max((abs(logit) for logit in highest if math.isfinite(logit)), default=0.0)
    return torch.finfo(getattr(torch, dtype)).eps * largest


class _Chooses(TorchFunctionMode):
    """Sees whether what runs within picks the best of some numbers, as a router of experts does.
    `seen`: by which function."""

    seen: str | None = None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if (
            func in CHOICES
            and isinstance(args[0] if args else None, Tensor)
            and args[0].is_floating_point()
        ):
            self.seen = str(getattr(func, "__name__", func))
        return func(*args, **(kwargs or {}))
