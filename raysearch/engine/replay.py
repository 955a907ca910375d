"""Suffix replay: an intervened run that begins at its first patched layer and token, on what the base's run has left.

In a causal model the layers below a patch and the tokens before it are as in the base's run without intervention. So a row starts
with the base's residual after its first patched layer, from its first patched token on, patched; its attention reads the base's keys
and values for the tokens before. Rows travel together as a *wave* that walks up the layers once, each joining at its own.

Nothing here knows a family of models: the model's own blocks are called with the arguments that its own forward pass gives them,
seen on a *template* (one dummy row of the same start and length, stubs in the place of its blocks). The head is the model's own
forward pass with such stubs, at the answer's token alone. Whether all this is right for a model is for `paths` to find out.

Invariants: the model has its own blocks again however a call is left; the blocks, and the hooks of others on them, are not touched
and see no dummies.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel

from raysearch.engine.captures import Run
from raysearch.engine.forward import plain_logits, takes
from raysearch.engine.interchange import Row
from raysearch.engine.sites import layers_of, residual_in
from raysearch.search.events import Ids

TEMPLATES = 64
"""So many are kept, those used last. One costs a forward pass without blocks, and holds a mask of suffix x length."""

Stub = Callable[[int, Tensor, tuple[Any, ...], dict[str, Any]], Tensor]
"""Stands for a block: of its layer, its residual and its other arguments makes a residual."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a wave: the first patched token, the number of tokens. Rows of one wave have one shape."""

    start: int
    length: int


def shape_of(row: Row) -> Shape:
    """The shape of the wave that `row` travels in. It has patches."""
    return Shape(min(t for p in row.patches for t in p.base_tokens), len(row.base))


def can_replay(model: PreTrainedModel) -> bool:
    """Whether the model takes a cache and says which logits to compute: without these there is nothing to replay on."""
    return all(takes(model, name) for name in ("past_key_values", "use_cache", "logits_to_keep", "position_ids"))


class Replay:
    """Waves on one model."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._layers = layers_of(model)
        self._templates: OrderedDict[Shape, _Template] = OrderedDict()  # least recently used first

    @torch.inference_mode()
    def logits(self, rows: Sequence[Row], runs: Mapping[Ids, Run]) -> Float[Tensor, "row vocab"]:
        """The logits (float32) at the answer of every row, in the order of `rows`, which are of one shape.

        `runs` has the run of each row's base and source, with keys and values.
        """
        shape = shape_of(rows[0])
        assert all(shape_of(row) == shape for row in rows), "rows of one wave begin at one token and have one length"
        order = sorted(range(len(rows)), key=lambda i: rows[i].patches[0].layer)
        hidden = self._walk([rows[i] for i in order], shape, runs)
        logits = self._head(hidden[:, -1:], shape)
        back = sorted(range(len(rows)), key=order.__getitem__)
        return logits[torch.tensor(back, device=logits.device)]

    def _walk(self, rows: list[Row], shape: Shape, runs: Mapping[Ids, Run]) -> Float[Tensor, "row suffix d_model"]:
        """The residual after the last layer. `rows` are in the order of their first layers."""
        template = self._template(shape, runs[rows[0].base])
        prefix = _Prefix(rows, shape.start, runs)
        firsts = [row.patches[0].layer for row in rows]
        hidden = runs[rows[0].base].residuals.new_empty(0)  # of no row yet
        for layer in range(firsts[0], len(self._layers)):
            if prefix.rows:
                hidden = template.call(self._layers[layer], layer, hidden, prefix)
            joining = rows[prefix.rows : prefix.rows + firsts.count(layer)]
            if joining:
                new = torch.stack([runs[row.base].residuals[layer, shape.start :] for row in joining])
                hidden = torch.cat((hidden, new)) if prefix.rows else new
                prefix.rows += len(joining)
            hidden = _patched(hidden, layer, rows[: prefix.rows], shape.start, runs)
        return hidden

    def _template(self, shape: Shape, run: Run) -> "_Template":
        found = self._templates.pop(shape, None)
        if found is None:
            found = _Template(self._model, shape, run, self._tuples)
        self._templates[shape] = found
        if len(self._templates) > TEMPLATES:
            self._templates.popitem(last=False)
        return found

    def _head(self, hidden: Float[Tensor, "row 1 d_model"], shape: Shape) -> Float[Tensor, "row vocab"]:
        """The logits, by the model's own forward pass: its last block hands on `hidden`, the others what they get."""
        rows, last = hidden.shape[0], len(self._layers) - 1
        ids = torch.zeros((rows, 1), dtype=torch.long, device=self._model.device)
        at = torch.full((rows, 1), shape.length - 1, device=self._model.device)
        with _stubbed(self._layers, lambda layer, given, *_: hidden if layer == last else given, self._tuples):
            logits: Tensor = self._model(input_ids=ids, position_ids=at, use_cache=False, logits_to_keep=1).logits
        return logits[:, -1].float()

    @cached_property
    def _tuples(self) -> bool:
        """Whether the blocks return tuples that begin with their residual, as some do in transformers < 5."""
        seen: list[bool] = []
        handle = self._layers[0].register_forward_hook(lambda _m, _i, out: seen.append(isinstance(out, tuple)))
        try:
            plain_logits(self._model, (0,))
        finally:
            handle.remove()
        return seen[0]


class _Template:
    """The arguments that the model gives each of its blocks for tokens start..length-1, the cache holding those before.

    `run`: any run of at least `start` tokens; only the shape of its keys and values matters.
    """

    def __init__(self, model: PreTrainedModel, shape: Shape, run: Run, tuples: bool) -> None:
        layers, device = layers_of(model), model.device
        self._arguments: list[tuple[tuple[Any, ...], dict[str, Any]]] = [((), {})] * len(layers)
        self._cache = _cache_of(run, shape.start)

        def stub(layer: int, given: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
            self._arguments[layer] = args, kwargs
            return given

        with _stubbed(layers, stub, tuples):
            model(
                input_ids=torch.zeros((1, shape.length - shape.start), dtype=torch.long, device=device),
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
        return residual_in(out)


class _Prefix(Cache):
    """Serves the keys and values of the rows' bases, of the tokens before the suffix; keeps nothing. `rows`: how many have joined."""

    def __init__(self, rows: Sequence[Row], start: int, runs: Mapping[Ids, Run]) -> None:
        bases = list(dict.fromkeys(row.base for row in rows))
        place = {base: i for i, base in enumerate(bases)}
        kept = [(runs[b].keys, runs[b].values) for b in bases]
        self._start = start
        self._keys = torch.stack([k[:, :, :start] for k, _ in kept if k is not None], dim=1)
        self._values = torch.stack([v[:, :, :start] for _, v in kept if v is not None], dim=1)
        self._base = torch.tensor([place[row.base] for row in rows], device=self._keys.device)
        self.rows = 0

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        base = self._base[: self.rows]
        keys = torch.cat((self._keys[layer_idx][base], key_states), dim=-2)
        values = torch.cat((self._values[layer_idx][base], value_states), dim=-2)
        return keys, values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._start


def _patched(hidden: Tensor, layer: int, rows: Sequence[Row], start: int, runs: Mapping[Ids, Run]) -> Tensor:
    """Puts into the rows that are patched in this layer what their sources have there."""
    at_row: list[int] = []
    at_token: list[int] = []
    new: list[Tensor] = []
    for i, row in enumerate(rows):
        for patch in row.patches:
            if patch.layer == layer:
                at_row += [i] * len(patch.base_tokens)
                at_token += [t - start for t in patch.base_tokens]
                new.append(runs[row.source].residuals[layer, list(patch.source_tokens)])
    if not new:
        return hidden
    where = torch.tensor(at_row, device=hidden.device), torch.tensor(at_token, device=hidden.device)
    return hidden.index_put(where, torch.cat(new))


def _cache_of(run: Run, tokens: int) -> DynamicCache:
    """A cache that holds the first `tokens` tokens of `run`."""
    assert run.keys is not None, "a run without keys and values cannot be replayed on"
    assert run.values is not None
    cache = DynamicCache()
    if tokens:
        for layer, (keys, values) in enumerate(zip(run.keys, run.values, strict=True)):
            cache.update(keys[None, :, :tokens], values[None, :, :tokens], layer)
    return cache


class _Stub(nn.Module):
    """Stands in the place of a block, with the block's own attributes (models ask a block for its type of attention)."""

    def __init__(self, layer: int, block: nn.Module, stub: Stub, tuples: bool) -> None:
        super().__init__()
        # Not as a child: the block must not be moved or listed twice.
        self.__dict__["_stubbed"] = (layer, block, stub, tuples)

    def forward(self, given: Any, *args: Any, **kwargs: Any) -> Any:
        layer, _, stub, tuples = self.__dict__["_stubbed"]
        hidden = stub(layer, residual_in(given), args, kwargs)
        return (hidden,) if tuples else hidden

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_stubbed"][1], name)


@contextmanager
def _stubbed(layers: nn.ModuleList, stub: Stub, tuples: bool) -> Iterator[None]:
    """Within, `stub` stands for each of the model's blocks, returning its residual as they do (in a tuple or bare)."""
    blocks = list(layers)
    try:
        for layer, block in enumerate(blocks):
            layers[layer] = _Stub(layer, block, stub, tuples)
        yield
    finally:
        for layer, block in enumerate(blocks):
            layers[layer] = block
