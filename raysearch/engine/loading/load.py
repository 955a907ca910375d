"""Loads a model and its tokenizer without console output: from a local folder, a .gguf file or a
hub id.

Invariants: code from a model's folder runs only if the source explicitly allows it; a model with
missing weights is refused, never filled with random ones; an adapter beside the weights is merged
into them, or refused; the model is in evaluation mode, without gradients, in the requested dtype.
"""

import importlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import cached_file

from raysearch.core.model_source import ModelSource
from raysearch.engine.loading.adapter import Adapter, adapter_of
from raysearch.engine.loading.config_counts import check_counts
from raysearch.engine.loading.dtypes import cast, dtypes_of
from raysearch.engine.loading.loaded_model import DTYPES, LoadedModel
from raysearch.engine.loading.model_digest import digest_of
from raysearch.engine.loading.quantisation import check_method, method_of, refuse_change, spread_of
from raysearch.engine.loading.side_files import ADAPTER, check_beside, unused_files
from raysearch.engine.loading.weights_check import check_vocabulary, check_whole
from raysearch.engine.networks.blocks import ONLY
from raysearch.engine.networks.half_precision import speed_up
from raysearch.errors import ModelError, check_memory
from raysearch.storage.digests_json import sha256
from raysearch.visible_text import one_line

_log = logging.getLogger(__name__)
_COMMIT = re.compile(r"[0-9a-f]{40}")


class _HubInOneLine(logging.Filter):
    """Says once that the hub does not answer, in the place of two lines for each retry."""

    _said = False

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if "thrown while requesting" in text and not self._said:
            self._said = True
            why = one_line(text.partition(" thrown")[0], 100)
            _log.warning("the model hub does not answer (%s); it is asked again for a minute", why)
        return not ("thrown while requesting" in text or "Retrying in" in text)


@contextmanager
def _hub_in_one_line() -> Iterator[None]:
    """Says once that the hub does not answer, while the context is open."""
    requests, once = logging.getLogger("huggingface_hub.utils._http"), _HubInOneLine()
    requests.addFilter(once)
    try:
        yield
    finally:
        requests.removeFilter(once)


@_hub_in_one_line()
def load(source: ModelSource, device: str = "cpu") -> LoadedModel:
    """Loads the model and tokenizer of `source` onto `device`, or spread by its device_map.

    Raises: ModelError, one line, if it cannot be loaded or lacks weights, or the device does not
    exist.
    """
    dtype = _dtype(source)
    adapter, base, (where, options) = _found(source)
    with _quiet("gguf_file" in options):
        config = _configuration(base, where, options)
        method = method_of(config)
        if adapter is not None:
            _refuse_adapter(source, config)
        tokenizer = _tokenizer(source, adapter, where, options)
        with _in_one_line(source.path, device):
            torch.empty(0, device=device)  # a device that is not here is told before all else
        spread = spread_of(source.device_map, method, device)
        if not spread and adapter is None and "gguf_file" not in options:
            spread = _straight_to(device)
        with nullcontext(where) if adapter is None else adapter.base_alone() as place:
            model, info = _read(base, place, dtype, options | spread)
        left = check_whole(base.path, model, info)
        if adapter is not None:
            before = dtypes_of(model)
            model = adapter.merged_into(model)
            cast(model, before, dtype)
            check_vocabulary(source.path, model, tokenizer)
    if not spread:
        with _in_one_line(source.path, device):
            model = model.to(device=device)  # no dtype: what transformers keeps in float32 stays so
    model.eval().requires_grad_(False)
    speed_up(model)
    folder, commit = _files_of(source, ADAPTER if adapter is not None else "config.json")
    digest = digest_of(folder, source.trust_remote_code)
    if adapter is not None and not adapter.is_beside:
        of_base = digest_of(_files_of(base)[0], source.trust_remote_code)
        digest = sha256(f"{digest} on {of_base}".encode())
    notes = () if folder.is_file() else unused_files(folder, source.trust_remote_code)
    return LoadedModel(
        model, tokenizer, digest, source.dtype, source.prompt_format, commit, (*left, *notes)
    )


@contextmanager
def _in_one_line(path: str, device: str) -> Iterator[None]:
    """Raises: ModelError for what a device refuses: it is not here, the model does not fit onto it,
    quantised weights cannot be moved."""
    try:
        yield
    except torch.OutOfMemoryError as e:
        raise _too_large(path, e) from e
    except (RuntimeError, AssertionError, ValueError) as e:
        raise ModelError(
            f"{path}: cannot be put on device {device!r} ({one_line(e)}); try cpu"
        ) from e


def _too_large(path: str, error: Exception) -> ModelError:
    return ModelError(
        f"{path}: does not fit onto the device ({one_line(error)}); take more GPUs for a replica "
        "(model.device_map: auto, resources.gpus: 2), a dtype of half the size, or cpu"
    )


def _straight_to(device: str) -> dict[str, Any]:
    """Returns the argument of `from_pretrained` that has weights read to their device at once, so
    that main memory never holds all of them; none for a CPU, or without accelerate, which
    transformers needs for it."""
    if torch.device(device).type == "cpu" or find_spec("accelerate") is None:
        return {}
    return {"device_map": {"": device}}


def _refuse_adapter(source: ModelSource, config: PretrainedConfig) -> None:
    """Raises: ModelError for a quantised model, into which no adapter can be merged."""
    refuse_change(source.path, method_of(config), "its adapter", "merge it into the full weights")


@_hub_in_one_line()
def without_weights(source: ModelSource) -> LoadedModel:
    """Builds the model of `source` by its configuration, on torch's device "meta".

    Raises: ModelError, one line.
    """
    dtype = _dtype(source)
    adapter, base, (where, options) = _found(source)
    with _quiet(gguf="gguf_file" in options):
        config = _configuration(base, where, options)
        if adapter is not None:
            _refuse_adapter(source, config)
        tokenizer = _tokenizer(source, adapter, where, options)
        try:
            build: Any = AutoModelForCausalLM.from_config
            with torch.device("meta"):
                model = build(config, dtype=dtype, trust_remote_code=source.trust_remote_code)
        except Exception as e:
            raise _unloadable(base, "configuration", e) from e
    folder = Path(source.path).expanduser()
    left_out = unused_files(folder, source.trust_remote_code) if folder.is_dir() else ()
    return LoadedModel(model, tokenizer, "", source.dtype, source.prompt_format, unused=left_out)


def _dtype(source: ModelSource) -> torch.dtype:
    if source.dtype not in DTYPES:
        raise ModelError(f"dtype {source.dtype!r} is not supported; it may be {', '.join(DTYPES)}")
    return DTYPES[source.dtype]


def _place(source: ModelSource) -> tuple[str, dict[str, Any]]:
    """Returns the arguments of `from_pretrained`."""
    path = Path(source.path).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError(
                f"{source.path}: no such file; name a .gguf file, a model's folder or a hub id"
            )
        return str(path.parent), {"gguf_file": path.name}
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(
                f"{source.path}: has no config.json; name a folder as save_pretrained writes it, a "
                f".gguf file or a hub id"
            )
        return str(path), {}
    if path.is_file():
        raise ModelError(
            f"{source.path}: is a file, and no .gguf; name a model's folder, a .gguf file or a hub "
            f"id (owner/name)"
        )
    if (
        path.exists()
        or path.is_absolute()
        or source.path.startswith((".", "~"))
        or source.path.count("/") > 1
    ):
        raise ModelError(
            f"{source.path}: no such folder; name a model's folder, a .gguf file or a hub id "
            f"(owner/name)"
        )
    return source.path, {"revision": source.revision} if source.revision else {}


def _configuration(source: ModelSource, where: str, options: dict[str, Any]) -> PretrainedConfig:
    """Reads the configuration. Raises: ModelError if it cannot be read, or is no causal language
    model's."""
    try:
        plain, _ = PretrainedConfig.get_config_dict(where, **options)
    except Exception as e:  # any error of transformers
        raise _unloadable(source, "configuration", e) from e
    check_counts(source.path, plain)
    check_method(source.path, plain)
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(
            where, trust_remote_code=source.trust_remote_code, **options
        )
    except Exception as e:  # any error of transformers
        raise _unloadable(source, "configuration", e) from e
    called = f"{source.path}: {config.model_type}"
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{called} has an encoder; {ONLY}")
    causal: Any = AutoModelForCausalLM  # untyped
    own_code = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    if type(config) not in causal._model_mapping and not own_code:
        raise ModelError(
            f"{called} is no causal language model; {ONLY} by their folder, networks on tensors as "
            f"file.py:function"
        )
    return config


def _found(source: ModelSource) -> tuple[Adapter | None, ModelSource, tuple[str, dict[str, Any]]]:
    """Returns the adapter to merge, if any; the source of the weights; and the arguments of
    `from_pretrained`.

    Raises: ModelError for files that would change the model's outputs and cannot be loaded.
    """
    folder = Path(source.path).expanduser()
    if folder.is_dir():
        check_beside(folder)
    adapter = adapter_of(source.path, source.revision)
    if adapter is None:
        return None, source, _place(source)
    base = replace(source, path=adapter.base, revision=adapter.revision)
    if Path(base.path).is_dir():
        if not adapter.is_beside:
            check_beside(Path(base.path))
    elif base.trust_remote_code and not _COMMIT.fullmatch(base.revision or ""):
        raise ModelError(
            f"{source.path}: its adapter changes {base.path}, and model.trust_remote_code: true "
            f"would run whatever that holds on the day "
            f"it is loaded; pin it: put a commit, 40 hex digits, into {ADAPTER} (revision)"
        )
    return adapter, base, _place(base)


def _read(
    source: ModelSource, where: str, dtype: torch.dtype, options: dict[str, Any]
) -> tuple[Any, Any]:
    """Returns the model and the loading report of transformers. Raises: ModelError."""
    # `Any`: the stubs of transformers lack the second result of output_loading_info.
    read: Any = AutoModelForCausalLM.from_pretrained
    try:
        model, info = read(
            where,
            dtype=dtype,
            trust_remote_code=source.trust_remote_code,
            output_loading_info=True,
            **options,
        )
    except torch.OutOfMemoryError as e:
        raise _too_large(source.path, e) from e
    except Exception as e:  # any error of transformers: OSError, SafetensorError, ...
        raise _unloadable(source, "model", e) from e
    return model, info


def _tokenizer(
    source: ModelSource, adapter: Adapter | None, where: str, options: dict[str, Any]
) -> PreTrainedTokenizerBase:
    """Returns the adapter's own tokenizer, if any, else the model's. Raises: ModelError."""
    if adapter is not None and (adapter.place / "tokenizer_config.json").is_file():
        where, options = str(adapter.place), {}
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            where, trust_remote_code=source.trust_remote_code, **options
        )
    except Exception as e:  # any error; `tokenizers` raises a bare Exception for a broken file
        raise _unloadable(source, "tokenizer", e) from e
    return tokenizer


def _files_of(source: ModelSource, name: str = "config.json") -> tuple[Path, str | None]:
    """Returns the folder of the loaded files; for a hub id also the commit, which names the folder
    in the hub's cache."""
    path = Path(source.path).expanduser()
    if path.exists():
        return path, None
    config = cached_file(source.path, name, revision=source.revision)
    assert config is not None, (
        "a model that was loaded from the hub has its configuration in the cache"
    )
    folder = Path(config).parent
    return folder, folder.name


def _unloadable(source: ModelSource, what: str, error: Exception) -> ModelError:
    check_memory(error, f"loading the {what} of {source.path}")
    here = Path(source.path).expanduser().exists()
    place = source.path if here else f"{source.path}: is no folder here, and as a hub id"
    return ModelError(
        f"{place}{':' * here} the {what} cannot be loaded ({type(error).__name__}: "
        f"{one_line(error)}); need a folder, .gguf file or hub id that transformers "
        f"{transformers.__version__} reads"
        + (
            ""
            if source.trust_remote_code
            else " without remote code (model.trust_remote_code: true runs the model's own)"
        )
    )


@contextmanager
def _quiet(gguf: bool) -> Iterator[None]:
    """Disables progress bars and load reports, which would disturb the driver's display; restores
    them afterwards."""
    noise: Any = transformers_logging  # untyped
    level, bars = noise.get_verbosity(), noise.is_progress_bar_enabled()
    noise.set_verbosity_error()
    noise.disable_progress_bar()
    try:
        with _no_bar_of_gguf() if gguf else nullcontext():
            yield
    finally:
        noise.set_verbosity(level)
        if bars:
            noise.enable_progress_bar()


@contextmanager
def _no_bar_of_gguf() -> Iterator[None]:
    """Disables the progress bar over a .gguf file's tensors, which has no switch: on a terminal it
    goes to stderr, in a notebook it may be a widget."""
    reading: Any = importlib.import_module("transformers.modeling_gguf_pytorch_utils")

    bar = reading.tqdm
    reading.tqdm = partial(bar, disable=True)
    try:
        yield
    finally:
        reading.tqdm = bar
