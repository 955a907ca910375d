"""Cached runs: activations of the wanted components at every layer, keys and values, the prediction
at the answer.

A run without intervention serves every hypothesis, as a base and as a source; a patched run is
cached only if it is itself a source. Many inputs of one length run in one batch.

Invariants: a token's activation has the token's own index; a run is computed once,
unless it was evicted (least recently used first, `max_bytes` in all), or more components or later
blocks are wanted since; predictions of unpatched rows are never evicted; all that is stored is
`without_gradients`.
"""

from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache

from raysearch.engine.execution.answer_scores import Scoring
from raysearch.engine.execution.cached_runs import (
    CachedRun,
    RunTable,
    StoredBatch,
)
from raysearch.engine.execution.capture import Capture
from raysearch.engine.execution.capture_request import CaptureRequest
from raysearch.engine.execution.memory import RowLimit, run_in_halves
from raysearch.engine.execution.predict import (
    Prediction,
    is_unsure,
    near_ties,
    predict,
    with_scores,
)
from raysearch.engine.execution.usage import UsageMeter
from raysearch.engine.networks.components import Components, hook_at
from raysearch.engine.networks.gradient_mode import without_gradients
from raysearch.engine.networks.hooks import owned_hooks
from raysearch.engine.networks.network import LanguageModel, ModelInput, Network, batches, tokens_of
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.edits import edits_of, sources_of
from raysearch.engine.patching.rows import Row


class ActivationCache:
    """Caches runs of a network: at most `limit.rows` inputs in a forward pass, at most `max_bytes`
    stored.

    `tolerance` (logits): predictions with a smaller gap are decided by the canonical computation;
    with `plain`, all are. `keys`: store keys and values too, for `replay`. `meter`: the replica's
    usage meter, which users of the cache share. `scoring`: scores that are read with predictions.
    """

    def __init__(
        self,
        network: Network,
        hook_points: Components,
        limit: RowLimit,
        tolerance: float,
        max_bytes: int,
        plain: bool = False,
        keys: bool = False,
        meter: UsageMeter | None = None,
        scoring: Scoring | None = None,
    ) -> None:
        assert not keys or isinstance(network, LanguageModel)
        self._network = network
        self._hook_points = hook_points
        self._limit = limit
        self._tolerance = tolerance
        self._max_bytes = max_bytes
        self._plain = plain
        self.keys = keys
        self.meter = UsageMeter() if meter is None else meter
        self.scoring = Scoring() if scoring is None else scoring
        self._bytes = 0
        self._most_per_token, self._runs_made, self._tokens_run = 0.0, 0, 0
        self._held: Counter[StoredBatch] = Counter()  # cached runs of each batch
        self.wanted = CaptureRequest(hook_points)
        self._runs: OrderedDict[Row, CachedRun] = OrderedDict()  # least recently used first
        self._table: tuple[Sequence[Row], RunTable] | None = None
        self._dropped = 0
        self._too_many: Sequence[Row] | None = None  # they did not fit together
        self._shallow: set[Row] = set()  # sources that were run up to some block
        self._predictions: dict[Row, Prediction] = {}
        self._near_ties: set[Row] = (
            set()
        )  # near-ties that the canonical computation has not decided yet

    @without_gradients()
    def predictions(self, rows: Sequence[Row]) -> list[Prediction]:
        """Returns the prediction of each row, none of which is patched; rows not seen before are
        run."""
        assert not any(row.patches for row in rows), "a run without intervention has no patches"
        unseen = [row for row in dict.fromkeys(rows) if row not in self._predictions]
        near = unseen if self._plain else [row for row in unseen if row in self._near_ties]
        with self.meter.phase("capture"):
            for row in near:
                self._predictions[row] = replace(
                    self._predict_canonically(row), was_near_tie=not self._plain
                )
        self._run_all([row for row in unseen if row not in self._predictions])
        return [self._predictions[row] for row in rows]

    def set_tolerance(self, tolerance: float) -> None:
        """Sets the gap below which a prediction is a near-tie, and forgets earlier predictions that
        are one."""
        self._tolerance = tolerance
        self._near_ties = {row for row, d in self._predictions.items() if is_unsure(d, tolerance)}
        for row in self._near_ties:
            del self._predictions[row]

    def want(self, components: Iterable[str]) -> None:
        """Makes later runs store these components at every layer that is read."""
        self.wanted.components(components)

    @without_gradients()
    def runs(
        self, rows: Iterable[Row], sources: Mapping[Row, Collection[Point]] = MappingProxyType({})
    ) -> dict[Row, CachedRun]:
        """Returns the run of each of `rows` and `sources` with all wanted components; missing ones
        are computed (again).

        Of a source only the activations at the given points are needed. Its first run ends behind
        the deepest of them; if more is asked for later, it is run as a whole.
        """
        blocks = {
            row: None if row.patches else self._blocks_to(points) for row, points in sources.items()
        }
        blocks |= dict.fromkeys(rows)
        found: dict[Row, CachedRun] = {}
        for row, needed in blocks.items():
            run = self._runs.get(row)
            if run is not None and self.wanted.is_in(run, row, needed):
                self._runs.move_to_end(row)
                found[row] = run
        missing = {row: needed for row, needed in blocks.items() if row not in found}
        found.update(self._run_all([row for row, needed in missing.items() if needed is None]))
        found.update(self._run_shallow({row: n for row, n in missing.items() if n is not None}))
        return found

    def _blocks_to(self, points: Collection[Point]) -> int | None:
        """Returns how many blocks run before the last of `points`; None: all of them are run."""
        if not self.keys:
            return None
        layers = [self._hook_points.at(point).layer for point in points]
        inside = [layer + 1 for layer in layers if layer is not None]
        return max(inside) if len(inside) == len(layers) else None

    def _run_shallow(self, blocks: Mapping[Row, int]) -> dict[Row, CachedRun]:
        """Runs each row up to so many blocks, at first; a row that was run before, as a whole."""
        again = [row for row in blocks if row in self._shallow]
        made = self._run_all(again)
        new = [row for row in blocks if row not in self._shallow]
        self._shallow.update(new)
        if new:
            made |= self._run_all(new, max(blocks[row] for row in new))
        return made

    @without_gradients()
    def table(self, rows: Sequence[Row]) -> RunTable | None:
        """Returns the runs of `rows` as a table; None if they do not fit into the cache together.
        While no run is dropped, the table of the same sequence is not made again."""
        if self._too_many is rows:
            return None
        if self._table is None or self._table[0] is not rows:
            found = self.runs(rows) if len(rows) <= self.room else {}
            if not all(row in self._runs for row in rows):
                self._too_many = rows
                return None
            self._table = rows, RunTable.of([found[row] for row in rows])
        return self._table[1]

    @property
    def state(self) -> tuple[int, int]:
        """A number that changes where a run is dropped, and one where something else is wanted:
        until then a run that was found once has what is wanted of it."""
        return self._dropped, self.wanted.version

    def at(self, run: CachedRun, point: Point) -> Float[Tensor, "token width"]:
        """Returns the activation of a run at a point whose component was wanted."""
        return run.at(point.component, self._hook_points.place(point))

    def parts_that_fit(self, rows: Sequence[Row], most: int | None = None) -> Iterator[list[Row]]:
        """Yields `rows` in parts of at most `most` rows (None: `limit.rows`) whose runs, bases and
        sources, fit into `max_bytes`.

        A row that does not fit is a part of its own.
        """
        part: list[Row] = []
        inside: set[Row] = set()
        for row in rows:
            needed = {
                Row(row.base),
                *(source.run for patch in row.patches for source in patch.sources),
            }
            full = len(part) >= (self._limit.rows if most is None else most)
            if part and (
                full or self._bytes_of(len(inside) + len(needed - inside)) > self._max_bytes
            ):
                yield part
                part, inside = [], set()
            part.append(row)
            inside |= needed
        if part:
            yield part

    @property
    def device(self) -> torch.device:
        """The device of the network's inputs."""
        return self._network.device

    def most_rows(self, tokens: int) -> int:
        """Returns most rows of a wave whose rows compute so many tokens each, as far as is known by
        now."""
        return self._limit.of_wave(tokens)

    @property
    def room(self) -> int:
        """Number of runs that fit into `max_bytes`, at least 1."""
        return max(1, int(self._max_bytes // max(self._bytes_of(1), 1)))

    def _bytes_of(self, runs: int) -> float:
        """Estimates the bytes of `runs` runs: of the mean length so far, and each token as many as
        that of the largest run. What is planned to be held together then is, and no run is made
        twice."""
        return runs * self._most_per_token * self._tokens_run / max(self._runs_made, 1)

    def _run_all(self, rows: Sequence[Row], blocks: int | None = None) -> dict[Row, CachedRun]:
        made: dict[Row, CachedRun] = {}
        at_once = min(self._limit.rows, self.room)
        with self.meter.phase("capture"):
            for batch in batches(rows, lambda row: self._network.batch_key(row.base), at_once):
                for part in run_in_halves(batch, partial(self._run, blocks=blocks), self._limit):
                    made.update(part)
        return made

    def _run(self, batch: Sequence[Row], blocks: int | None = None) -> dict[Row, CachedRun]:
        """Runs `batch`, whose rows have one batch key, and stores the results. `blocks`: the number
        of blocks to run; None: all, and the head."""
        network, given = self._network, batch[0].base
        replacements = self.runs((), sources_of(batch))
        edits = edits_of(
            batch,
            self._hook_points,
            lambda source: self.at(replacements[source.run], source.point),
        )
        hooks = [hook_at(network, hook_point, edit, given) for hook_point, edit in edits]
        capture = Capture(network, self._hook_points, self.wanted, batch, blocks, self.keys)
        with self._ending_after(blocks), owned_hooks([*hooks, *capture.hooks]):
            logits = self._logits([row.base for row in batch], capture.cache)
        self.meter.ran(sum(tokens_of(row.base) for row in batch))
        if blocks is None:
            predictions = predict(logits, [row.among for row in batch])
            self._cache_predictions(
                batch, with_scores(predictions, logits, self.scoring, [row.base for row in batch])
            )
        runs = capture.runs()
        stored = next(iter(runs.values())).batch
        tokens = sum(tokens_of(row.base) for row in batch)
        self._most_per_token = max(self._most_per_token, stored.nbytes / tokens)
        self._runs_made, self._tokens_run = self._runs_made + len(batch), self._tokens_run + tokens
        self._store(runs, stored)
        return runs

    def _ending_after(self, blocks: int | None) -> AbstractContextManager[None]:
        if blocks is None:
            return nullcontext()
        assert isinstance(self._network, LanguageModel)
        return self._network.ending_after(blocks)

    def _logits(
        self, givens: Sequence[ModelInput], cache: DynamicCache | None
    ) -> Float[Tensor, "row answer"]:
        if cache is None:
            return self._network.batch(givens)
        assert isinstance(self._network, LanguageModel)
        return self._network.batch(givens, cache)

    def _cache_predictions(self, batch: Sequence[Row], predictions: Sequence[Prediction]) -> None:
        was_near_tie = set(near_ties(predictions, self._tolerance))
        for at, row in enumerate(batch):
            if not row.patches and row not in self._predictions:
                is_near = at in was_near_tie
                self._predictions[row] = (
                    replace(self._predict_canonically(row), was_near_tie=True)
                    if is_near
                    else predictions[at]
                )

    def _predict_canonically(self, row: Row) -> Prediction:
        self.meter.ran(tokens_of(row.base))
        logits = self._network.plain(row.base)[None]
        return with_scores(predict(logits, [row.among]), logits, self.scoring, [row.base])[0]

    def _store(self, runs: Mapping[Row, CachedRun], batch: StoredBatch) -> None:
        """Stores the runs of a batch; of one that does not fit, the last ones that do."""
        some = list(runs.items())[-self.room :]
        if batch.nbytes > self._max_bytes:
            copies = batch.part([run for _, run in some])
            some = [(row, run) for (row, _), run in zip(some, copies, strict=True)]
        for row, run in some:
            self._drop(self._runs.pop(row, None))
            self._runs[row] = run
            if not self._held[run.batch]:
                self._bytes += run.batch.nbytes
            self._held[run.batch] += 1
        while self._bytes > self._max_bytes:
            self._drop(self._runs.popitem(last=False)[1])

    def _drop(self, run: CachedRun | None) -> None:
        """Forgets a run; the memory of its batch is free when the last one is forgotten."""
        if run is None:
            return
        self._table = None
        self._dropped += 1
        self._held[run.batch] -= 1
        if not self._held[run.batch]:
            del self._held[run.batch]
            self._bytes -= run.batch.nbytes
