"""Lengths at which a model computes otherwise, as its configuration names them: windows, chunks,
limits of its position encoding.

Rotary frequencies of some models (LongRoPE, dynamic NTK) follow the *longest* row of a batch. So
rows beyond such a limit travel with rows of their own length alone, and are no prefix of each other
(`Stretch.regime`). Of all other lengths that are named, the self-check has rows on both sides
(`selfcheck.straddling`).

Invariants: nothing here knows a family of models; a kind of rotary embedding that is not known to
be the same at all lengths counts as one that is not.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn
from transformers import PretrainedConfig

_LENGTH = re.compile(r"position|window|chunk|context|seq|length|block_size|topk", re.IGNORECASE)
"""Names of what counts tokens; a name too many costs a few rows of the self-check."""
_FIXED = frozenset({"default", "linear", "yarn", "llama3", "proportional", "mrope"})
"""Kinds of rotary embeddings whose frequencies are the same at all lengths."""
_GROWN = "max_seq_len_cached"
"""Where transformers keeps how long an input dynamic frequencies have grown to."""
_LIMITS = ("original_max_position_embeddings", "max_position_embeddings")


def told_by(config: PretrainedConfig) -> Mapping[str, Any]:
    """All that a configuration says, also by the names that transformers uses for all models
    (GPT-2's n_positions has another)."""
    said = config.to_dict()
    return said | {name: said[own] for name, own in config.attribute_map.items() if own in said}


def named_lengths(config: Mapping[str, Any]) -> tuple[int, ...]:
    """All of them, in ascending order."""
    found = {
        v
        for name, v in _leaves(config)
        if isinstance(v, int) and not isinstance(v, bool) and _LENGTH.search(name)
    }
    return tuple(sorted(length for length in found if length > 0))


def stretch_limit(config: Mapping[str, Any]) -> int | None:
    """The length up to which frequencies do not depend on it; None where they never do."""
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
    """The longest input that the model takes; None where it says none. Dynamic frequencies stretch
    it by their factor."""
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
    """How a model's rotary frequencies follow the length of what it runs."""

    def __init__(self, model: nn.Module, config: Mapping[str, Any]) -> None:
        self._limit = stretch_limit(config)
        self._growing = [
            m for m in model.modules() if self._limit is not None and hasattr(m, _GROWN)
        ]

    def regime(self, length: int) -> int:
        """Equal for lengths at which a token's activation is the same whatever follows it: 0 up to
        the limit, else the length itself."""
        return 0 if self._limit is None or length <= self._limit else length

    def forget(self) -> None:
        """Takes back what dynamic frequencies have grown to: else an output would depend on the
        longest input that ever was run."""
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


def _leaves(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _leaves(value)
        else:
            yield str(name), value


def _ropes(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What is said of rotary embeddings: once, or for each kind of layer."""
    for name in ("rope_parameters", "rope_scaling"):
        said = config.get(name)
        if isinstance(said, Mapping):
            yield said
            yield from (part for part in said.values() if isinstance(part, Mapping))
