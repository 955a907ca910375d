"""Interventions kept as a folder: intervention.safetensors, intervention.json (its card),
README.md; to the hub and back.

Invariants: what is loaded is what was saved: the same id, every tensor equal in every bit; nothing
is pickled, no code is run; each file is there whole or not at all, the card last, and it names the
digest of the tensors, so that a half-written or mixed folder is refused.
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
from raysearch.interventions.model_card import HUB_ID, PLACE, readme_text
from raysearch.interventions.tensors import featurizer_of
from raysearch.storage.atomic_write import write_bytes_whole
from raysearch.storage.digests import sha256

TENSORS = "intervention.safetensors"
CARD = "intervention.json"
README = "README.md"


@dataclass(frozen=True, eq=False, slots=True)
class SavedIntervention:
    """An intervention with all that it needs. Two are compared by their parts: tensors have no
    plain `==`.

    `tensors`: parameters of the featurizers, or the constant that is put in, by name, on the CPU; a
    static interchange has none. `variable`: the one that it is said to carry; None where several
    may.
    """

    intervention: Intervention
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    model: ModelOrigin | None = None
    variable: str | None = None
    finding: Finding | None = None

    @property
    def featurizer(self) -> Featurizer | None:
        """Of its unit, hardened, on the CPU; None where whole vectors or some of their coordinates
        are interchanged.

        Raises: StoreError where the tensors do not fit the subspace.
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
    """Writes the intervention to `folder` (made, parents too; its three files replaced) and gives
    what was written.

    Of a SavedIntervention, what is given besides takes the place of what it holds.

    Raises: StoreError where the folder cannot be written, or a tensor is of a kind that safetensors
    cannot hold.
    """
    held = (
        SavedIntervention(intervention) if isinstance(intervention, Intervention) else intervention
    )
    saved = SavedIntervention(
        held.intervention,
        _own(held.tensors if tensors is None else tensors),
        model or held.model,
        variable or held.variable,
        finding or held.finding,
    )
    folder = Path(folder).expanduser()
    files = _files(saved)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise StoreError(
            f"{folder}: cannot be made ({e.strerror or e}); name a folder that you may write"
        ) from e
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
    """The intervention of a folder, else of the hub's repository of that name ("owner/name"). Its
    tensors are on the CPU.

    `revision`: a branch, tag or commit; given, the hub is asked. `token`: None: the one of `hf auth
    login` or HF_TOKEN, if any; False: none. `endpoint`: another hub's address (None: HF_ENDPOINT,
    else huggingface.co).

    Raises: StoreError where the folder is not whole or its format is another; HubError where the
    hub does not give it.
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
    """Puts the intervention into the hub's repository "owner/name", in one commit, and gives that
    commit's id (a revision).

    The repository is made where there is none: `private` or public (None: as its owner's settings
    say). Of a folder, its own README.md goes along. `token`, `endpoint`: as in `load_intervention`.

    Raises: StoreError where the folder is not whole; HubError where the hub is out of reach or
    refuses.
    """
    if not HUB_ID.fullmatch(hub_id):
        raise HubError(f"{hub_id}: is no hub id; give owner/name")
    if isinstance(saved_or_folder, SavedIntervention):
        saved = replace(saved_or_folder, tensors=_own(saved_or_folder.tensors))
        files = _files(saved)
    else:
        folder = Path(saved_or_folder).expanduser()
        saved = _read(folder, str(folder))  # what is not whole is not published
        files = {name: _bytes(folder / name, str(folder)) for name in (TENSORS, README, CARD)}
    files[README] = files[README].replace(PLACE.encode(), hub_id.encode())
    from raysearch.interventions import hub

    message = f"Intervention {saved.intervention.id}, by raysearch {__version__}"
    return hub.push(hub_id, files, message, private=private, token=token, endpoint=endpoint)


def _files(saved: SavedIntervention) -> dict[str, bytes]:
    """Name and content of each file, in the order in which they are written."""
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


def _own(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Copies on the CPU, each with memory of its own (safetensors refuses shared memory)."""
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise StoreError(f"tensor {name!r}: is a {type(tensor).__name__}; give a torch tensor")
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
            raise StoreError(
                f"tensor {name!r}: {_dtype(tensor)}, {tensor.layout}, on {tensor.device}; give a "
                f"dense one"
            )
    # A clone always: safetensors 0.8 writes a lazy conjugate unconjugated.
    return {
        n: t.detach().to("cpu").clone(memory_format=torch.contiguous_format)
        for n, t in tensors.items()
    }


def _tensor_file(saved: SavedIntervention) -> bytes:
    try:
        content = safetensors.torch.save(
            dict(saved.tensors), {"format": "pt"}
        )  # one key: the order of two would vary
        safetensors.torch.load(
            content
        )  # the name "__metadata__" is written without complaint, then cannot be read
    except (SafetensorError, ValueError, KeyError) as e:  # KeyError: a dtype that it does not know
        names = ", ".join(f"{n!r} ({_dtype(t)})" for n, t in saved.tensors.items())
        raise StoreError(
            f"tensors {names}: safetensors cannot hold one ({e}); use another dtype or name"
        ) from e
    return content


def _read(folder: Path, where: str) -> SavedIntervention:
    """The intervention in `folder`; `where` names it in errors."""
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
