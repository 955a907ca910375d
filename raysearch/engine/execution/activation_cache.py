"""What runs leave behind: activations at every layer of the components that are wanted, keys and
values, the decision at the answer.

A run without intervention serves every hypothesis, as a base and as a source; a run intervened upon
is captured only where it is itself a source. Many are run in one padded batch.

Invariants: a run is kept without its padding, so a token's activation has the token's own index; it
is made once, unless it had to make room (least recently used first, `max_bytes` in all) or
something more is wanted of it; decisions of unpatched rows are kept for good; all that is kept is
`constant`.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache

from raysearch.engine.execution.answer_scores import Scoring
from raysearch.engine.execution.memory import RowLimit, halving
from raysearch.engine.execution.predict import (
    Prediction,
    is_unsure,
    near_ties,
    predict,
    with_scores,
)
from raysearch.engine.execution.usage import UsageMeter
from raysearch.engine.networks.components import Components, HookPoint, hook_at
from raysearch.engine.networks.hooks import Hook, HookCall, constant, owned_hooks
from raysearch.engine.networks.network import LanguageModel, ModelInput, Network, batches, tokens_of
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.edits import edits_of, sources_of
from raysearch.engine.patching.rows import Row

Layers = Tensor | Sequence[Tensor]
"""Of each layer a tensor: stacked where they are alike."""


@dataclass(frozen=True, slots=True)
class CachedRun:
    """What one run left behind, unpadded: of each component the layers' activations (token, width)
    in the order of `Taps.of`.

    `keys`, `values`: of each layer (head, token, d_head); None where they are not kept.
    """

    activations: Mapping[str, Layers]
    keys: Layers | None = None
    values: Layers | None = None

    @property
    def nbytes(self) -> int:
        kept = [*self.activations.values(), *(k for k in (self.keys, self.values) if k is not None)]
        return sum(
            t.nbytes
            for layers in kept
            for t in ([layers] if isinstance(layers, Tensor) else layers)
        )


class ActivationCache:
    """The runs of a network, at most `limit.rows` inputs a forward pass, `max_bytes` of them kept.

    `tolerance` (logits): a decision closer than this is taken again, by the canonical computation.
    With `plain`, all are taken there. `keys`: keep keys and values too, for `replay`. `meter`: of
    the replica; who works with captures counts there too. `scoring`: the scores that are read
    beside decisions.
    """

    def __init__(
        self,
        network: Network,
        taps: Components,
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
        self._taps = taps
        self._limit = limit
        self._tolerance = tolerance
        self._max_bytes = max_bytes
        self._plain = plain
        self.keys = keys
        self.meter = UsageMeter() if meter is None else meter
        self.scoring = Scoring() if scoring is None else scoring
        self._bytes = 0
        self._last_bytes = 0
        self._wanted: dict[
            str, None
        ] = {}  # components, in the order in which they were first wanted
        self._runs: OrderedDict[Row, CachedRun] = OrderedDict()  # least recently used first
        self._decisions: dict[Row, Prediction] = {}
        self._owed: set[Row] = set()  # known to be near-ties, and not decided again yet

    @constant()
    def decisions(self, rows: Sequence[Row]) -> list[Prediction]:
        """The decision for each row, which are unpatched; those not seen before are run."""
        assert not any(row.patches for row in rows), "a run without intervention has no patches"
        unseen = [row for row in dict.fromkeys(rows) if row not in self._decisions]
        owed = unseen if self._plain else [row for row in unseen if row in self._owed]
        with self.meter.phase("capture"):
            for row in owed:
                self._decisions[row] = replace(self._decide_plainly(row), again=not self._plain)
        self._run_all([row for row in unseen if row not in self._decisions])
        return [self._decisions[row] for row in rows]

    def settle(self, tolerance: float) -> None:
        """From now on a gap below `tolerance` is a near-tie; of decisions taken before, those that
        are one are forgotten."""
        self._tolerance = tolerance
        self._owed = {row for row, d in self._decisions.items() if is_unsure(d, tolerance)}
        for row in self._owed:
            del self._decisions[row]

    def want(self, components: Iterable[str]) -> None:
        """From now on runs keep these components, at every layer: whoever asks for one layer asks
        for its neighbours next."""
        self._wanted.update(dict.fromkeys(sorted(components)))

    @constant()
    def runs(self, rows: Iterable[Row]) -> dict[Row, CachedRun]:
        """Each run, with all that is wanted; those not in the cache are made (again)."""
        asked = list(dict.fromkeys(rows))
        found: dict[Row, CachedRun] = {}
        for row in asked:
            run = self._runs.get(row)
            if run is not None and all(component in run.activations for component in self._wanted):
                self._runs.move_to_end(row)
                found[row] = run
        found.update(self._run_all([row for row in asked if row not in found]))
        return found

    def at(self, run: CachedRun, point: Point) -> Float[Tensor, "token width"]:
        """The activation of a run at a point that was wanted."""
        activation: Tensor = run.activations[point.component][self._taps.place(point)]
        return activation

    def fitting(self, rows: Sequence[Row], most: int | None = None) -> Iterator[list[Row]]:
        """`rows` in parts of at most `most` (None: `limit.rows`), whose runs (bases and sources)
        fit into `max_bytes`.

        A row that does not fits alone.
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

    def _bytes_of(self, runs: int) -> int:
        """What so many take, by the last that was made: activations grow with the tokens, and
        inputs of one job are of a length."""
        return runs * self._last_bytes

    def _run_all(self, rows: Sequence[Row]) -> dict[Row, CachedRun]:
        made: dict[Row, CachedRun] = {}
        at_once = max(1, min(self._limit.rows, self._max_bytes // max(self._last_bytes, 1)))
        with self.meter.phase("capture"):
            for batch in batches(rows, lambda row: self._network.company(row.base), at_once):
                for part in halving(batch, self._run, self._limit):
                    made.update(part)
        return made

    def _run(self, batch: Sequence[Row]) -> dict[Row, CachedRun]:
        """Runs `batch`, of one company, and keeps what it saw."""
        network, given = self._network, batch[0].base
        pads = [network.pad(row.base) for row in batch]
        lent = self.runs(sources_of(batch))
        edits = edits_of(
            batch, pads, self._taps, lambda source: self.at(lent[source.run], source.point)
        )
        hooks = [hook_at(network, tap, edit, given) for tap, edit in edits]
        seen: dict[str, list[list[Tensor]]] = {}
        for component in self._wanted:
            taps = self._taps.of(component).values()
            seen[component] = [[] for _ in taps]
            hooks += [
                _reader(network, tap, given, parts)
                for tap, parts in zip(taps, seen[component], strict=True)
            ]
        cache = DynamicCache() if self.keys else None
        with owned_hooks(hooks):
            logits = self._logits([row.base for row in batch], cache)
        self.meter.ran(sum(tokens_of(row.base) for row in batch))
        decisions = predict(logits, [row.among for row in batch])
        self._keep_decisions(
            batch, with_scores(decisions, logits, self.scoring, [row.base for row in batch])
        )
        kept = {
            component: _stacked([torch.cat(parts, 1) for parts in of_layers])
            for component, of_layers in seen.items()
        }
        keys, values = _keys_and_values(cache, len(network.blocks))
        runs = {}
        for at, asked in enumerate(batch):
            row = Row(
                asked.base, asked.patches
            )  # what is left behind does not hang on what is chosen among
            runs[row] = CachedRun(
                {component: _row(layers, at, pads[at]) for component, layers in kept.items()},
                None if keys is None else _row(keys, at, pads[at]),
                None if values is None else _row(values, at, pads[at]),
            )
            self._keep(row, runs[row])
        return runs

    def _logits(
        self, givens: Sequence[ModelInput], cache: DynamicCache | None
    ) -> Float[Tensor, "row answer"]:
        if cache is None:
            return self._network.batch(givens)
        assert isinstance(self._network, LanguageModel)
        return self._network.batch(givens, cache)

    def _keep_decisions(self, batch: Sequence[Row], decisions: Sequence[Prediction]) -> None:
        again = set(near_ties(decisions, self._tolerance))
        for at, row in enumerate(batch):
            if not row.patches and row not in self._decisions:
                plainly = at in again
                self._decisions[row] = (
                    replace(self._decide_plainly(row), again=True) if plainly else decisions[at]
                )

    def _decide_plainly(self, row: Row) -> Prediction:
        self.meter.ran(tokens_of(row.base))
        logits = self._network.plain(row.base)[None]
        return with_scores(predict(logits, [row.among]), logits, self.scoring, [row.base])[0]

    def _keep(self, row: Row, run: CachedRun) -> None:
        old = self._runs.pop(row, None)
        self._last_bytes = run.nbytes
        self._bytes += run.nbytes - (old.nbytes if old is not None else 0)
        self._runs[row] = run
        while self._bytes > self._max_bytes:
            _, oldest = self._runs.popitem(last=False)
            self._bytes -= oldest.nbytes


def _reader(network: Network, tap: HookPoint, given: ModelInput, into: list[Tensor]) -> Hook:
    def read(activation: Float[Tensor, "row token width"], _moment: HookCall) -> None:
        into.append(tap.read(activation).clone())  # some models go on to add to it in place

    return hook_at(network, tap, read, given)


def _stacked(layers: Sequence[Tensor]) -> Layers:
    """As one tensor, where that can be."""
    alike = len({(t.shape, t.device, t.dtype) for t in layers}) == 1
    return torch.stack(list(layers)) if alike else layers


def _row(layers: Layers, at: int, pad: int) -> Layers:
    """Row `at` without its padding, copied, so that the batch's own memory is let go."""
    if isinstance(layers, Tensor):
        return layers[:, at, ..., pad:, :].clone()
    return tuple(t[at, ..., pad:, :].clone() for t in layers)


def _keys_and_values(
    cache: DynamicCache | None, blocks: int
) -> tuple[Layers | None, Layers | None]:
    """Of each layer (row, head, token, d_head). None where a layer keeps none: there is nothing to
    replay on."""
    if cache is None:
        return None, None
    kept = [
        (getattr(layer, "keys", None), getattr(layer, "values", None)) for layer in cache.layers
    ]
    keys = [k for k, _ in kept if k is not None]
    values = [v for _, v in kept if v is not None]
    if len(keys) < blocks or len(values) < blocks:
        return None, None
    return _stacked(keys), _stacked(values)
