"""PEFT adapters (LoRA and relatives): small changes of a base model, merged into its weights at
loading.

    adapter_config.json beside full weights   changes those weights
    adapter_config.json alone                 changes the base that it names: a folder, or a hub id

Invariants: the base is never loaded without its adapter: an adapter that cannot be merged entirely
is refused; the result has the base's own class, so that every component is where it is in the base.
"""

import importlib.util
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import PreTrainedModel
from transformers.utils.hub import cached_file

from raysearch.engine.loading.side_files import ADAPTER, read_json
from raysearch.errors import ModelError
from raysearch.visible_text import one_line

_WITHOUT = "to search the model without it, give a folder that has no adapter_config.json"


@dataclass(frozen=True)
class Adapter:
    """An adapter. `place`: its folder, possibly in the hub's cache; `base`: folder or hub id of the
    model that it changes, at `revision`."""

    place: Path
    base: str
    revision: str | None = None

    @property
    def is_beside(self) -> bool:
        """Says whether the weights that it changes lie in the same folder."""
        return Path(self.base) == self.place

    @contextmanager
    def base_alone(self) -> Iterator[str]:
        """Yields a path at which transformers finds the base without the adapter, while the context
        is open."""
        if not self.is_beside:
            yield self.base
            return
        with TemporaryDirectory(prefix="raysearch-") as scratch:
            for file in self.place.iterdir():
                if not file.name.startswith("adapter_"):
                    os.symlink(file.resolve(), Path(scratch) / file.name)
            yield scratch

    def merged_into(self, model: PreTrainedModel) -> PreTrainedModel:
        """Returns the model with the adapter merged into its weights. Raises: ModelError if it does
        not fit or cannot be merged."""
        from peft import PeftModel, get_peft_model_state_dict, load_peft_weights

        try:
            with warnings.catch_warnings(action="ignore"):
                wrapped: Any = PeftModel.from_pretrained(model, str(self.place))
                stored = set(load_peft_weights(str(self.place), device="cpu"))
                needed = set(get_peft_model_state_dict(wrapped, save_embedding_layers=False))
                own = set(wrapped.state_dict())
                wrong = sorted(needed - stored) + sorted(k for k in stored - needed if k not in own)
                if not wrong:
                    merged: PreTrainedModel = wrapped.merge_and_unload(safe_merge=True)
        except (
            Exception
        ) as e:  # any error of peft: a kind that cannot be merged, shapes, broken files
            message = one_line(e)
            raise ModelError(
                f"{self.place}: its adapter cannot be merged into {self.base} ({type(e).__name__}: "
                f"{message}); {_WITHOUT}"
            ) from e
        if wrong:
            raise ModelError(
                f"{self.place}: its adapter does not fit {self.base}: {len(wrong)} weights are "
                f"missing or belong to nothing there "
                f"({wrong[0]}); give the base that it was trained on, or {_WITHOUT}"
            )
        return merged


def adapter_of(path: str, revision: str | None = None) -> Adapter | None:
    """Returns the adapter at a folder or hub id; None if there is none.

    Raises: ModelError if it cannot be loaded: peft is not installed, it is no PEFT adapter, or its
    base is missing.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        if folder.exists():
            return None
        found = _from_hub(path, revision)
        if found is None:
            return None
        folder = found
    elif not (folder / ADAPTER).is_file():
        return None
    config = read_json(folder / ADAPTER)
    if not isinstance(config, dict) or not config.get("peft_type"):
        raise ModelError(
            f"{path}: {ADAPTER} is of no PEFT adapter (it has no peft_type), and what it changes "
            f"would be left out; save the adapter with peft, merge it, or {_WITHOUT}"
        )
    if (
        not any((folder / f"adapter_model.{suffix}").is_file() for suffix in ("safetensors", "bin"))
        and folder.is_dir()
    ):
        _refuse_without_weights(path, folder)
    if importlib.util.find_spec("peft") is None:
        raise ModelError(
            f"{path}: {ADAPTER} is a PEFT adapter, which changes what the model computes, and peft "
            f"is not installed; `pip install peft` to search with it; {_WITHOUT}"
        )
    return Adapter(folder, *_base(path, folder, config))


def _from_hub(path: str, revision: str | None) -> Path | None:
    """Returns the cached folder of a hub repository with an adapter."""
    try:
        found = cached_file(
            path, ADAPTER, revision=revision, _raise_exceptions_for_missing_entries=False
        )
        if found is None:
            return None
        for name in ("adapter_model.safetensors", "adapter_model.bin"):
            cached_file(path, name, revision=revision, _raise_exceptions_for_missing_entries=False)
    except (
        OSError,
        ValueError,
    ):  # unreachable, or no repository: reported when the configuration is read
        return None
    return Path(found).parent


def _refuse_without_weights(path: str, folder: Path) -> None:
    raise ModelError(
        f"{path}: has {ADAPTER}, and no adapter_model.safetensors or .bin with its weights; get "
        f"its files again, or {_WITHOUT}"
    )


def _base(path: str, folder: Path, config: dict[str, Any]) -> tuple[str, str | None]:
    """Returns the base that an adapter changes, and its revision. Raises: ModelError if the base is
    missing."""
    if (folder / "config.json").is_file() and Path(path).expanduser().is_dir():
        return str(folder), None
    named = config.get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise ModelError(
            f"{path}: {ADAPTER} names no base (base_model_name_or_path); put it there, or the "
            f"adapter's files into the folder of its base"
        )
    revision = config.get("revision")
    for place in (folder / named, Path(named).expanduser()):
        if place.is_dir():
            if (place / ADAPTER).is_file():
                raise ModelError(
                    f"{path}: its base {named} is an adapter too; merge that one first"
                )
            return str(place.resolve()), None
    if named.startswith((".", "/", "~")) or named.count("/") > 1:
        raise ModelError(
            f"{path}: the base of its adapter, {named}, is not there; put it there, or its new "
            f"path into {ADAPTER}"
        )
    return named, revision if isinstance(revision, str) else None
