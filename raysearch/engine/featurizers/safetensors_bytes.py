"""Safetensors as bytes, with one text beside the tensors.

Invariants: equal content, equal bytes; nothing is pickled.
"""

import json
from collections.abc import Mapping

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor


def write(tensors: Mapping[str, Tensor], key: str, text: str) -> bytes:
    """Returns `tensors` as safetensors, with `text` under `key`. One key only: safetensors writes
    several in an order that varies."""
    return safetensors.torch.save(dict(tensors), {key: text})


def read(content: bytes) -> tuple[Mapping[str, Tensor], Mapping[str, str]]:
    """Returns the tensors, and the texts by key. Raises: ValueError where this is no
    safetensors."""
    try:
        tensors = safetensors.torch.load(content)
        length = int.from_bytes(content[:8], "little")
        texts = json.loads(content[8 : 8 + length]).get("__metadata__") or {}
    except (SafetensorError, KeyError) as e:  # KeyError: a dtype that it does not know
        raise ValueError(f"no safetensors ({e})") from e
    return tensors, texts
