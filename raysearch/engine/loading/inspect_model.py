"""Describes a language model by its configuration, and remembers the description.

A description follows from the small files of a model's folder and from installed versions, so it is
remembered by their content (`user_cache`): the next look at the same folder imports no torch.

Invariants: importing this module imports no torch; what depends on a folder's other files is looked
at each time; a description that was remembered is the one that was made.
"""

import importlib
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysearch.causal import Pair
from raysearch.core.codec import from_json_values, to_json_values
from raysearch.core.events import Encoded
from raysearch.core.model_source import ModelSource
from raysearch.core.prompt_format import PromptFormat
from raysearch.engine.loading.model_digest import file_digest
from raysearch.engine.loading.model_summary import ModelShapes, ModelSummary, check_lengths
from raysearch.engine.loading.side_files import ADAPTER, WEIGHTS, check_beside, unused_files
from raysearch.errors import StoreError
from raysearch.user_cache import recall, remember, versions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KIND = "models"
_GPU_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg", "/dev/nvhost-gpu")
"""One of them exists where torch can use a GPU (NVIDIA, AMD, either under Windows, Jetson)."""


def inspect_model(source: ModelSource, components: Sequence[str] = ("residual",)) -> ModelSummary:
    """Describes `source` by its configuration; reads no weights.

    Raises: ModelError, one line, for a model whose blocks are not found, or that lacks one of the
    components.
    """
    key = _key(source, components)
    known = None if key is None else _known(recall(KIND, key))
    if known is not None:
        return known.summary(source)
    from raysearch.engine.loading.load import without_weights

    loaded = without_weights(source)
    summary = loaded.summary((), components)
    if key is not None and (tokenizer := _class_of(loaded.tokenizer, source)) is not None:
        shapes = ModelShapes(**{name: getattr(summary, name) for name in _SHAPES})
        remember(KIND, key, to_json_values(_KnownModel(shapes, loaded.longest, tokenizer)))
    return summary


def best_device() -> str:
    """Returns "cuda" if there is a GPU, else "cpu"."""
    if not any(Path(driver).exists() for driver in _GPU_DRIVERS):
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


_SHAPES = tuple(ModelShapes.__dataclass_fields__)


@dataclass(frozen=True)
class _KnownModel:
    """The facts of a model that are remembered: shapes, the most tokens that the model takes (None:
    any), and the class of its tokenizer, "module:name" of transformers."""

    shapes: ModelShapes
    longest: int | None
    tokenizer: str

    def summary(self, source: ModelSource) -> ModelSummary:
        """Returns the description, with the tokenizer read from the model's folder."""
        folder = Path(source.path).expanduser()
        encoder = _TextEncoder(_read(self.tokenizer, folder), source.prompt_format, self.longest)
        shapes = {name: getattr(self.shapes, name) for name in _SHAPES}
        return ModelSummary(
            **shapes,
            encode=encoder,
            read=lambda token: str(encoder.tokenizer.decode(token)),
            unused=unused_files(folder),
        )


@dataclass(frozen=True)
class _TextEncoder:
    tokenizer: "PreTrainedTokenizerBase"
    prompt_format: PromptFormat
    longest: int | None

    def __call__(
        self, pairs: Sequence[Pair], positions: Sequence[str], variables: Sequence[str]
    ) -> tuple[Encoded, ...]:
        from raysearch.engine.encoding.encode import encode

        encoded = encode(pairs, self.tokenizer, positions, variables, self.prompt_format)
        check_lengths(self.longest, encoded)
        return encoded


def _key(source: ModelSource, components: Sequence[str]) -> dict[str, Any] | None:
    """Returns what a description follows from; None for a model that is not remembered: one that is
    no folder, has an adapter, or runs code of its own."""
    folder = Path(source.path).expanduser()
    if source.trust_remote_code or not (folder / "config.json").is_file():
        return None
    check_beside(folder)
    entries = list(folder.iterdir())
    if (folder / ADAPTER).exists() or any(
        e.is_dir() and not e.name.startswith(".") for e in entries
    ):
        return None
    small = [e for e in entries if e.is_file() and not e.name.endswith(WEIGHTS)]
    return {
        "files": {e.name: file_digest(e) for e in small},
        "dtype": source.dtype,
        "components": list(components),
        "machine": platform.node(),  # whose processor says which weights are copied
        "versions": versions(),
    }


def _known(raw: Any) -> _KnownModel | None:
    try:
        return None if raw is None else from_json_values(_KnownModel, raw, KIND)
    except StoreError:  # of another shape than this version writes
        return None


def _read(tokenizer: str, folder: Path) -> "PreTrainedTokenizerBase":
    module, name = tokenizer.split(":")
    made: Any = getattr(importlib.import_module(module), name).from_pretrained(str(folder))
    return made  # type: ignore[no-any-return]


def _class_of(tokenizer: "PreTrainedTokenizerBase", source: ModelSource) -> str | None:
    """Returns the class of a tokenizer, if by itself it reads the same tokenizer from the
    folder."""
    kind = type(tokenizer)
    if not kind.__module__.startswith("transformers.") or not tokenizer.is_fast:
        return None
    name = f"{kind.__module__}:{kind.__name__}"
    again = _read(name, Path(source.path).expanduser())
    return name if _content(again) == _content(tokenizer) else None


def _content(tokenizer: Any) -> tuple[Any, ...]:
    return (
        type(tokenizer),
        tokenizer.backend_tokenizer.to_str(),
        tokenizer.special_tokens_map,
        tokenizer.chat_template,
        tokenizer.padding_side,
    )
