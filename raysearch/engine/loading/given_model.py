"""Models that the user has loaded: a language model with its tokenizer, or a torch module on
tensors, searched in place.

    GivenModel.of(model, tokenizer)      a causal language model, also one wrapped by peft
    GivenModel.of(module)                any other torch module: a network on tensors

Invariants: the model is used as it is, including dtype and device, and restored afterwards,
including training mode and gradient flags; its digest is of its content (weights, shape, code,
tokenizer), so that the same model has the same digest in another process; a model that was only
read from files has their digest.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import CodeType
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from raysearch.core.model_source import ModelSource
from raysearch.core.prompt_format import PLAIN, PromptFormat
from raysearch.engine.loading.factory import LoadedModule, module_digest
from raysearch.engine.loading.loaded_model import DTYPES, LoadedModel
from raysearch.engine.networks.half_precision import drop_copies, slow_down, speed_up
from raysearch.errors import ModelError

_KNOWN_PACKAGES = ("torch", "transformers", "peft", "builtins")
"""Packages whose code is identified by their versions, which the run records."""
_VOLATILE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache")
"""Settings of a configuration that do not affect outputs, or that the weights determine."""

_OF_ADAPTERS = ("base_model_name_or_path", "revision", "inference_mode", "peft_version")
"""The same for an adapter's configuration."""


@dataclass(frozen=True)
class GivenModel:
    """A model in memory. `tokenizer`: None for a module on tensors. `source`: the files that it was
    read from, and `read` the result of loading, if it is unchanged."""

    module: nn.Module
    tokenizer: PreTrainedTokenizerBase | None = None
    source: ModelSource | None = None
    read: LoadedModel | None = None

    @classmethod
    def of(cls, model: Any, tokenizer: Any = None) -> "GivenModel":
        """Wraps a model. Raises: ModelError for what is no model, a language model without its
        tokenizer, or a module with one."""
        model = _without_peft(model)
        if not isinstance(model, nn.Module):
            raise ModelError(
                f"model: got {type(model).__name__}; give a path, a rs.Model, a language model of "
                f"transformers with its tokenizer "
                "(model, tokenizer), or a torch.nn.Module on tensors"
            )
        generates = isinstance(model, PreTrainedModel) and model.can_generate()
        if generates and tokenizer is None:
            raise ModelError(
                f"model: {type(model).__name__} is a language model and comes without its "
                "tokenizer; give both: rs.Model(model, tokenizer), or model=(model, tokenizer)"
            )
        if tokenizer is not None and not generates:
            raise ModelError(
                f"model: {type(model).__name__} is no causal language model of transformers; give "
                "a torch module on tensors without a tokenizer"
            )
        if tokenizer is not None and not isinstance(tokenizer, PreTrainedTokenizerBase):
            raise ModelError(
                f"tokenizer: got {type(tokenizer).__name__}; give the model's, as "
                f"AutoTokenizer.from_pretrained reads it"
            )
        return cls(model, tokenizer)

    @property
    def name(self) -> str:
        """The name of its class."""
        return type(self.module).__name__

    @property
    def on_tensors(self) -> bool:
        return self.tokenizer is None

    @property
    def language(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The language model and its tokenizer. Raises: ModelError for a module on tensors."""
        if not isinstance(self.module, PreTrainedModel) or self.tokenizer is None:
            raise ModelError(
                f"model: {self.name} is a network on tensors; give it to rs.TensorModel"
            )
        return self.module, self.tokenizer

    @property
    def dtype(self) -> str:
        """The dtype of its weights. Raises: ModelError for a dtype that is not supported."""
        if self.read is not None:
            return self.read.dtype
        own = next(
            (p.dtype for p in self.module.parameters() if p.is_floating_point()), torch.float32
        )
        name = str(own).removeprefix("torch.")
        if name not in DTYPES:
            raise ModelError(
                f"model: {self.name} has weights of {name}; they may be {', '.join(DTYPES)}: "
                f"model.to(...)"
            )
        return name

    def loaded(
        self, prompt_format: PromptFormat = PLAIN, by_content: bool = False
    ) -> LoadedModel | LoadedModule:
        """Returns the model in the form that a replica takes. `by_content`: use the digest of its
        content even if it was read from files."""
        if self.read is not None and not by_content:
            return replace(self.read, prompt_format=prompt_format)
        digest = content_digest(self.module, self.tokenizer)
        return (
            LoadedModule(self.module, digest, self.dtype)
            if self.on_tensors
            else LoadedModel(*self.language, digest, self.dtype, prompt_format)
        )

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        """Sets evaluation mode without gradients, and fast half-precision products, while the
        context is open; restores everything afterwards."""
        training = [m for m in self.module.modules() if m.training]
        trained = [p for p in self.module.parameters() if p.requires_grad]
        self.module.eval().requires_grad_(False)
        faster = speed_up(self.module)
        try:
            yield
        finally:
            slow_down(faster)
            drop_copies(self.module)
            for module in training:
                module.training = True
            for parameter in trained:
                parameter.requires_grad_(True)


def read_from(source: ModelSource, loaded: LoadedModel) -> GivenModel:
    """Wraps a model read from the files of `source`; its path is made absolute, to be valid from
    other folders."""
    path = Path(source.path).expanduser()
    if path.exists():
        source = replace(source, path=str(path.resolve()))
    return GivenModel(loaded.model, loaded.tokenizer, source, loaded)


def content_digest(module: nn.Module, tokenizer: PreTrainedTokenizerBase | None = None) -> str:
    """Returns the SHA-256 (64 hex digits) of weights and buffers, plain settings, user code of
    classes and hooks, configuration and tokenizer: equal in every process of one Python version."""
    whole = hashlib.sha256(module_digest(module).encode())
    for name, part in module.named_modules():
        whole.update(f"\0{name} {type(part).__qualname__}".encode())
        if not _is_known(type(part)):
            plain = {
                k: v
                for k, v in vars(part).items()
                if isinstance(v, bool | int | float | str) and k != "training"
            }
            whole.update(json.dumps(plain, sort_keys=True).encode())
        hooks = (*part._forward_pre_hooks.values(), *part._forward_hooks.values())
        for function in (*_methods(type(part)), *hooks, *_own_forward(part)):
            whole.update(_code(getattr(function, "__code__", None)))
    config = getattr(module, "config", None)
    if config is not None and hasattr(config, "to_dict"):
        settings = {k: v for k, v in config.to_dict().items() if k not in _VOLATILE}
        whole.update(json.dumps(settings, sort_keys=True, default=str).encode())
    whole.update(_adapters(module))
    if tokenizer is not None:
        whole.update(_tokenizer(tokenizer))
    return whole.hexdigest()


def _adapters(module: nn.Module) -> bytes:
    """Returns the state of peft's adapters, module by module: which are active, merged or disabled,
    and their factors; empty without adapters."""
    fields = ("active_adapters", "merged_adapters", "disable_adapters", "scaling")
    settings = {
        name: {key: getattr(part, key, None) for key in fields}
        for name, part in module.named_modules()
        if isinstance(
            getattr(part, "active_adapters", None), list
        )  # a method on a model of transformers
    }
    if not settings:
        return b""
    configs = {
        name: config.to_dict() for name, config in getattr(module, "peft_config", {}).items()
    }
    relevant = {
        name: {k: v for k, v in c.items() if k not in _OF_ADAPTERS} for name, c in configs.items()
    }
    return json.dumps([settings, relevant], sort_keys=True, default=_json_value).encode()


def _json_value(value: Any) -> Any:
    return sorted(value) if isinstance(value, set | frozenset) else str(value)


def _tokenizer(tokenizer: PreTrainedTokenizerBase) -> bytes:
    """Returns all rules by which it splits texts, without the padding of its last batch."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = (
        json.loads(backend.to_str())
        if backend is not None
        else sorted(tokenizer.get_vocab().items())
    )
    if isinstance(rules, dict):
        rules = {k: v for k, v in rules.items() if k not in ("padding", "truncation")}
    settings = [rules, tokenizer.chat_template, tokenizer.special_tokens_map]
    return json.dumps(settings, sort_keys=True, default=str).encode()


def _own_forward(part: nn.Module) -> list[Any]:
    """Returns the module's own forward method, if any; not that of half_precision.py, which depends
    on the processor."""
    forward = vars(part).get("forward")
    return (
        []
        if forward is None or str(getattr(forward, "__module__", "")).startswith("raysearch.")
        else [forward]
    )


def _is_known(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in _KNOWN_PACKAGES


def _methods(kind: type) -> list[Any]:
    """Returns the user's functions in a class and its bases; functions within properties or
    decorators are not found."""
    own = [base for base in kind.__mro__ if not _is_known(base)]
    return [member for base in own for _, member in sorted(vars(base).items())]


def _code(code: CodeType | None) -> bytes:
    """Returns the content of a function without its file and line."""
    if code is None:
        return b""
    constants = [_code(c) if isinstance(c, CodeType) else _constant(c) for c in code.co_consts]
    return (
        code.co_code + repr((code.co_names, code.co_varnames, code.co_freevars, constants)).encode()
    )


def _constant(value: Any) -> str:
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)


def _without_peft(model: Any) -> Any:
    """Returns the language model that peft has wrapped, with its adapters. Raises: ModelError if
    the wrapper itself computes."""
    if not hasattr(model, "peft_config") or not hasattr(model, "get_base_model"):
        return model
    if any(config.is_prompt_learning for config in model.peft_config.values()):
        raise ModelError(
            f"model: {type(model).__name__} puts learned tokens before each text (prompt "
            f"learning), which would move its positions; give "
            "a model without, or one whose adapter changes weights (LoRA)"
        )
    return model.get_base_model()
