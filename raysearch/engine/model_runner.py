"""A network ready to work: its taps, the fastest path that holds on it, what it keeps, who measures
and who trains on it.

Invariants: whatever path is taken gives what the oracle gives; that was tried on the components
that will be asked for.
"""

import logging
from collections.abc import Iterator, Sequence
from functools import cached_property

from raysearch.core.events import Encoded, Ids
from raysearch.core.runner_settings import RunnerSettings
from raysearch.engine.attribution.attributor import Attributor
from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.answer_scores import Scoring
from raysearch.engine.execution.evaluate import Evaluator
from raysearch.engine.execution.executors import PlainExecutor
from raysearch.engine.execution.memory import RowLimit, capture_bytes, room_on_host
from raysearch.engine.execution.predict import NEAR_TIE
from raysearch.engine.execution.selfcheck import (
    TRIED,
    ExecutorChoice,
    select_executor,
    selfcheck_rows,
    straddling,
)
from raysearch.engine.execution.usage import UsageMeter
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.half_precision import keep_copies
from raysearch.engine.networks.network import LanguageModel, Network
from raysearch.engine.patching.build import trials
from raysearch.engine.patching.rows import Row
from raysearch.engine.training.trainer import Trainer

log = logging.getLogger(__name__)

LENT = 4
"""Of what captures may take, the canonical computation may keep one part in so many of what sources
lend."""


class ModelRunner:
    """One network at work on the encoded pairs, all its parts on one `meter`. Raises: ModelError
    for a component that it lacks."""

    def __init__(
        self,
        network: Network,
        dtype: str,
        encoded: Sequence[Encoded],
        components: Sequence[str],
        settings: RunnerSettings,
        meter: UsageMeter,
    ) -> None:
        self.network = network
        self.taps = Components(network)
        self.facts = tuple(self.taps.facts(component) for component in components)
        self.scoring = Scoring(settings.scores, encoded)
        hold_copies(network)
        kept = (
            capture_bytes(network.device)
            if settings.capture_bytes is None
            else settings.capture_bytes
        )
        plain, limit = PlainExecutor(network, self.taps, kept // LENT), RowLimit(settings.rows)
        if settings.plain:
            alone = RowLimit(1), NEAR_TIE[dtype], 0
            captures = ActivationCache(
                network, self.taps, *alone, plain=True, meter=meter, scoring=self.scoring
            )
            settled = ExecutorChoice(plain, captures, NEAR_TIE[dtype])
        else:
            with meter.phase("check"):
                rows = self._trial(encoded, components, dtype)
                settled = select_executor(
                    network, self.taps, rows, limit, kept, dtype, meter, self.scoring, plain
                )
        self.plain = plain
        self.path, self.captures, self.tolerance = settled.path, settled.captures, settled.tolerance
        self.measurer = Evaluator(self.path, plain, self.captures, limit, self.tolerance)
        self._recipe, self._limit = settings.recipe, limit
        self._meter = meter

    def _trial(
        self, encoded: Sequence[Encoded], components: Sequence[str], dtype: str
    ) -> list[Row]:
        """The rows of the self-check."""
        layers = len(self.network.blocks)
        rows = selfcheck_rows(
            trials(encoded, self.taps, layers, components, tried=TRIED[dtype]), layers
        )
        if isinstance(self.network, LanguageModel):
            rows += straddling(_texts(encoded), layers, self.network.lengths)
        return list(dict.fromkeys(rows))

    @cached_property
    def attributor(self) -> Attributor:
        """Who tells what interchanges would do to first order. What memory a backward pass wants
        says nothing of other rows."""
        plain = self.path.name == "plain"
        return Attributor(
            self.network, self.taps, plain, RowLimit(self._limit.rows), self.tolerance, self._meter
        )

    @cached_property
    def trainer(self) -> Trainer:
        """Who trains subspaces, where the settings say how."""
        assert self._recipe is not None, "a replica that fits is given a recipe"
        return Trainer(
            self.network,
            self.taps,
            self.path,
            self.captures,
            self._recipe,
            self.tolerance,
            self._limit,
        )


def hold_copies(network: Network) -> None:
    """Lets the network hold float32 copies of weights of halves, where that makes it faster and
    memory has room; else says so."""
    kept, every = keep_copies(network.module, room_on_host())
    if kept < every:
        log.warning(
            "%s: memory has room for %d of %d MiB of float32 copies of its weights: the others are "
            "converted at each product, slower, "
            "with the same outputs",
            network.name,
            kept // 2**20,
            every // 2**20,
        )


def _texts(encoded: Sequence[Encoded]) -> Iterator[Ids]:
    """All that will be run: bases and sources, and bases with all of an answer but its last token."""
    for pair in encoded:
        for given in (pair.base, *pair.sources.values()):
            if isinstance(given, tuple):
                yield given
                if pair.longest > 1:
                    yield (*given, *(given[-1:] * (pair.longest - 1)))
