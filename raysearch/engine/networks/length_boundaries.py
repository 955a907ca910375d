"""Lengths at which a model changes its computation, as its configuration names them: windows,
chunks, limits of position encodings.

Rotary frequencies of some models (LongRoPE, dynamic NTK) depend on the length of a row. So rows
beyond such a limit are never a prefix of others (`Stretch.regime`). For all other lengths in the
configuration the self-check runs rows on both sides (`selfcheck_rows.boundary_rows`).

Invariants: no model family is named here; a kind of rotary embedding that is not known to be the
same at all lengths counts as length-dependent.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn
from transformers import PretrainedConfig

_LENGTH = re.compile(r"position|window|chunk|context|seq|length|block_size|topk", re.IGNORECASE)
"""Names of settings that count tokens. A name too many costs a few rows of the self-check."""
_FIXED = frozenset({"default", "linear", "yarn", "llama3", "proportional", "mrope"})
"""Kinds of rotary embeddings whose frequencies are the same at all lengths."""
_GROWN = "max_seq_len_cached"
"""Name of the attribute in which transformers stores the length that dynamic frequencies have grown
to."""
_LIMITS = ("original_max_position_embeddings", "max_position_embeddings")


def config_values(config: PretrainedConfig) -> Mapping[str, Any]:
    """Returns all settings of a configuration, also under the names that transformers uses for
    every model (GPT-2 calls one n_positions)."""
    values = config.to_dict()
    return values | {
        name: values[own] for name, own in config.attribute_map.items() if own in values
    }


def named_lengths(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Returns all lengths in the configuration, in ascending order."""
    found = {
        v
        for name, v in _leaves(config)
        if isinstance(v, int) and not isinstance(v, bool) and _LENGTH.search(name)
    }
    return tuple(sorted(length for length in found if length > 0))


def stretch_limit(config: Mapping[str, Any]) -> int | None:
    """Returns the length up to which rotary frequencies do not depend on the length; None if they
    never do."""
    limits = []
    for rope in _ropes(config):
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind not in _FIXED:
            limits += [
                v
                for name in _LIMITS
                for v in (rope.get(name), config.get(name))
                if isinstance(v, int)
            ]
    return min(limits, default=None)


def most_tokens(config: Mapping[str, Any]) -> int | None:
    """Returns the longest input that the model takes, dynamic frequencies included; None if the
    configuration does not say."""
    longest = config.get("max_position_embeddings")
    if not isinstance(longest, int):
        return None
    factors = [
        rope.get("factor", 1.0)
        for rope in _ropes(config)
        if rope.get("rope_type", rope.get("type")) == "dynamic"
    ]
    return int(longest * max(factors, default=1.0))


class Stretch:
    """The dependence of a model's rotary frequencies on the length of its input."""

    def __init__(self, model: nn.Module, config: Mapping[str, Any]) -> None:
        self._limit = stretch_limit(config)
        self._growing = [
            m for m in model.modules() if self._limit is not None and hasattr(m, _GROWN)
        ]

    def regime(self, length: int) -> int:
        """Returns a number that is equal for lengths at which a prefix has equal activations: 0 up
        to the limit, then the length itself."""
        return 0 if self._limit is None or length <= self._limit else length

    def forget(self) -> None:
        """Resets dynamic frequencies, whose growth would make outputs depend on the longest input
        run so far."""
        for module in self._growing:
            grown = [
                n
                for n, at in vars(module).items()
                if n.endswith(_GROWN) and at != module.original_max_seq_len
            ]
            for name in grown:
                prefix = name.removesuffix(_GROWN)
                setattr(module, name, module.original_max_seq_len)
                first, now = (
                    getattr(module, f"{prefix}original_inv_freq"),
                    getattr(module, f"{prefix}inv_freq"),
                )
                module.register_buffer(
                    f"{prefix}inv_freq", first.to(now.device, copy=True), persistent=False
                )


def _leaves(config: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _leaves(value)
        else:
            yield str(name), value


def _ropes(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yields the settings of rotary embeddings: one set, or one for each kind of layer."""
    for name in ("rope_parameters", "rope_scaling"):
        values = config.get(name)
        if isinstance(values, Mapping):
            yield values
            yield from (part for part in values.values() if isinstance(part, Mapping))
