"""Saves an intervention as a folder, and loads it from there or from the Hugging Face hub.

The folder has intervention.safetensors, intervention.json (its card) and README.md.

Invariants: loading returns what was saved: the same id, all tensors bit by bit; nothing is pickled
and no code runs; each file is complete or absent; the card is written last and names the tensors'
digest, so that a partial or mixed folder is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from raysearch._version import __version__
from raysearch.core.hypothesis import Intervention
from raysearch.engine.featurizers.featurizer import Featurizer
from raysearch.errors import HubError, StoreError
from raysearch.interventions.card import Card, Finding, ModelOrigin, card_text, read_card
from raysearch.interventions.readme import HUB_ID, HUB_ID_PLACEHOLDER, readme_text
from raysearch.interventions.subspace_tensors import featurizer_of
from raysearch.storage.atomic_write import writable_folder, write_bytes_whole
from raysearch.storage.digests_json import sha256

TENSORS = "intervention.safetensors"
CARD = "intervention.json"
README = "README.md"


@dataclass(frozen=True, eq=False, slots=True)
class SavedIntervention:
    """An intervention with everything needed to apply it. Compare parts: tensors have no plain
    `==`.

    `tensors`: parameters of its featurizer or its constant, by name, on the CPU; empty for a static
    interchange. `variable`: the one it is claimed to carry; None if unknown.
    """

    intervention: Intervention
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    model: ModelOrigin | None = None
    variable: str | None = None
    finding: Finding | None = None

    @property
    def featurizer(self) -> Featurizer | None:
        """The featurizer of its only unit, hardened, on the CPU; None for whole vectors or
        coordinates.

        Raises: StoreError if the tensors do not fit the subspace.
        """
        return featurizer_of(self.intervention, self.tensors)


def save_intervention(
    intervention: Intervention | SavedIntervention,
    folder: str | Path,
    *,
    tensors: Mapping[str, Tensor] | None = None,
    model: ModelOrigin | None = None,
    variable: str | None = None,
    finding: Finding | None = None,
) -> SavedIntervention:
    """Writes the intervention to `folder`, creating it or replacing its three files; returns what
    it wrote.

    Other arguments replace the parts of a SavedIntervention.

    Raises: StoreError if the folder cannot be written, or safetensors cannot hold a tensor.
    """
    base = (
        SavedIntervention(intervention) if isinstance(intervention, Intervention) else intervention
    )
    saved = SavedIntervention(
        base.intervention,
        _copy_tensors(base.tensors if tensors is None else tensors),
        model or base.model,
        variable or base.variable,
        finding or base.finding,
    )
    folder = Path(folder).expanduser()
    files = _files(saved)
    writable_folder(folder)
    for name, content in files.items():
        write_bytes_whole(folder / name, content)
    return saved


def load_intervention(
    folder_or_hub_id: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    endpoint: str | None = None,
) -> SavedIntervention:
    """Loads an intervention from a folder, or else from the hub ("owner/name"), tensors on the CPU.

    Args: revision: a branch, tag or commit; if given, only the hub is searched. token: None: that
    of `hf auth login` or HF_TOKEN, if any; False: none. endpoint: another hub's address (None:
    HF_ENDPOINT, else huggingface.co).

    Raises: StoreError if the folder is incomplete or of another format; HubError if the hub does
    not provide it.
    """
    folder = Path(folder_or_hub_id).expanduser()
    name = str(folder_or_hub_id)
    if revision is None and folder.is_dir():
        return _read(folder, str(folder))
    if isinstance(folder_or_hub_id, Path) or not HUB_ID.fullmatch(name):
        what = (
            "there is no such folder"
            if revision is None
            else f"a folder has no revision {revision!r}"
        )
        raise StoreError(
            f"{name}: {what}; give a folder that save_intervention made, or a hub id (owner/name)"
        )
    from raysearch.interventions import hub

    files = (CARD, TENSORS)
    return _read(
        hub.pull(name, files, revision=revision, token=token, endpoint=endpoint), f"{name} (hub)"
    )


def push_intervention(
    saved_or_folder: SavedIntervention | str | Path,
    hub_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    endpoint: str | None = None,
) -> str:
    """Uploads the intervention to the hub's repository "owner/name"; returns the commit's id.

    A folder's own README.md is uploaded with it. The repository is created if missing.

    Args: private: None: as the owner's settings say. token, endpoint: as in `load_intervention`.

    Raises: StoreError if the folder is incomplete; HubError if the hub cannot be reached or
    refuses.
    """
    if not HUB_ID.fullmatch(hub_id):
        raise HubError(f"{hub_id}: is no hub id; give owner/name")
    if isinstance(saved_or_folder, SavedIntervention):
        saved = replace(saved_or_folder, tensors=_copy_tensors(saved_or_folder.tensors))
        files = _files(saved)
    else:
        folder = Path(saved_or_folder).expanduser()
        saved = _read(folder, str(folder))  # incomplete folders are not published
        files = {name: _bytes(folder / name, str(folder)) for name in (TENSORS, README, CARD)}
    files[README] = files[README].replace(HUB_ID_PLACEHOLDER.encode(), hub_id.encode())
    from raysearch.interventions import hub

    message = f"Intervention {saved.intervention.id}, by raysearch {__version__}"
    return hub.push(hub_id, files, message, private=private, token=token, endpoint=endpoint)


def _files(saved: SavedIntervention) -> dict[str, bytes]:
    """Returns the content of each file by name, in the order of writing."""
    content = _tensor_file(saved)
    card = Card(
        raysearch=__version__,
        id=saved.intervention.id,
        intervention=saved.intervention,
        tensors_digest=sha256(content),
        model=saved.model,
        variable=saved.variable,
        finding=saved.finding,
    )
    shapes = {name: f"{_dtype(t)} {list(t.shape)}" for name, t in saved.tensors.items()}
    return {
        TENSORS: content,
        README: readme_text(card, shapes).encode(),
        CARD: card_text(card).encode(),
    }


def _copy_tensors(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Copies tensors to the CPU, each to its own memory (safetensors refuses shared memory)."""
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise StoreError(f"tensor {name!r}: is a {type(tensor).__name__}; give a torch tensor")
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
            raise StoreError(
                f"tensor {name!r}: {_dtype(tensor)}, {tensor.layout}, on {tensor.device}; give a "
                f"dense one"
            )
    # Always clones: safetensors 0.8 writes a lazy conjugate unconjugated.
    return {
        n: t.detach().to("cpu").clone(memory_format=torch.contiguous_format)
        for n, t in tensors.items()
    }


def _tensor_file(saved: SavedIntervention) -> bytes:
    try:
        content = safetensors.torch.save(
            dict(saved.tensors), {"format": "pt"}
        )  # one key: the order of two would vary
        safetensors.torch.load(content)  # saving accepts the name "__metadata__", loading does not
    except (SafetensorError, ValueError, KeyError) as e:  # KeyError: unknown dtype
        names = ", ".join(f"{n!r} ({_dtype(t)})" for n, t in saved.tensors.items())
        raise StoreError(
            f"tensors {names}: safetensors cannot hold one ({e}); use another dtype or name"
        ) from e
    return content


def _read(folder: Path, where: str) -> SavedIntervention:
    """Reads the intervention in `folder`; `where` names it in errors."""
    if not (folder / CARD).is_file():
        raise StoreError(
            f"{where}: this is no saved intervention, {CARD} is missing; save_intervention makes "
            f"one"
        )
    card = read_card(_bytes(folder / CARD, where), f"{where}: {CARD}")
    content = _bytes(folder / TENSORS, where)
    found = sha256(content)
    if found != card.tensors_digest:
        raise StoreError(
            f"{where}: {TENSORS} has SHA-256 {found[:12]}, its card says "
            f"{card.tensors_digest[:12]}; "
            "it is truncated, was changed, or belongs to another card: save or fetch it again"
        )
    try:
        tensors = safetensors.torch.load(content)
    except (SafetensorError, ValueError, KeyError) as e:
        raise StoreError(
            f"{where}: {TENSORS} is no safetensors file ({e}); save or fetch it again"
        ) from e
    return SavedIntervention(card.intervention, tensors, card.model, card.variable, card.finding)


def _bytes(file: Path, where: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as e:
        raise StoreError(
            f"{where}: {file.name} cannot be read ({e.strerror or e}); save or fetch it again"
        ) from e


def _dtype(tensor: Any) -> str:
    return str(getattr(tensor, "dtype", type(tensor).__name__)).removeprefix("torch.")
