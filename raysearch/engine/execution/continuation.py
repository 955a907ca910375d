"""The keys and values that the rows of a wave have, for the tokens that follow.

Below its first patch a row has its base's, from there on its own. Each further token is one more for
every row; tokens before the wave are still shared by the rows of a base.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import Cache, PretrainedConfig

from raysearch.engine.execution.cached_runs import CachedRun, prefixes
from raysearch.engine.execution.partial_attention import RowsByBase, attend
from raysearch.engine.execution.prefix import Groups, Heads, attended


class Continuation(Cache):
    """A cache of rows, to which the model appends the next token.

    Args:
        own: keys and values of each layer that ran, of the rows that had entered.
        start: the first token that rows do not share with their bases.
        length: the number of tokens of the wave.
    """

    def __init__(
        self,
        bases: Sequence[CachedRun],
        base_of: Int[Tensor, "row"],
        own: Mapping[int, tuple[Tensor, Tensor]],
        start: int,
        length: int,
    ) -> None:
        keys = prefixes(bases, lambda batch: batch.keys, length, 0)
        values = prefixes(bases, lambda batch: batch.values, length, 0)
        self._base, self.start, self.length = base_of, start, length
        self._prefix = [
            (k[..., :start, :], v[..., :start, :]) for k, v in zip(keys, values, strict=True)
        ]
        self._own = [
            tuple(
                _below(
                    of_base[..., start:, :], base_of, None if layer not in own else own[layer][at]
                )
                for at, of_base in enumerate(both)
            )
            for layer, both in enumerate(zip(keys, values, strict=True))
        ]
        self._rows = RowsByBase.of(base_of, len(bases))
        self._layer = 0

    def update(
        self, key_states: Heads, value_states: Heads, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        self._layer = layer_idx
        keys, values = self._own[layer_idx]
        keys, values = torch.cat((keys, key_states), -2), torch.cat((values, value_states), -2)
        self._own[layer_idx] = keys, values
        if self._shares:
            return keys, values
        base = self._base.to(keys.device)
        before = [of_base[base] for of_base in self._prefix[layer_idx]]
        return torch.cat((before[0], keys), -2), torch.cat((before[1], values), -2)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.length

    def attend(
        self, module: nn.Module, query: Heads, key: Groups, value: Groups, scale: float, more: Any
    ) -> Heads:
        """Returns the attention of one more token of each row to all tokens before it."""
        rows = self._rows.to(query.device)
        return attend(query, key, value, self._prefix[self._layer], rows, scale, causal=False)

    @contextmanager
    def attending(self, shares: bool, configs: Sequence[PretrainedConfig]) -> Iterator[None]:
        """Makes the model's attention read one copy of each prefix, if rows share it."""
        self._shares = shares
        if not shares:
            yield
            return
        with attended(configs, self):
            yield


def _below(of_bases: Tensor, base_of: Int[Tensor, "row"], entered: Tensor | None) -> Tensor:
    """Returns the keys or values of a layer: of the rows that had entered, then the bases' of the
    others."""
    count = 0 if entered is None else len(entered)
    others = of_bases[base_of[count:].to(of_bases.device)]
    return others if entered is None else torch.cat((entered.to(others.device), others))
