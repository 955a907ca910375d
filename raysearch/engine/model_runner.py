"""A network ready to run: its hook points, the fastest executor that is right for it, its cache,
its evaluator and its trainer.

Invariants: every executor gives the outputs of the oracle; that was tested on the components of the
job.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Literal

import torch

from raysearch.core.events import Encoded, Ids, ModelInput
from raysearch.core.model_facts import ModelFacts
from raysearch.core.runner_settings import RunnerSettings
from raysearch.engine.attribution.attributor import Attributor
from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.answer_scores import Scoring
from raysearch.engine.execution.evaluate import Evaluator
from raysearch.engine.execution.evaluate_swaps import SwapEvaluator
from raysearch.engine.execution.executors import PlainExecutor
from raysearch.engine.execution.memory import RowLimit, capture_bytes, room_on_host
from raysearch.engine.execution.predict import NEAR_TIE
from raysearch.engine.execution.read_spans import ReadSpans
from raysearch.engine.execution.replay_executor import ReplayExecutor
from raysearch.engine.execution.selfcheck import (
    TRIED,
    ExecutorChoice,
    select_executor,
)
from raysearch.engine.execution.selfcheck_cache import (
    check_key,
    recall_choice,
    remember_choice,
)
from raysearch.engine.execution.selfcheck_rows import boundary_rows, selfcheck_rows
from raysearch.engine.execution.tensor_executor import TensorExecutor
from raysearch.engine.execution.usage import UsageMeter
from raysearch.engine.execution.wave_size import NO_LIMIT, measured_size
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.first_run import check_runs
from raysearch.engine.networks.half_precision import keep_copies
from raysearch.engine.networks.network import LanguageModel, LoadedNetwork, Network
from raysearch.engine.patching.random_rows import random_rows
from raysearch.engine.patching.rows import Row
from raysearch.engine.training.trainer import Trainer

log = logging.getLogger(__name__)

CANONICAL_PARTS = 4
"""The canonical computation may cache one part in this many of the memory for cached runs."""


class ModelRunner:
    """Runs one network on the encoded pairs; all parts share one `meter`. `digest`: of the network,
    by which its self-check is remembered ("": it is not). `positions`: those that are read and
    written (none: any). Raises: ModelError for a
    component that the network lacks."""

    def __init__(
        self,
        network: Network,
        dtype: str,
        encoded: Sequence[Encoded],
        components: Sequence[str],
        settings: RunnerSettings,
        meter: UsageMeter,
        digest: str = "",
        positions: Sequence[str] = (),
    ) -> None:
        self.network = network
        self.hook_points = Components(network)
        self.facts = tuple(self.hook_points.facts(component) for component in components)
        self.scoring = Scoring(settings.scores, encoded)
        check_runs(network, _ends(encoded))
        hold_copies(network)
        cache_bytes = settings.capture_bytes
        if cache_bytes is None:
            cache_bytes = capture_bytes(network.device)
        limit = RowLimit(settings.rows)
        plain = PlainExecutor(network, self.hook_points, cache_bytes // CANONICAL_PARTS)
        if settings.plain:
            choice = self._one_by_one(dtype, plain, meter)
        else:
            with meter.phase("check"):
                rows = self._selfcheck_rows(encoded, components, dtype)
                choice = self._checked(
                    *(digest, dtype, rows, limit, cache_bytes, meter, plain, settings.tokens),
                )
        self.plain = plain
        self.wave_tokens = limit.tokens
        self.executor, self.cache = choice.executor, choice.cache
        if positions:
            several = any(pair.longest > 1 for pair in encoded)
            self.cache.wanted.plan(ReadSpans(encoded, positions, several), settings.layers)
        self.executor.want(components)  # so that screening need not be repeated for them
        self.tolerance, self.near_tie = choice.tolerance, choice.near_tie
        self.evaluator = Evaluator(self.executor, plain, self.cache, limit, self.near_tie)
        self.swaps = (
            SwapEvaluator(self.evaluator, self.executor, self.tolerance)
            if isinstance(self.executor, ReplayExecutor | TensorExecutor)
            else None
        )
        self._recipe, self._limit = settings.recipe, limit
        self._meter = meter

    def _one_by_one(self, dtype: str, plain: PlainExecutor, meter: UsageMeter) -> ExecutorChoice:
        """Returns the canonical computation as the executor, with a cache of single rows."""
        near_tie = NEAR_TIE[dtype]
        of_one = ActivationCache(
            *(self.network, self.hook_points, RowLimit(1), near_tie, 0),
            plain=True,
            meter=meter,
            scoring=self.scoring,
        )
        return ExecutorChoice(plain, of_one, near_tie, near_tie)

    def _checked(
        self,
        digest: str,
        dtype: str,
        rows: Sequence[Row],
        limit: RowLimit,
        cache_bytes: int,
        meter: UsageMeter,
        plain: PlainExecutor,
        tokens: int | Literal["auto"],
    ) -> ExecutorChoice:
        """Returns the fastest executor that is right, by a self-check now or one like it before;
        sets the size of its waves, measured now or before if `tokens` is auto."""
        network, hook_points, scoring = self.network, self.hook_points, self.scoring
        key = check_key(network, digest, dtype, rows, limit, scoring)
        known = recall_choice(key, network, hook_points, limit, cache_bytes, meter, scoring, plain)
        choice = known or select_executor(
            network, hook_points, rows, limit, cache_bytes, dtype, meter, scoring, plain
        )
        executor, measures = choice.executor, tokens == "auto" and choice.wave_tokens is None
        if measures and isinstance(executor, ReplayExecutor):
            assert isinstance(network, LanguageModel), "others have no waves"
            size = measured_size(network, executor, rows, limit)
            choice = replace(choice, wave_tokens=size)
        if choice is not known:
            remember_choice(key, network, choice, plain)
        limit.tokens = (choice.wave_tokens or NO_LIMIT) if tokens == "auto" else tokens
        return choice

    def _selfcheck_rows(
        self, encoded: Sequence[Encoded], components: Sequence[str], dtype: str
    ) -> list[Row]:
        """Returns the rows of the self-check."""
        layers = len(self.network.blocks)
        rows = selfcheck_rows(
            random_rows(encoded, self.hook_points, layers, components, tried=TRIED[dtype]), layers
        )
        if isinstance(self.network, LanguageModel):
            rows += boundary_rows(_texts(encoded), layers, self.network.lengths)
        return list(dict.fromkeys(rows))

    @cached_property
    def attributor(self) -> Attributor:
        """Computes first-order effects. Has its own row limit: an out-of-memory in a backward pass
        must not shrink forward batches."""
        plain = self.executor.name == "plain"
        return Attributor(
            self.network,
            self.hook_points,
            plain,
            RowLimit(self._limit.rows),
            self.tolerance,
            self._meter,
        )

    @cached_property
    def trainer(self) -> Trainer:
        """Trains subspaces, if the settings have a recipe."""
        assert self._recipe is not None, "a replica that fits is given a recipe"
        return Trainer(
            self.network,
            self.hook_points,
            self.executor,
            self.cache,
            self._recipe,
            self.near_tie,
            self._limit,
        )


def _ends(encoded: Sequence[Encoded]) -> dict[str, ModelInput]:
    """Returns the shortest and the longest input of the pairs, by words that name them."""
    texts = sorted(_texts(encoded), key=len)
    if texts:
        ends = {"shortest": texts[0], "longest": texts[-1]}
        return {f"the {end} input, of {len(at)} tokens": at for end, at in ends.items()}
    return {f"pair {e.index}: the base": e.base for e in encoded[:1]}


def hold_copies(network: Network) -> None:
    """Makes float32 copies of half-precision weights, if that is faster and memory allows; warns if
    it does not."""
    copied, wanted = keep_copies(network.module, room_on_host())
    if copied < wanted:
        log.warning(
            "%s: memory has room for %d of %d MiB of float32 copies of its weights: the others are "
            "converted at each product, slower, with the same outputs",
            network.name,
            copied // 2**20,
            wanted // 2**20,
        )


def _texts(encoded: Sequence[Encoded]) -> Iterator[Ids]:
    """Yields all texts that will be run: bases and sources, and bases with all but the last token
    of an answer."""
    for pair in encoded:
        for given in (pair.base, *pair.sources.values()):
            if isinstance(given, tuple):
                yield given
                if pair.longest > 1:
                    yield (*given, *(given[-1:] * (pair.longest - 1)))


def model_facts(loaded: LoadedNetwork, runner: ModelRunner, tokens: int) -> ModelFacts:
    """Returns what the driver is told of a model that is ready to run. `tokens`: those of every
    input, where each is a position; else 0."""
    network = runner.network
    return ModelFacts(
        layers=len(network.blocks),
        width=network.width,
        heads=network.heads,
        digest=loaded.digest,
        dtype=loaded.dtype,
        device=_device_name(network.device),
        path=runner.executor.name,
        components=runner.facts,
        tokens=tokens,
        commit=loaded.commit,
        unused=loaded.unused,
        wave_tokens=runner.wave_tokens,
    )


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
