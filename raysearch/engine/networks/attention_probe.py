"""Attention probed: what comes out of each layer's heads when queries, keys and values of our own
are written.

All layers at once, in one forward pass on copies of one input: each layer's mix of values is put
back to that of the first row as soon as it was looked at, so that no layer sees what was written in
another.

Invariants: what is written does not depend on the model's weights, nor what is seen on those after
the heads.
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
"""Relative to what is written, what counts as equal, by the dtype of an activation: well above its
roundings, well below a turn."""

Heads = Float[Tensor, "row token head d_head"]
Layers = Mapping[int, HookPoint]
Shape = tuple[int, int, int, int]
"""(row, token, head, d_head)"""
Write = Callable[[int, str, Shape], Heads]
"""Of a layer and a part (query, key, value), what is written there, in float32."""


@dataclass(slots=True)
class ProbedLayer:
    """Of one layer, in float32: what came out of its heads, and what was written, as rounded by the
    dtype of the activation."""

    mix: Heads = field(default_factory=lambda: torch.empty(0))
    written: dict[str, Heads] = field(default_factory=dict)
    rounding: float = 0.0


def probe(
    network: Network,
    tokens: int,
    rows: int,
    heads: Layers,
    parts: Mapping[str, Layers],
    write: Write,
) -> dict[int, ProbedLayer]:
    """What is seen in each layer of `heads`. `tokens`: of the input, in a language model; another
    network has as many as it has.

    Raises: ModelError where an attention sees other than `rows` rows.
    """
    seen = {layer: ProbedLayer() for layer in heads}
    edits = [
        (tap, _writer(seen[at], at, part, tap, rows, write))
        for part, of in parts.items()
        for at, tap in of.items()
    ]
    edits += [(tap, _reader(seen[at], tap)) for at, tap in heads.items()]
    with owned_hooks([tap.hook(edit, times=None, flat=network.flat) for tap, edit in edits]):
        if isinstance(network, LanguageModel):
            network.copies(network.some(tokens), rows)
        else:
            network.batch([network.example()] * rows)
    return seen


def _writer(
    seen: ProbedLayer, layer: int, part: str, tap: HookPoint, rows: int, write: Write
) -> Edit:
    def edit(activation: Tensor, _moment: HookCall) -> Tensor:
        count, tokens, _ = activation.shape
        if count != rows:
            raise ModelError(
                f"the {part} of layer {layer} is seen in {count} rows where there are {rows}"
            )
        ours = write(layer, part, (rows, tokens, tap.heads, tap.width // tap.heads)).to(activation)
        seen.written[part] = ours.float().cpu()
        edited = activation.clone()
        if tap.columns is None:
            edited.copy_(ours.flatten(2))
        else:
            edited[..., tap.columns.to(edited.device)] = ours.flatten(2)
        return edited

    return edit


def _reader(seen: ProbedLayer, tap: HookPoint) -> Edit:
    def edit(activation: Tensor, _moment: HookCall) -> Tensor:
        if not seen.mix.numel():  # of several runs of the module the first
            mix = tap.read(activation).float().cpu()
            seen.mix = mix.reshape(*mix.shape[:2], tap.heads, -1)
            seen.rounding = ROUNDING.get(activation.dtype, max(ROUNDING.values()))
        return activation[:1].expand_as(activation).clone()

    return edit
