"""A network ready to work: its taps, the fastest path that holds on it, what it keeps, who measures and who trains on it.

Invariants: whatever path is taken gives what the oracle gives; that was tried on the components that will be asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from raysearch.engine.asked import trials
from raysearch.engine.attribution import Attributor
from raysearch.engine.captures import Captures
from raysearch.engine.components import Taps
from raysearch.engine.decide import NEAR_TIE
from raysearch.engine.fit.recipe import Recipe
from raysearch.engine.fit.trainer import Trainer
from raysearch.engine.measure import Measurer
from raysearch.engine.memory import Limit, capture_bytes
from raysearch.engine.meter import Meter
from raysearch.engine.network import Network
from raysearch.engine.paths import Path, Plain, fastest, trial_rows
from raysearch.engine.scores import Scoring
from raysearch.search.events import Encoded


@dataclass(frozen=True)
class Settings:
    """How a replica works; but for `recipe` none of it changes an output in float32.

    `rows`: at most so many rows in a forward pass. `capture_bytes`: of runs kept, on the model's device (None: by what is free there).
    `threads`: of torch on a CPU (None: as they are; it is a setting of the whole process). `plain`: never batch. `recipe`: how
    subspaces are trained (None: they are not). `files`: of sparse autoencoders. `scores`: that are read beside outputs.
    """

    rows: int = 64
    capture_bytes: int | None = None
    threads: int | None = None
    plain: bool = False
    recipe: Recipe | None = None
    files: tuple[str, ...] = ()
    scores: tuple[str, ...] = ()


AS_THEY_COME = Settings()


class Machine:
    """One network at work on the encoded pairs, all its parts on one `meter`. Raises: ModelError for a component that it lacks."""

    def __init__(
        self,
        network: Network,
        dtype: str,
        encoded: Sequence[Encoded],
        components: Sequence[str],
        settings: Settings,
        meter: Meter,
    ) -> None:
        self.network = network
        self.taps = Taps(network)
        self.facts = tuple(self.taps.facts(component) for component in components)
        self.tolerance = NEAR_TIE[dtype]
        self.scoring = Scoring(settings.scores, encoded)
        plain, limit = Plain(network, self.taps), Limit(settings.rows)
        self.path: Path = plain
        self.captures = Captures(
            network, self.taps, Limit(1), self.tolerance, 0, plain=True, meter=meter, scoring=self.scoring
        )
        if not settings.plain:
            layers = len(network.blocks)
            rows = trial_rows(trials(encoded, self.taps, layers, components), layers)
            kept = capture_bytes(network.device) if settings.capture_bytes is None else settings.capture_bytes
            with meter.phase("check"):
                settled = limit, kept, self.tolerance, meter, self.scoring
                self.path, self.captures = fastest(network, self.taps, rows, *settled)
        self.measurer = Measurer(self.path, plain, self.captures, limit, self.tolerance)
        self._recipe, self._limit = settings.recipe, limit
        self._meter = meter

    @cached_property
    def attributor(self) -> Attributor:
        """Who tells what interchanges would do to first order. What memory a backward pass wants says nothing of other rows."""
        plain = self.path.name == "plain"
        return Attributor(self.network, self.taps, plain, Limit(self._limit.rows), self.tolerance, self._meter)

    @cached_property
    def trainer(self) -> Trainer:
        """Who trains subspaces, where the settings say how."""
        assert self._recipe is not None, "a replica that fits is given a recipe"
        return Trainer(self.network, self.taps, self.path, self.captures, self._recipe, self.tolerance, self._limit)
