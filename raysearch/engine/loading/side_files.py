"""Files beside a model's weights that change its outputs: loaded, refused, or reported. This module
does not import torch.

    adapter_config.json         a PEFT adapter, which loading/adapter.py merges into its base
    adapter_model.*, *lora*.bin weights of an adapter without its configuration: refused
    modules.json                a sentence-transformers model, whose output is no token: refused
    auto_map, other weights     untrusted code, unread weights, adapters in subfolders: reported

Invariants: nothing that would change an answer is ignored silently.
"""

import json
import re
from pathlib import Path
from typing import Any

from raysearch.errors import ModelError

ADAPTER = "adapter_config.json"
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".npz")
"""Ends of the names of files with weights."""
_OF_AN_ADAPTER = re.compile(r"(^|[^a-z])(q?lora|adapters?)([^a-z]|$)", re.IGNORECASE)
_KNOWN = re.compile(
    r"(pytorch_model|tf_model|flax_model|consolidated|optimizer|scheduler|scaler|"
    r"rng_state|random_states|training_args|openvino|tokenizer)"
)
"""Files beside a model's own weights: the same weights in another format, or the state of a
training."""
_PLACES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Files in which transformers looks for weights, in its order."""


def check_beside(folder: Path) -> None:
    """Raises: ModelError for files that change the model's outputs and cannot be loaded with it."""
    names = sorted(p.name for p in folder.iterdir() if p.is_file())
    adapters = [n for n in names if n.endswith(WEIGHTS) and _OF_AN_ADAPTER.search(Path(n).stem)]
    if ADAPTER in names:
        adapters = [n for n in adapters if not n.startswith("adapter_model.")]
    if adapters:
        raise ModelError(
            f"{folder}: {adapters[0]} holds the weights of an adapter, and no {ADAPTER} of PEFT "
            f"says how they change the model, so they "
            "would be left out; save it with peft, merge it into the weights, or take the file away"
        )
    marker = (
        "modules.json" if _is_sentence_transformer(folder) else "config_sentence_transformers.json"
    )
    if marker in names:
        raise ModelError(
            f"{folder}: {marker} makes it a sentence-transformers model, which puts out one vector "
            f"of a text and no next token; to search its language model alone, take {marker} away"
        )
    absent = sorted(_shards(folder) - set(names))
    if absent:
        raise ModelError(
            f"{folder}: the index of its weights names {_some(absent)}, which "
            f"{'is' if len(absent) == 1 else 'are'} not there; get its files again"
        )


def read_json(path: Path) -> Any:
    """Returns the content of a JSON file; None if it is missing or invalid, which the caller
    refuses if it matters."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def unused_files(folder: Path, trust_remote_code: bool = False) -> tuple[str, ...]:
    """Returns one line, for the user, for each thing in a model's folder that is not used although
    it looks as if it should be."""
    found = []
    config = read_json(folder / "config.json")
    code = config.get("auto_map") if isinstance(config, dict) else None
    own = code.get("AutoModelForCausalLM") if isinstance(code, dict) else None
    if own and not trust_remote_code:
        found.append(
            f"its own code ({own}) is not run, transformers' is; model.trust_remote_code: true "
            f"runs it"
        )
    weights = _unread(folder)
    if weights:
        found.append(f"{_some(weights)}: read by nothing")
    below = sorted(  # two levels: trainings save named adapters in checkpoint-10/default
        p.parent.relative_to(folder).as_posix()
        for depth in ("*", "*/*")
        for p in folder.glob(f"{depth}/{ADAPTER}")
    )
    if below:
        found.append(
            f"{_some(below)}: adapters in folders of their own; name FOLDER/{below[0]} to search "
            f"with that one"
        )
    return tuple(found)


def _unread(folder: Path) -> list[str]:
    """Returns weight files that transformers does not read, other than known duplicates and
    training state."""
    files = sorted(p.name for p in folder.iterdir() if p.is_file() and p.suffix in WEIGHTS)
    read = {n for n in files if n.startswith("adapter_model.")}
    place = _place(folder)
    read |= _shards(folder) or ({place} if place else set())
    return [n for n in files if n not in read and not _KNOWN.match(n)]


def _place(folder: Path) -> str | None:
    """Returns the file of weights, or of their index, that transformers reads; None if there is
    none."""
    return next((name for name in _PLACES if (folder / name).is_file()), None)


def _shards(folder: Path) -> set[str]:
    """Returns the files that the weight index names, if transformers reads one."""
    place = _place(folder)
    index = (
        read_json(folder / place) if place is not None and place.endswith(".index.json") else None
    )
    shards = index.get("weight_map") if isinstance(index, dict) else None
    return {str(name) for name in shards.values()} if isinstance(shards, dict) else set()


def _is_sentence_transformer(folder: Path) -> bool:
    modules = read_json(folder / "modules.json")
    parts = modules if isinstance(modules, list) else []
    return any(
        isinstance(m, dict) and str(m.get("type", "")).startswith("sentence_transformers")
        for m in parts
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
