"""Where the blocks of a model are: one table of module names.

Invariants: layers count from 0 in the order in which they run.
"""

from torch import nn
from transformers import PreTrainedModel

from raysearch.errors import ModelError

BLOCKS = (
    "model.layers",  # Llama, Mistral, Qwen, Gemma, Phi, OLMo, StableLM, ...
    "transformer.h",  # GPT-2, GPT-J, Falcon, BLOOM, CodeGen, GPT-Neo, ...
    "gpt_neox.layers",  # Pythia
    "model.decoder.layers",  # OPT
    "model.language_model.layers",  # the language model within multimodal models
    "backbone.layers",  # Mamba, Mamba2, Falcon Mamba
    "backbone.blocks",  # xLSTM
    "rwkv.blocks",
    "gpt_neox_japanese.layers",
    "biogpt.layers",
    "transformer.blocks",  # MPT, DBRX
)
"""Paths of block lists; the first one that the model has is taken."""


ONLY = "only causal language models (decoder-only) can be searched"
"""The end of the error text for other architectures."""


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """Returns the decoder blocks of `model`, first to last: the very list that the model runs.

    Raises: ModelError for an architecture that the table does not know, or one that is not
    decoder-only.
    """
    kind = str(getattr(model.config, "model_type", type(model).__name__))
    if getattr(model.config, "is_encoder_decoder", False):
        raise ModelError(f"{type(model).__name__} ({kind}) has an encoder; {ONLY}")
    for name in BLOCKS:
        blocks = module_at(model, name)
        if isinstance(blocks, nn.ModuleList) and len(blocks):
            return blocks
    raise ModelError(
        f"{type(model).__name__} ({kind}): its blocks were not found; looked for "
        f"{', '.join(BLOCKS)}"
    )


def module_at(model: nn.Module, dotted: str) -> nn.Module | None:
    """Returns the module at a dotted path, or None."""
    at: object = model
    for name in dotted.split("."):
        at = getattr(at, name, None)
    return at if isinstance(at, nn.Module) else None
