"""Writes and reads submissions for the causal-variable track of MIB (Mueller et al., 2025, "MIB: A
Mechanistic Interpretability Benchmark").

    FOLDER/<Task>_<Model>_<Variable>/
        ResidualStream(Layer-9,Token-country)_featurizer          torch: model_info and state_dict
        ResidualStream(Layer-9,Token-country)_inverse_featurizer  torch: likewise
        ResidualStream(Layer-9,Token-country)_indices             JSON: features; null: all
    FOLDER/raysearch.json       ours: task, model and variable of each folder

The public code of the benchmark and of CausalAbstraction (`Featurizer.save_modules` and
`load_modules`, the units' ids, evaluate_submission.py, verify_submission.py) defines the layout,
the keys, and the two pairs of classes that `load_modules` restores: identity, and subspace, an
orthonormal matrix under torch's parametrization, here called `rotate`. A leaderboard may run
another version of that code.

We write no indices, since the evaluator of one version reads and then ignores them: coordinates and
masks become a subspace along unit vectors, which every version understands. The evaluator of IOI
looks for "Layer:", while the units' ids and published submissions have "Layer-", which we write;
it patches all heads of a folder at once, and requires IOI's ioi_linear_params.json. We do not write
that file, nor a token_position.py for positions that the task does not name.

Invariants: reading gives what was written (tests: 1e-6); what MIB's featurizers cannot express is
left out and named, never approximated; only tensors and plain values are unpickled
(`weights_only`). The format requires torch.save; our own is safetensors.
"""

import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raysearch.core.hypothesis import Intervention, Subspace, Unit
from raysearch.engine.featurizers.rotation import Rotation
from raysearch.errors import JobError, StoreError
from raysearch.interventions.card import ModelOrigin
from raysearch.interventions.mib_rotation import RotationError, read_rotation, rotation_state
from raysearch.interventions.mib_units import InexpressibleError, directions_of, site_of, unit_name
from raysearch.interventions.saved_intervention import SavedIntervention
from raysearch.interventions.subspace_tensors import tensors_of
from raysearch.storage.atomic_write import writable_folder, write_below, write_text_whole

NAMES = "raysearch.json"
FEATURIZER, INVERSE, INDICES = "_featurizer", "_inverse_featurizer", "_indices"
IDENTITY = ("IdentityFeaturizerModule", "IdentityInverseFeaturizerModule")
SUBSPACE = ("SubspaceFeaturizerModule", "SubspaceInverseFeaturizerModule")

_MODEL_CLASS = re.compile(r"_([A-Za-z0-9]+(?:ForCausalLM|LMHeadModel))_")
_TASK = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")


@dataclass(frozen=True, slots=True)
class MibSubmission:
    """The result of `save_mib`. `units`: the files' paths without endings; `left_out`: one line
    each."""

    units: tuple[str, ...]
    left_out: tuple[str, ...]


def save_mib(
    saved: Iterable[SavedIntervention], folder: str | Path, *, task: str, model_name: str
) -> MibSubmission:
    """Writes interventions that MIB can express to `folder`; of several at one site, the first.

    Subspaces must be of one token. Plain coordinates need a tensor "width" with the vector's
    length.

    Args: task, model_name: as in MIB's folders, such as "4_answer_MCQA" and "Qwen2ForCausalLM".

    Raises: JobError for names that no folder can have; StoreError if the folder cannot be written,
    or tensors do not fit.
    """
    _check_names(task, model_name)
    folder = Path(folder).expanduser()
    chosen: dict[str, tuple[str | None, Tensor | None, SavedIntervention]] = {}
    left_out = []
    for one in saved:
        label = f"{_display_id(one)} ({one.variable or 'no variable'})"
        try:
            path = f"{_cell(task, model_name, one)}/{unit_name(one.intervention)}"
            if path in chosen:
                raise InexpressibleError(
                    f"{_display_id(chosen[path][2])} stands at its site already, and MIB takes one"
                )
            chosen[path] = (one.variable, directions_of(one), one)
        except InexpressibleError as e:
            left_out.append(f"{label}: {e}")
    for path, (_, directions, _) in chosen.items():
        _write(folder, path, directions)
    if chosen:
        _write_names(
            folder, {p.partition("/")[0]: (task, model_name, v) for p, (v, _, _) in chosen.items()}
        )
    return MibSubmission(tuple(chosen), tuple(left_out))


def load_mib(folder: str | Path) -> tuple[SavedIntervention, ...]:
    """Loads the interventions of a submission, or of one of its folders: one for each unit, by
    name.

    Identities become plain coordinates (their indices); subspaces become featurizer "das".

    Raises: StoreError if the folder is no submission, or a file is damaged, missing or of an
    unknown class.
    """
    return tuple(read_mib(folder).values())


def read_mib(folder: str | Path) -> dict[str, SavedIntervention]:
    """Loads like `load_mib`; keys are "FOLDER/UNIT"."""
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise StoreError(
            f"{folder}: there is no such folder; give a submission of MIB's causal-variable track"
        )
    cells = (
        [folder]
        if _units_in(folder)
        else sorted(p for p in folder.iterdir() if p.is_dir() and _units_in(p))
    )
    if not cells:
        raise StoreError(
            f"{folder}: has no file ...{FEATURIZER} in it or in a folder of it; give a submission "
            f"of MIB"
        )
    found = {}
    for cell in cells:
        model, variable = _names_of(cell)
        found.update(
            {
                f"{cell.resolve().name}/{name}": _read(cell / name, model, variable)
                for name in _units_in(cell)
            }
        )
    return found


def _check_names(task: str, model_name: str) -> None:
    if not _TASK.fullmatch(task):
        raise JobError(
            f"task {task!r}: is no name of a task; give task=NAME (--task NAME on the command "
            f"line) of letters, digits, _, . and -, such as 4_answer_MCQA"
        )
    if not _MODEL.fullmatch(model_name):
        raise JobError(
            f"model name {model_name!r}: give model_name=NAME (--model-name NAME on the command "
            f"line) of letters, digits, . and -, without _ (MIB splits at it), such as "
            f"Qwen2ForCausalLM"
        )


def _display_id(one: SavedIntervention) -> str:
    """Returns the id of its hypothesis if known, else its own."""
    return (one.finding and one.finding.hypothesis) or one.intervention.id


def _cell(task: str, model_name: str, one: SavedIntervention) -> str:
    if one.variable is None or not _TASK.fullmatch(one.variable):
        raise InexpressibleError(f"variable {one.variable!r} cannot stand in the name of a folder")
    return f"{task}_{model_name}_{one.variable}"


def _write(folder: Path, path: str, directions: Tensor | None) -> None:
    names = IDENTITY if directions is None else SUBSPACE
    config: dict[str, Any] = {}
    state: dict[str, Tensor] = {}
    if directions is not None:
        config = {"rotation_matrix": directions, "requires_grad": False}
        state = rotation_state(directions)
    info = {
        "featurizer_class": names[0],
        "inverse_featurizer_class": names[1],
        "n_features": None if directions is None else directions.shape[1],
        "additional_config": config,
    }
    writable_folder(folder)
    *cell, unit = path.split("/")
    for ending in (FEATURIZER, INVERSE):
        content = io.BytesIO()
        torch.save({"model_info": info, "state_dict": state}, content)
        write_below(folder, (*cell, unit + ending), content.getvalue())
    write_below(folder, (*cell, unit + INDICES), b"null")


def _write_names(folder: Path, cells: Mapping[str, tuple[str, str, str | None]]) -> None:
    existing = _read_names(folder / NAMES)
    new = {
        cell: {"task": task, "model": model, "variable": variable}
        for cell, (task, model, variable) in cells.items()
    }
    write_text_whole(
        folder / NAMES, json.dumps({**existing, **new}, indent=2, sort_keys=True) + "\n"
    )


def _read_names(file: Path) -> dict[str, Any]:
    try:
        names = json.loads(file.read_bytes()) if file.exists() else {}
        if not isinstance(names, dict) or not all(isinstance(v, dict) for v in names.values()):
            raise ValueError("it should hold an object for each folder")
    except (OSError, ValueError) as e:
        raise StoreError(
            f"{file}: cannot be read ({e}); remove it, then the folders' names tell"
        ) from e
    return names


def _units_in(cell: Path) -> list[str]:
    files = (
        p.name
        for p in cell.iterdir()
        if p.name.endswith(FEATURIZER) and not p.name.endswith(INVERSE)
    )
    return sorted(name.removesuffix(FEATURIZER) for name in files)


def _names_of(cell: Path) -> tuple[str, str]:
    """Returns (model, variable) of a folder. Raises: StoreError if its name does not tell."""
    cell = cell.resolve()
    names = _read_names(cell.parent / NAMES).get(cell.name, {})
    model, variable = names.get("model"), names.get("variable")
    if isinstance(model, str) and isinstance(variable, str):
        return model, variable
    split = _MODEL_CLASS.search(cell.name)
    if split is None or not cell.name[split.end() :]:
        raise StoreError(
            f"{cell}: its name does not tell model and variable; name it "
            f"<Task>_<Model>_<Variable>, with a model class such as "
            f"Qwen2ForCausalLM, or put a {NAMES} beside it"
        )
    return split.group(1), cell.name[split.end() :]


def _read(path: Path, model: str, variable: str) -> SavedIntervention:
    unit = Unit(_site(path))
    info, state = _module(path, FEATURIZER)
    classes = (info.get("featurizer_class"), info.get("inverse_featurizer_class"))
    indices = _indices(path)
    origin = ModelOrigin(model)
    if classes == IDENTITY:
        coordinates = None if indices is None else tuple(indices)
        plain = Intervention((replace(unit, subspace=Subspace(coordinates=coordinates)),))
        return SavedIntervention(plain, {}, origin, variable)
    if classes != SUBSPACE:
        raise StoreError(
            f"{path}{FEATURIZER}: is of {classes[0]!r}; only {IDENTITY[0]} and {SUBSPACE[0]} can "
            f"be read"
        )
    _, inverse_state = _module(path, INVERSE)
    try:
        directions, inverse = read_rotation(state), read_rotation(inverse_state)
    except RotationError as e:
        raise StoreError(f"{path}{FEATURIZER}: {e}; save it again") from e
    if directions.shape != inverse.shape or not torch.allclose(directions, inverse, atol=1e-5):
        raise StoreError(
            f"{path}: featurizer and inverse are of different rotations; save both again"
        )
    if indices is not None:
        if not all(i < directions.shape[1] for i in indices):
            raise StoreError(
                f"{path}{INDICES}: names a feature of {directions.shape[1]} that is not there; "
                f"save it again"
            )
        directions = directions[:, indices]
    subspace = Subspace("das", directions.shape[1])
    intervention = Intervention((replace(unit, subspace=subspace),), variable=variable)
    rotation = Rotation.from_tensors(directions.shape[0], {"directions": directions})
    read = SavedIntervention(intervention, tensors_of(rotation), origin, variable)
    try:
        assert read.featurizer is not None
    except StoreError as e:  # directions that are not orthonormal
        raise StoreError(f"{path}{FEATURIZER}: {e}") from e
    return read


def _site(path: Path) -> Any:
    try:
        return site_of(path.name)
    except InexpressibleError as e:
        raise StoreError(f"{path}{FEATURIZER}: {e}") from e


def _module(path: Path, ending: str) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
    """Returns (model_info, state_dict) of a file."""
    file = path.with_name(path.name + ending)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    # torch raises UnpicklingError, RuntimeError, EOFError, KeyError and others
    except Exception as e:
        reason = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise StoreError(
            f"{file}: cannot be read as tensors and plain values ({reason[:120]}); save it again"
        ) from e
    info, state = (
        (content.get(key) for key in ("model_info", "state_dict"))
        if isinstance(content, dict)
        else (0, 0)
    )
    if not isinstance(info, Mapping) or not isinstance(state, Mapping):
        raise StoreError(
            f"{file}: has no model_info and state_dict; give what MIB's Featurizer.save_modules "
            f"wrote"
        )
    return info, state


def _indices(path: Path) -> list[int] | None:
    """Reads the indices; None for all. Raises: StoreError unless they are distinct features."""
    file = path.with_name(path.name + INDICES)
    try:
        read = json.loads(file.read_bytes())
    except (OSError, ValueError) as e:
        raise StoreError(
            f"{file}: cannot be read ({e}); it should hold null or a list of features"
        ) from e
    if read is None:
        return None
    if (
        not isinstance(read, list)
        or not read
        or not all(type(i) is int and i >= 0 for i in read)
        or len(set(read)) < len(read)
    ):
        raise StoreError(
            f"{file}: {str(read)[:60]}: should be null, or features from 0, each once, at least one"
        )
    return read
