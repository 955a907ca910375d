"""Checks that a loaded model is the one that its files describe: no weight invented, left out, or
read as another kind.

Invariants: transformers only warns of these; here each is a one-line error that stops loading.
"""

from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from raysearch.engine.loading.quantisation import method_of
from raysearch.engine.networks.blocks import layers_of
from raysearch.errors import ModelError

_BUFFERS = (
    ".inv_freq",
    ".attn.bias",
    ".attn.masked_bias",
    ".attention.bias",
    ".attention.masked_bias",
)
"""Computed buffers of blocks that older checkpoints contain."""


def check_whole(path: str, model: PreTrainedModel, info: Any) -> tuple[str, ...]:
    """Returns a line, for the user, if weights outside the blocks were not loaded (a vision tower,
    a value head).

    `info`: the loading report of transformers. Raises: ModelError for weights that are missing;
    that belong to the blocks, or to an adapter, and were left out; that are quantised and were read
    as if they were not.
    """
    mismatched = sorted(
        str(m[0] if isinstance(m, tuple) else m) for m in info.get("mismatched_keys") or ()
    )
    lacking = sorted(info.get("missing_keys") or ()) + mismatched
    if lacking:
        raise ModelError(
            f"{path}: {len(lacking)} weights are missing or of another shape ({_some(lacking)}); "
            "a model with weights made up at random would be measured; get its files again"
        )
    unexpected = sorted(k for k in info.get("unexpected_keys") or () if not k.endswith(_BUFFERS))
    left = [k for k in unexpected if _belongs(k, model)]
    if left:
        raise ModelError(
            f"{path}: {len(left)} weights of its files belong to nothing in {type(model).__name__} "
            f"as config.json describes it ({_some(left)}), and would be left out; mend "
            "config.json, or save the weights as the model has them (an adapter merged)"
        )
    method = method_of(model.config)
    if method is not None and getattr(model, "hf_quantizer", None) is None:
        raise ModelError(
            f"{path}: config.json says that its weights are quantised ({method}), and transformers "
            "does not read them as such here; give weights that are not quantised, or a .gguf file"
        )
    return (
        (
            f"{len(unexpected)} weights that {type(model).__name__} does not have "
            f"({_some(unexpected)})",
        )
        if unexpected
        else ()
    )


def check_vocabulary(path: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises: ModelError for a tokenizer with tokens that the base of an adapter does not have."""
    embeddings: Any = model.get_input_embeddings()
    rows = embeddings.weight.shape[0]
    if len(tokenizer) > rows:
        raise ModelError(
            f"{path}: its tokenizer has {len(tokenizer)} tokens, the base of its adapter {rows}; "
            "save the merged model, or give the tokenizer that belongs to the base"
        )


def _belongs(key: str, model: PreTrainedModel) -> bool:
    """Returns whether a weight that was left out is an adapter's, or belongs to a block: of a
    surplus block, or surplus in one."""
    layers = layers_of(model)
    prefix = next(name for name, module in model.named_modules() if module is layers)
    short = prefix.removeprefix(f"{model.base_model_prefix}.")
    return "lora_" in key or key.startswith((f"{prefix}.", f"{short}."))


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
