"""Quantised models (bitsandbytes in 4 and 8 bits, GPTQ, AWQ and others), which are neither moved
nor cast once they are loaded.

They were written against the API of transformers 4.56 to 5.23 and have not been run: their kernels
need a GPU and packages that the tests do not have (docs/how-to/quantised-models.md).

Invariants: the weights are put on their device as they are read; nothing here changes a weight.
"""

from collections.abc import Mapping
from typing import Any

from raysearch.errors import ModelError

_SHOWN = 60
"""Characters of a method's name that an error repeats."""


def check_method(path: str, plain: Any) -> None:
    """Checks that the method of a quantised model is one that transformers reads. `plain`:
    config.json, as JSON has it.

    Raises:
        ModelError: it is none; transformers would read the weights as if they were not quantised.
    """
    found = plain.get("quantization_config") if isinstance(plain, Mapping) else None
    if found is None:
        return
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING as KNOWN

    is_mapping = isinstance(found, Mapping)
    named = found.get("quant_method") if is_mapping else found
    bits = [b for b in (4, 8) if is_mapping and found.get(f"load_in_{b}bit")]
    if is_mapping and (bits or (isinstance(named, str) and named in KNOWN)):
        return
    raise ModelError(
        f"{path}: quantization_config of its config.json names the method {repr(named)[:_SHOWN]}, "
        f"and transformers reads {', '.join(sorted(KNOWN))} (bitsandbytes with load_in_4bit or "
        f"load_in_8bit: true); restore the file, or give weights that are not quantised"
    )


def method_of(config: Any) -> str | None:
    """Returns the name of a model's quantisation, such as "gptq"; None for a model without one."""
    found = getattr(config, "quantization_config", None)
    if found is None:
        return None
    method = found.get("quant_method") if isinstance(found, dict) else found.quant_method
    if method is None and isinstance(found, dict):  # bitsandbytes of before, which names none
        bits = found.get("load_in_4bit") or found.get("load_in_8bit")
        method = "bitsandbytes" if bits else "unknown"
    return str(getattr(method, "value", method))


def spread_of(device_map: Any, method: str | None, device: str) -> dict[str, Any]:
    """Returns the argument of `from_pretrained` that says where the weights go: for a quantised
    model to their device at once, since they cannot be moved there later."""
    if device_map is not None:
        return {"device_map": device_map}
    return {} if method is None else {"device_map": {"": device}}


def refuse_change(path: str, method: str | None, what: str, way_out: str) -> None:
    """Raises: ModelError for a quantised model, of which other weights are asked."""
    if method is not None:
        raise ModelError(
            f"{path}: {what} is not possible, as its weights are quantised ({method}) and stay as "
            f"they are; {way_out}"
        )


def refuse_random_model(path: str, method: str | None) -> None:
    """Raises: ModelError for a quantised model, whose weights cannot be drawn anew."""
    refuse_change(path, method, "the control random_model", "leave it out")
