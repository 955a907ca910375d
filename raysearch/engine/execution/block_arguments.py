"""The arguments that a model's forward pass gives each of its blocks, for rows of one shape."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import Cache, DynamicCache

from raysearch.engine.execution.cached_runs import StoredBatch
from raysearch.engine.execution.shared_prefix_attention import is_causal
from raysearch.engine.execution.wave import WaveShape
from raysearch.engine.networks.block_stubs import stub_blocks
from raysearch.engine.networks.hooks import as_rows_and_tokens, output_activation
from raysearch.engine.networks.network import LanguageModel

SMALL = 8
"""A prefix of fewer tokens than one in this many of the suffix is copied for each row: that is less
than the second kernel of a shared one costs."""


class Template:
    """The arguments that the model gives each block for tokens start..length-1, with earlier tokens
    in the cache.

    `batch`: any runs with keys and values; only the shape of these matters.
    `shareable`: layers that can share a prefix; `shared` are those that do, for rows of this shape.
    """

    def __init__(
        self,
        network: LanguageModel,
        shape: WaveShape,
        batch: StoredBatch,
        shareable: frozenset[int],
    ) -> None:
        layers, device = network.layers, network.device
        self._arguments: list[tuple[tuple[Any, ...], dict[str, Any]]] = [((), {})] * len(layers)
        self._cache = _cache_of(batch, shape.start)

        def stub(
            layer: int, given: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> Tensor:
            self._arguments[layer] = args, kwargs
            return given

        with stub_blocks(layers, stub, network.tuples):
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
        self._cache.layers.clear()  # from now on only its identity is used
        self.shared = frozenset(
            layer
            for layer in shareable
            if SMALL * shape.start > shape.length - shape.start
            and is_causal(
                self._arguments[layer][1].get("attention_mask"), shape.start, shape.length
            )
        )

    def call(
        self,
        block: nn.Module,
        layer: int,
        hidden: Float[Tensor, "row suffix d_model"],
        prefix: Cache,
    ) -> Float[Tensor, "row suffix d_model"]:
        """Returns the output of `block` for `hidden`, with the keys and values of the prefix."""
        args, kwargs = self._arguments[layer]
        out = block(
            hidden,
            *(prefix if a is self._cache else a for a in args),
            **{k: prefix if a is self._cache else a for k, a in kwargs.items()},
        )
        return as_rows_and_tokens(output_activation(out))


def _cache_of(batch: StoredBatch, tokens: int) -> DynamicCache:
    """Returns a cache in the shape of `tokens` tokens of a run."""
    cache = DynamicCache()
    if tokens:
        for layer, (keys, values) in enumerate(batch.shapes(tokens)):
            cache.update(keys, values, layer)
    return cache
