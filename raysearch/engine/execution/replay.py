"""Suffix replay: an intervened run that begins at its first patched layer and token, on what the
base's run has left.

In a causal model the layers below a patch and the tokens before it are as in the base's run without
intervention. So a row starts with the base's residual where its first patch lies (before a block,
or after it where the patch is on its output), from its first patched token on; its attention reads
the base's keys and values for the tokens before. Rows travel together as a *wave* that walks up the
layers once, each joining at its own.

Nothing here knows a family of models: the model's own blocks are called with the arguments that its
own forward pass gives them, seen on a *template* (one dummy row of the same start and length, stubs
in the place of its blocks). The head is the model's own forward pass with such stubs, at the
answer's token alone. Whether all this is right for a model is for `paths` to find out.

Invariants: the model has its own blocks again however a call is left; the blocks, and the hooks of
others on them, are not touched and see no dummies.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import Cache, DynamicCache

from raysearch.engine.execution.activation_cache import ActivationCache, CachedRun, Layers
from raysearch.engine.networks.block_stubs import stubbed
from raysearch.engine.networks.components import Components, HookPoint
from raysearch.engine.networks.detached import constant
from raysearch.engine.networks.hooks import (
    Edit,
    HookCall,
    output_activation,
    owned_hooks,
    seen,
)
from raysearch.engine.networks.network import LanguageModel
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.edits import Replacements, edits_of
from raysearch.engine.patching.rows import Patch, Row
from raysearch.errors import PositionError

TEMPLATES = 64
"""So many are kept, those used last. One costs a forward pass without blocks, and holds a mask of
suffix x length."""


@dataclass(frozen=True, slots=True)
class WaveShape:
    """Of a wave: the first patched token, the number of tokens. Rows of one wave have one shape."""

    start: int
    length: int


@dataclass(frozen=True, slots=True, order=True)
class EntryPoint:
    """Where a row joins its wave: before block `layer`, or after it."""

    layer: int
    after: bool

    @property
    def point(self) -> Point:
        """The activation of the base's run with which it does."""
        return Point(self.layer, "residual" if self.after else "block_input")


class Replay:
    """Waves on one model."""

    def __init__(self, network: LanguageModel, taps: Components, captures: ActivationCache) -> None:
        self._network = network
        self._model = network.model
        self._layers = network.layers
        self._taps = taps
        self._captures = captures
        self._templates: OrderedDict[WaveShape, _Template] = (
            OrderedDict()
        )  # least recently used first

    def shape_of(self, row: Row) -> WaveShape | None:
        """The shape of the wave that `row` travels in. None: it is patched outside of the blocks,
        or nowhere."""
        if not row.patches or any(self._taps.at(p.point).layer is None for p in row.patches):
            return None
        assert isinstance(row.base, tuple), "a language model is given token ids"
        tokens = [t for p in row.patches for t in p.tokens]
        if max(tokens) >= len(row.base):
            raise PositionError(
                f"the base has {len(row.base)} tokens, and no token {max(tokens)} (from 0); name "
                f"one it has"
            )
        return WaveShape(min(tokens), len(row.base))

    def joint_of(self, row: Row) -> EntryPoint:
        """Where `row` joins. It has a shape."""
        return min(self._joint(patch) for patch in row.patches)

    def logits(
        self, rows: Sequence[Row], runs: Mapping[Row, CachedRun], lent: Replacements | None = None
    ) -> Float[Tensor, "row vocab"]:
        """The logits (float32) at the answer of every row, in the order of `rows`, which are of one
        shape.

        `runs` has the run of each row's base, with keys and values, and, without `lent` (see
        `Path.logits`), of each of its sources.
        """
        shape = self.shape_of(rows[0])
        assert shape is not None, "rows of a wave are patched in the blocks"
        assert all(self.shape_of(row) == shape for row in rows), (
            "rows of one wave begin at one token and have one length"
        )
        order = sorted(range(len(rows)), key=lambda i: self.joint_of(rows[i]))
        own = None if lent is None else [lent[i] for i in order]
        hidden = self._walk([rows[i] for i in order], shape, runs, own)
        logits = self._head(hidden[:, -1:], shape)
        back = sorted(range(len(rows)), key=order.__getitem__)
        return logits[torch.tensor(back, device=logits.device)]

    def _walk(
        self,
        rows: list[Row],
        shape: WaveShape,
        runs: Mapping[Row, CachedRun],
        lent: Replacements | None,
    ) -> Float[Tensor, "row suffix d_model"]:
        """The residual after the last layer. `rows` are in the order in which they join."""
        template = self._template(shape, runs[Row(rows[0].base)])
        prefix = _Prefix([Row(row.base) for row in rows], shape.start, runs)
        joining = {joint: list(group) for joint, group in groupby(rows, self.joint_of)}
        edits = self._edits(rows, runs, lent)
        hidden: Tensor | None = None
        for layer in range(min(joining).layer, len(self._layers)):
            before, after = EntryPoint(layer, after=False), EntryPoint(layer, after=True)
            hidden = self._join(hidden, joining.get(before, ()), before.point, shape.start, runs)
            if hidden is not None:
                prefix.rows = len(hidden)
                hooks = [tap.hook(edit, first=shape.start) for tap, edit in edits.get(before, ())]
                with owned_hooks(hooks):
                    hidden = template.call(self._layers[layer], layer, hidden, prefix)
            hidden = self._join(hidden, joining.get(after, ()), after.point, shape.start, runs)
            if hidden is not None:
                hidden = _edited(hidden, [edit for _, edit in edits.get(after, ())], shape.start)
        assert hidden is not None, "a wave has rows"
        return hidden

    def _join(
        self,
        hidden: Tensor | None,
        rows: Sequence[Row],
        point: Point,
        start: int,
        runs: Mapping[Row, CachedRun],
    ) -> Tensor | None:
        """The residual of those on their way, and below them of those that join."""
        if not rows:
            return hidden
        new = torch.stack([self._captures.at(runs[Row(row.base)], point)[start:] for row in rows])
        return new if hidden is None else torch.cat((hidden, new.to(hidden.device)))

    def _edits(
        self, rows: Sequence[Row], runs: Mapping[Row, CachedRun], lent: Replacements | None
    ) -> dict[EntryPoint, list[tuple[HookPoint, Edit]]]:
        """What is patched at each joint: while its block runs, or after it."""
        joints = sorted({self._joint(patch) for row in rows for patch in row.patches})
        edits = {}
        for joint in joints:
            own = [
                Row(row.base, tuple(p for p in row.patches if self._joint(p) == joint))
                for row in rows
            ]
            edits[joint] = edits_of(
                own,
                [0] * len(own),
                self._taps,
                lambda s: self._captures.at(runs[s.run], s.point),
                lent,
            )
        return edits

    def _joint(self, patch: Patch) -> EntryPoint:
        """Before the block in which the patch lies; after it, for its output as such."""
        tap = self._taps.at(patch.point)
        assert tap.layer is not None, "a patch outside of the blocks is not replayed"
        return EntryPoint(tap.layer, tap.is_block and tap.side == "output")

    def _template(self, shape: WaveShape, run: CachedRun) -> "_Template":
        found = self._templates.pop(shape, None)
        if found is None:
            with constant():
                found = _Template(self._network, shape, run, self._network.tuples)
        self._templates[shape] = found
        if len(self._templates) > TEMPLATES:
            self._templates.popitem(last=False)
        return found

    def _head(
        self, hidden: Float[Tensor, "row 1 d_model"], shape: WaveShape
    ) -> Float[Tensor, "row vocab"]:
        """The logits, by the model's own forward pass: its last block hands on `hidden`, the others
        what they get."""
        rows, last = hidden.shape[0], len(self._layers) - 1
        ids = torch.zeros((rows, 1), dtype=torch.long, device=self._model.device)
        at = torch.full((rows, 1), shape.length - 1, device=self._model.device)
        with stubbed(
            self._layers,
            lambda layer, given, *_: hidden if layer == last else given,
            self._network.tuples,
        ):
            logits = self._network.run(
                input_ids=ids, position_ids=at, use_cache=False, logits_to_keep=1
            )
        return logits[:, -1].float()


class _Template:
    """The arguments that the model gives each of its blocks for tokens start..length-1, the cache
    holding those before.

    `run`: any run of at least `start` tokens; only the shape of its keys and values matters.
    """

    def __init__(
        self, network: LanguageModel, shape: WaveShape, run: CachedRun, tuples: bool
    ) -> None:
        layers, device = network.layers, network.device
        self._arguments: list[tuple[tuple[Any, ...], dict[str, Any]]] = [((), {})] * len(layers)
        self._cache = _cache_of(run, shape.start)

        def stub(
            layer: int, given: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> Tensor:
            self._arguments[layer] = args, kwargs
            return given

        with stubbed(layers, stub, tuples):
            network.run(
                input_ids=torch.zeros(
                    (1, shape.length - shape.start), dtype=torch.long, device=device
                ),
                attention_mask=torch.ones((1, shape.length), dtype=torch.long, device=device),
                position_ids=torch.arange(shape.start, shape.length, device=device)[None],
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        self._cache.layers.clear()  # from now on it is only known by its identity

    def call(self, block: nn.Module, layer: int, hidden: Tensor, prefix: "_Prefix") -> Tensor:
        """What `block` makes of `hidden`, reading the prefix."""
        args, kwargs = self._arguments[layer]
        out = block(
            hidden,
            *(prefix if a is self._cache else a for a in args),
            **{k: prefix if a is self._cache else a for k, a in kwargs.items()},
        )
        return seen(output_activation(out))


class _Prefix(Cache):
    """Serves the keys and values of the rows' bases, of the tokens before the suffix; keeps
    nothing. `rows`: how many have joined."""

    def __init__(self, bases: Sequence[Row], start: int, runs: Mapping[Row, CachedRun]) -> None:
        distinct = list(dict.fromkeys(bases))
        place = {base: i for i, base in enumerate(distinct)}
        self._start = start
        self._keys = _before(start, [runs[b].keys for b in distinct])
        self._values = _before(start, [runs[b].values for b in distinct])
        self._base = torch.tensor([place[base] for base in bases], device=self._keys[0].device)
        self.rows = 0

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        base = self._base[: self.rows].to(key_states.device)
        keys = torch.cat((self._keys[layer_idx][base], key_states), dim=-2)
        values = torch.cat((self._values[layer_idx][base], value_states), dim=-2)
        return keys, values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._start


def _edited(hidden: Tensor, edits: Sequence[Edit], start: int) -> Tensor:
    for edit in edits:
        new = edit(hidden, HookCall(start, True))
        hidden = hidden if new is None else new
    return hidden


def _before(start: int, of_bases: Sequence[Layers | None]) -> Layers:
    """Of each layer, the bases' keys or values (base, head, token, d_head) of the tokens before
    `start`."""
    kept = [layers for layers in of_bases if layers is not None]
    assert len(kept) == len(of_bases), "a run without keys and values cannot be replayed on"
    if all(isinstance(layers, Tensor) for layers in kept):
        return torch.stack(
            [layers[:, :, :start] for layers in kept if isinstance(layers, Tensor)], dim=1
        )
    return [torch.stack([t[:, :start] for t in of_layer]) for of_layer in zip(*kept, strict=True)]


def _cache_of(run: CachedRun, tokens: int) -> DynamicCache:
    """A cache that holds the first `tokens` tokens of `run`."""
    assert run.keys is not None, "a run without keys and values cannot be replayed on"
    assert run.values is not None
    cache = DynamicCache()
    if tokens:
        for layer, (keys, values) in enumerate(zip(run.keys, run.values, strict=True)):
            cache.update(keys[None, :, :tokens], values[None, :, :tokens], layer)
    return cache
