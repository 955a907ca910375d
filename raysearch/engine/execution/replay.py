"""Suffix replay: a patched run that starts at its first patched layer and token, on the cached run
of its base.

In a causal model the layers below a patch and the tokens before it equal the base's run without
intervention. So a row starts with the base's residual at its first patch (before a block, or after
it if the block's output is patched), from its first patched token on; its attention reads the
base's keys and values for earlier tokens. Rows run together as a *wave* that passes through the
layers once; each row enters at its own layer.

No model family is named here: the model's own blocks are called with the arguments that its forward
pass gives them, recorded on a *template* (one dummy row of the same start and length, with stubs in
place of the blocks). The head is the model's own forward pass with such stubs, at the answer's
token only. Whether the result is right for a model is for `selfcheck` to find out.

Invariants: the model has its own blocks again however a call ends; the blocks, and hooks of others
on them, are not touched and never receive dummy inputs.
"""

from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from raysearch.engine.execution.block_arguments import Template
from raysearch.engine.execution.cached_runs import StoredBatch, gather, on_device
from raysearch.engine.execution.shared_prefix_attention import SharedLayers
from raysearch.engine.execution.wave import EntryPoint, Wave, WaveShape
from raysearch.engine.execution.wave_cache import WaveCache
from raysearch.engine.networks.answer_head import AnswerHead
from raysearch.engine.networks.block_stubs import Stub, stub_blocks
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.gradient_mode import without_gradients
from raysearch.engine.networks.hooks import HookCall, owned_hooks
from raysearch.engine.networks.network import LanguageModel

TEMPLATES = 64
"""Number of templates that are cached, least recently used first out. Each costs a forward pass
without blocks and holds a mask of suffix x length."""


class Replay:
    """Runs waves on one model."""

    def __init__(
        self,
        network: LanguageModel,
        hook_points: Components,
        shares_prefix: bool = True,
    ) -> None:
        self._network = network
        self._layers = network.layers
        self._hook_points = hook_points
        self._answers = AnswerHead(network)
        self._shared = SharedLayers.of(network) if shares_prefix else SharedLayers()
        self._templates: dict[WaveShape, Template] = {}  # least recently used first

    def run(
        self, wave: Wave, choices: Int[Tensor, "row choice"] | None = None, keep: bool = False
    ) -> tuple[Float[Tensor, "row vocab"], WaveCache]:
        """Computes the logits (float32) at the answer of every row; returns the keys and values of
        the rows, too, which `go_on` needs to be kept. `choices`: ids outside of which logits may be
        -inf."""
        template = self._template(wave.shape, wave.bases.batches[0])
        rows = WaveCache(wave, template.shared, keep)
        hidden, last = self._walk(wave, template, rows), len(self._layers) - 1
        if keep:
            rows.complete(len(self._layers))

        def block(layer: int, given: Tensor, *_: Any) -> Tensor:
            return hidden[:, -1:] if layer == last else given

        ids = torch.zeros((len(hidden), 1), dtype=torch.long)
        return self._logits(ids, wave.shape.length - 1, block, choices), rows

    def go_on(
        self,
        rows: WaveCache,
        ids: Int[Tensor, "row"],
        choices: Int[Tensor, "row choice"] | None = None,
    ) -> Float[Tensor, "row vocab"]:
        """Computes the logits (float32) after one more token of each row, `ids`."""
        blocks, length = list(self._layers), rows.length
        assert rows.keeps, "rows that go on keep their keys and values"
        template = self._template(WaveShape(length, length + 1), rows.batch)
        rows.shared = template.shared & rows.shared

        def block(layer: int, given: Tensor, *_: Any) -> Tensor:
            with rows.attending(layer, self._shared.configs):
                return template.call(blocks[layer], layer, given, rows)

        logits = self._logits(ids[:, None], length, block, choices)
        rows.length = length + 1
        return logits

    def _walk(
        self, wave: Wave, template: Template, cache: WaveCache
    ) -> Float[Tensor, "row suffix d_model"]:
        """Computes the residual after the last layer."""
        entering = self._entering(wave)
        hidden: Tensor | None = None
        for layer in range(wave.first_layer, len(self._layers)):
            before, after = EntryPoint(layer, after=False), EntryPoint(layer, after=True)
            hidden = _joined(hidden, entering.get(before))
            if hidden is not None:
                cache.rows = len(hidden)
                hooks = [
                    hook_point.hook(edit, first=wave.shape.start)
                    for hook_point, edit in wave.edits.get(before, ())
                ]
                with owned_hooks(hooks), cache.attending(layer, self._shared.configs):
                    hidden = template.call(self._layers[layer], layer, hidden, cache)
            hidden = _joined(hidden, entering.get(after))
            for _, edit in wave.edits.get(after, ()):
                assert hidden is not None, "rows enter before they are edited"
                edited = edit(hidden, HookCall(wave.shape.start, True))
                hidden = hidden if edited is None else edited
        assert hidden is not None, "a wave has rows"
        return hidden

    def _entering(self, wave: Wave) -> dict[EntryPoint, Float[Tensor, "_row suffix d_model"]]:
        """Returns the residual with which rows enter, by entry point."""
        entering: dict[EntryPoint, Tensor] = {}
        for component in {entry.point.component for entry in wave.entries}:
            here = [entry for entry in wave.entries if entry.point.component == component]
            rows = np.concatenate([wave.entries[entry] for entry in here])
            counts = [len(wave.entries[entry]) for entry in here]
            layers = np.repeat([self._hook_points.place(entry.point) for entry in here], counts)
            suffix = slice(wave.shape.start, None)
            found = gather(wave.bases, wave.base[rows], component, layers, suffix)
            entering |= dict(zip(here, torch.split(found, counts), strict=True))
        return entering

    def _template(self, shape: WaveShape, batch: StoredBatch) -> Template:
        found = self._templates.pop(shape, None)
        if found is None:
            with without_gradients():
                found = Template(self._network, shape, batch, self._shared.at(shape.length))
        self._templates[shape] = found
        if len(self._templates) > TEMPLATES:
            del self._templates[next(iter(self._templates))]
        return found

    def _logits(
        self,
        ids: Int[Tensor, "row 1"],
        position: int,
        block: Stub,
        choices: Int[Tensor, "row choice"] | None,
    ) -> Float[Tensor, "row vocab"]:
        """Computes the logits by the model's own forward pass on one token of each row, with
        `block` in the place of its blocks; -inf outside of the choices of each row, if all have
        some and the head can be computed for them alone."""
        device = self._network.device
        if choices is not None:
            choices = on_device(choices, device) if self._answers.serves(choices.shape[1]) else None
        head = nullcontext() if choices is None else self._answers.at(choices)
        with head, stub_blocks(self._layers, block, self._network.tuples):
            logits = self._network.run(
                input_ids=on_device(ids, device),
                position_ids=torch.full(ids.shape, position, device=device),
                past_key_values=DynamicCache(),  # without one, position ids are read on the host
                use_cache=False,
                logits_to_keep=1,
            )[:, -1].float()
        if choices is None:
            return logits
        whole = logits.new_full((len(logits), self._answers.size), -torch.inf)
        return whole.scatter(1, choices, logits)


def _joined(
    hidden: Float[Tensor, "waiting suffix d_model"] | None,
    entering: Float[Tensor, "entering suffix d_model"] | None,
) -> Float[Tensor, "row suffix d_model"] | None:
    """Appends the rows that enter to those under way."""
    if entering is None or hidden is None:
        return hidden if entering is None else entering
    return torch.cat((hidden, entering.to(hidden.device)))
