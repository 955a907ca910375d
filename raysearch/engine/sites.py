"""Where things are in a model: its blocks, by one table of module names and a table of exceptions; its sizes.

Invariants: layers count from 0 in the order in which they run; "residual" is a block's output, whether the block
returns a tensor (transformers >= 5) or a tuple whose first item it is (older ones).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from raysearch.errors import JobError, ModelError, NotYetError
from raysearch.search.hypothesis import Site

BLOCKS = (
    "model.layers",  # Llama, Mistral, Qwen, Gemma, Phi, OLMo, StableLM, ...
    "transformer.h",  # GPT-2, GPT-J, Falcon, BLOOM, CodeGen, GPT-Neo, ...
    "gpt_neox.layers",  # Pythia
    "model.decoder.layers",  # OPT
    "model.language_model.layers",  # the language model of those that also see or hear
)
"""Where blocks are found; the first of these names that the model has."""

EXCEPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "biogpt": "biogpt.layers",
        "dbrx": "transformer.blocks",
        "falcon_mamba": "backbone.layers",
        "mamba": "backbone.layers",
        "mpt": "transformer.blocks",
    }
)
"""Where they are instead, by `config.model_type`."""

COMPONENTS = (
    "residual",
    "block_input",
    "embedding",
    "attention_output",
    "mlp_output",
    "mlp_activation",
    "head",
    "query",
    "key",
    "value",
)
"""Those that a job may name, besides a dotted module path."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Layers, width of the residual (d_model), attention heads of a layer (0 for a model without attention)."""

    layers: int
    width: int
    heads: int


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder blocks of `model`, first to last: the list that the model itself runs.

    Raises: ModelError for an architecture that the tables do not know, or one that is not decoder-only.
    """
    kind = str(getattr(model.config, "model_type", type(model).__name__))
    if getattr(model.config, "is_encoder_decoder", False):
        raise ModelError(f"{type(model).__name__} ({kind}) has an encoder; only decoder-only models are supported")
    looked_for = (EXCEPTIONS[kind],) if kind in EXCEPTIONS else BLOCKS
    for name in looked_for:
        blocks = _module_at(model, name)
        if isinstance(blocks, nn.ModuleList) and len(blocks):
            return blocks
    raise ModelError(f"{type(model).__name__} ({kind}): its blocks were not found; looked for {', '.join(looked_for)}")


def sizes_of(model: PreTrainedModel) -> Sizes:
    """How many layers and heads, how wide. Raises: ModelError as `layers_of`."""
    config = model.config.get_text_config()
    return Sizes(len(layers_of(model)), int(config.hidden_size), int(getattr(config, "num_attention_heads", None) or 0))


def check_site(site: Site, layers: int) -> None:
    """Raises: NotYetError, JobError for a component not supported, or unknown; ModelError for a layer not there."""
    if site.component != "residual":
        if site.component in COMPONENTS or "." in site.component:
            raise NotYetError(f"component {site.component!r} is not supported yet; use residual")
        raise JobError(f"{site.component!r} is no component; it may be {', '.join(COMPONENTS)} or a dotted module path")
    if not 0 <= site.layer < layers:
        raise ModelError(f"{site.layer} is no layer of the model; it has 0..{layers - 1}")


def residual_in(output: Any) -> Tensor:
    """The residual in what a block returned, of shape (row, token, d_model). Raises: ModelError where there is none."""
    hidden = output[0] if isinstance(output, tuple) else output
    if not isinstance(hidden, Tensor) or hidden.ndim != 3:
        got = tuple(hidden.shape) if isinstance(hidden, Tensor) else type(hidden).__name__
        raise ModelError(
            f"a block returned {got}; need a tensor (row, token, d_model), or a tuple that begins with one"
        )
    return hidden


def with_residual(output: Any, hidden: Tensor) -> Any:
    """What the block returned, with `hidden` in the place of its residual."""
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


def _module_at(model: nn.Module, dotted: str) -> nn.Module | None:
    return reduce(lambda at, name: getattr(at, name, None), dotted.split("."), model)  # type: ignore[arg-type,return-value]
