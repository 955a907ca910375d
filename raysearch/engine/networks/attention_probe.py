"""Attention probes: written queries, keys and values, and the resulting outputs of each layer's
heads.

One forward pass on copies of one input probes all layers: after reading a layer's mix of values the
hook resets it to that of the first row, so that no layer is affected by what was written in
another.

Invariants: written values do not depend on the model's weights, and read values do not depend on
weights after the heads.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from raysearch.engine.networks.hook_point import HookPoint
from raysearch.engine.networks.hooks import Edit, HookCall, owned_hooks
from raysearch.engine.networks.network import LanguageModel, Network
from raysearch.errors import ModelError

ROUNDING = {torch.float32: 1e-3, torch.float64: 1e-3, torch.float16: 2e-2, torch.bfloat16: 5e-2}
"""Largest relative difference that counts as equal, by the dtype of an activation: well above
rounding, well below a sign flip."""

HeadStates = Float[Tensor, "row token head d_head"]
LayerHooks = Mapping[int, HookPoint]
ProbeShape = tuple[int, int, int, int]
"""(row, token, head, d_head)"""
Write = Callable[[int, str, ProbeShape], HeadStates]
"""Returns the values to write (float32) for a layer, a part (query, key, value) and a shape."""


@dataclass(slots=True)
class ProbedLayer:
    """Results for one layer, in float32: outputs of its heads (`mix`), and the written values,
    rounded to the dtype of the activation."""

    mix: HeadStates = field(default_factory=lambda: torch.empty(0, 0, 0, 0))
    written: dict[str, HeadStates] = field(default_factory=dict)
    rounding: float = 0.0


def probe(
    network: Network,
    tokens: int,
    rows: int,
    heads: LayerHooks,
    parts: Mapping[str, LayerHooks],
    write: Write,
) -> dict[int, ProbedLayer]:
    """Runs the probe and returns the result for each layer of `heads`. `tokens`: length of the
    input of a language model; other networks use their example.

    Raises: ModelError if an attention sees a number of rows other than `rows`.
    """
    seen = {layer: ProbedLayer() for layer in heads}
    edits = [
        (hook_point, _writer(seen[at], at, part, hook_point, rows, write))
        for part, of in parts.items()
        for at, hook_point in of.items()
    ]
    edits += [(hook_point, _reader(seen[at], hook_point)) for at, hook_point in heads.items()]
    with owned_hooks(
        [hook_point.hook(edit, times=None, flat=network.flat) for hook_point, edit in edits]
    ):
        if isinstance(network, LanguageModel):
            network.copies(network.some(tokens), rows)
        else:
            network.batch([network.example()] * rows)
    return seen


def _writer(
    seen: ProbedLayer, layer: int, part: str, hook_point: HookPoint, rows: int, write: Write
) -> Edit:
    def edit(
        activation: Float[Tensor, "row token width"], _hook_call: HookCall
    ) -> Float[Tensor, "row token width"]:
        count, tokens, _ = activation.shape
        if count != rows:
            raise ModelError(
                f"the {part} of layer {layer} is seen in {count} rows where there are {rows}"
            )
        ours = write(
            layer, part, (rows, tokens, hook_point.heads, hook_point.width // hook_point.heads)
        ).to(activation)
        seen.written[part] = ours.float().cpu()
        edited = activation.clone()
        if hook_point.columns is None:
            edited.copy_(ours.flatten(2))
        else:
            edited[..., hook_point.columns.to(edited.device)] = ours.flatten(2)
        return edited

    return edit


def _reader(seen: ProbedLayer, hook_point: HookPoint) -> Edit:
    def edit(
        activation: Float[Tensor, "row token width"], _hook_call: HookCall
    ) -> Float[Tensor, "row token width"]:
        if not seen.mix.numel():  # the first of several runs of the module
            mix = hook_point.read(activation).float().cpu()
            seen.mix = mix.reshape(*mix.shape[:2], hook_point.heads, -1)
            seen.rounding = ROUNDING.get(activation.dtype, max(ROUNDING.values()))
        return activation[:1].expand_as(activation).clone()

    return edit
