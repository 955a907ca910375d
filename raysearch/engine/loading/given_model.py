"""A model that somebody has loaded: a language model with its tokenizer, or a torch module on
tensors, searched where it is.

    GivenModel.of(model, tokenizer)      a causal language model of transformers (also one that peft has wrapped)
    GivenModel.of(module)                any other torch module: a network on tensors

Invariants: it is taken as it is, dtype and device included, and is afterwards as it was: whether it
trains, and what needs gradients; its digest is of its content (weights, shape, code, tokenizer), so
that the same model has the same digest in another process; one that was only read from files goes
by these.
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
from raysearch.engine.loading.load import DTYPES, LoadedModel
from raysearch.engine.networks.half_precision import drop_copies, slow_down, speed_up
from raysearch.errors import ModelError

_NOT_OURS = ("torch", "transformers", "peft", "builtins")
"""Packages whose code is known by their versions, which the run keeps."""
_VOLATILE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache")
"""Of a configuration: what says nothing of the outputs, or is said by the weights."""

_OF_ADAPTERS = ("base_model_name_or_path", "revision", "inference_mode", "peft_version")
"""Of an adapter's configuration: the same."""


@dataclass(frozen=True)
class GivenModel:
    """`tokenizer`: None for a module on tensors. `source`: the files that it was read from, and
    `read` what came of them, where it is just that."""

    module: nn.Module
    tokenizer: PreTrainedTokenizerBase | None = None
    source: ModelSource | None = None
    read: LoadedModel | None = None

    @classmethod
    def of(cls, model: Any, tokenizer: Any = None) -> "GivenModel":
        """Raises: ModelError for what is no model, a language model without its tokenizer, or a
        module with one."""
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
                f"tokenizer; give both: "
                "rs.Model(model, tokenizer), or model=(model, tokenizer)"
            )
        if tokenizer is not None and not generates:
            raise ModelError(
                f"model: {type(model).__name__} is no causal language model of transformers; give "
                f"a torch module on tensors without a "
                "tokenizer"
            )
        if tokenizer is not None and not isinstance(tokenizer, PreTrainedTokenizerBase):
            raise ModelError(
                f"tokenizer: got {type(tokenizer).__name__}; give the model's, as "
                f"AutoTokenizer.from_pretrained reads it"
            )
        return cls(model, tokenizer)

    @property
    def name(self) -> str:
        """Its class."""
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
        """The dtype of its weights. Raises: ModelError for one that is not searched in."""
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
        self, wording: PromptFormat = PLAIN, by_content: bool = False
    ) -> LoadedModel | LoadedModule:
        """The model as a replica takes it. `by_content`: its digest is of its content even where it
        was read from files."""
        if self.read is not None and not by_content:
            return replace(self.read, wording=wording)
        digest = content_digest(self.module, self.tokenizer)
        return (
            LoadedModule(self.module, digest, self.dtype)
            if self.on_tensors
            else LoadedModel(*self.language, digest, self.dtype, wording)
        )

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        """Within, it evaluates, nothing of it needs gradients, and halves are multiplied as fast as
        can be; afterwards it is as before."""
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
    """The model that was read from the files of `source`; a folder or file is found again from
    wherever its path is read."""
    path = Path(source.path).expanduser()
    if path.exists():
        source = replace(source, path=str(path.resolve()))
    return GivenModel(loaded.model, loaded.tokenizer, source, loaded)


def content_digest(module: nn.Module, tokenizer: PreTrainedTokenizerBase | None = None) -> str:
    """The SHA-256 (64 hex digits) of weights and buffers, plain settings, code of classes and hooks
    that are the user's, configuration and tokenizer: the same in every process of one Python
    version."""
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
        said = {k: v for k, v in config.to_dict().items() if k not in _VOLATILE}
        whole.update(json.dumps(said, sort_keys=True, default=str).encode())
    whole.update(_adapters(module))
    if tokenizer is not None:
        whole.update(_tokenizer(tokenizer))
    return whole.hexdigest()


def _adapters(module: nn.Module) -> bytes:
    """Of adapters that peft has put in: which are active, merged or switched off, and their
    factors, module by module; else nothing."""
    told = ("active_adapters", "merged_adapters", "disable_adapters", "scaling")
    said = {
        name: {key: getattr(part, key, None) for key in told}
        for name, part in module.named_modules()
        if isinstance(
            getattr(part, "active_adapters", None), list
        )  # of a model of transformers it is a method
    }
    if not said:
        return b""
    configs = {
        name: config.to_dict() for name, config in getattr(module, "peft_config", {}).items()
    }
    kept = {
        name: {k: v for k, v in c.items() if k not in _OF_ADAPTERS} for name, c in configs.items()
    }
    return json.dumps([said, kept], sort_keys=True, default=_plainly).encode()


def _plainly(value: Any) -> Any:
    return sorted(value) if isinstance(value, set | frozenset) else str(value)


def _tokenizer(tokenizer: PreTrainedTokenizerBase) -> bytes:
    """All that says how it cuts texts; how it last filled up a batch does not."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = (
        json.loads(backend.to_str())
        if backend is not None
        else sorted(tokenizer.get_vocab().items())
    )
    if isinstance(rules, dict):
        rules = {k: v for k, v in rules.items() if k not in ("padding", "truncation")}
    said = [rules, tokenizer.chat_template, tokenizer.special_tokens_map]
    return json.dumps(said, sort_keys=True, default=str).encode()


def _own_forward(part: nn.Module) -> list[Any]:
    """The forward of this one module, where it has one of its own; not ours (products.py), which
    hangs on the processor."""
    forward = vars(part).get("forward")
    return (
        []
        if forward is None or str(getattr(forward, "__module__", "")).startswith("raysearch.")
        else [forward]
    )


def _is_known(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in _NOT_OURS


def _methods(kind: type) -> list[Any]:
    """The functions of a class and of its bases, as far as they are the user's; what a property or
    decorator hides is not looked for."""
    own = [base for base in kind.__mro__ if not _is_known(base)]
    return [member for base in own for _, member in sorted(vars(base).items())]


def _code(code: CodeType | None) -> bytes:
    """What a function does, wherever it stands: no file, no line."""
    if code is None:
        return b""
    constants = [_code(c) if isinstance(c, CodeType) else _constant(c) for c in code.co_consts]
    return (
        code.co_code + repr((code.co_names, code.co_varnames, code.co_freevars, constants)).encode()
    )


def _constant(value: Any) -> str:
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)


def _without_peft(model: Any) -> Any:
    """The language model within, adapters in place, of one that peft has wrapped. Raises:
    ModelError where the wrapper itself computes."""
    if not hasattr(model, "peft_config") or not hasattr(model, "get_base_model"):
        return model
    if any(config.is_prompt_learning for config in model.peft_config.values()):
        raise ModelError(
            f"model: {type(model).__name__} puts learned tokens before each text (prompt "
            f"learning), which would move its positions; give "
            "a model without, or one whose adapter changes weights (LoRA)"
        )
    return model.get_base_model()
