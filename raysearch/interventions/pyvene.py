"""Exports a saved intervention as a folder for `pyvene.IntervenableModel.load(folder, model)`
(0.1.8).

    config.json      pyvene's IntervenableConfig: layer, component, type
    intkey_*.bin     state of a LowRankRotatedSpaceIntervention; none for whole vectors

pyvene receives the unit's location with each call (`unit_locations`), so no file has the position's
name. The format requires torch.save; it holds tensors alone.

Invariants: the export computes the same in pyvene (tests/parity), or is refused with the reason;
pyvene itself is not needed.
"""

import io
import json
from pathlib import Path

import torch

from raysearch.errors import JobError
from raysearch.interventions.mib_rotation import rotation_state
from raysearch.interventions.mib_units import InexpressibleError, check_alone, directions_of
from raysearch.interventions.saved_intervention import SavedIntervention
from raysearch.storage.atomic_write import writable_folder, write_bytes_whole, write_text_whole

COMPONENTS = {
    "residual": "block_output",
    "block_input": "block_input",
    "attention_output": "attention_output",
    "mlp_output": "mlp_output",
}
"""pyvene's names of our components, in the models that it supports."""

_TYPES = "<class 'pyvene.models.interventions.{}'>"


def save_pyvene(saved: SavedIntervention, folder: str | Path) -> None:
    """Writes the intervention to `folder`.

    Its subspace must be of one token; plain coordinates need a tensor "width" with the vector's
    length.

    Raises: JobError for what pyvene cannot express; StoreError if the folder cannot be written.
    """
    try:
        check_alone(saved.intervention)
        (unit,) = saved.intervention.units
        if unit.site.component not in COMPONENTS or unit.site.head is not None:
            raise InexpressibleError(
                f"{unit.site.component} is not among those that we write: {', '.join(COMPONENTS)}"
            )
        directions = directions_of(saved)
    except InexpressibleError as e:
        raise JobError(
            f"intervention {saved.intervention.id}: cannot be written for pyvene: {e}"
        ) from e
    component = COMPONENTS[unit.site.component]
    key = f"layer_{unit.site.layer}_comp_{component}_unit_pos_nunit_1#0"
    rank, width = (None, None) if directions is None else (directions.shape[1], directions.shape[0])
    config = {
        "representations": [[unit.site.layer, component, "pos", 1, rank, *[None] * 9]],
        "intervention_types": [
            _TYPES.format(
                "VanillaIntervention" if directions is None else "LowRankRotatedSpaceIntervention"
            )
        ],
        "intervention_dimensions": [width],
        "intervention_constant_sources": [False],
        "mode": "parallel",
        "sorted_keys": [key],
    }
    folder = Path(folder).expanduser()
    writable_folder(folder)
    if directions is not None:
        sizes = {"embed_dim": torch.tensor(width), "interchange_dim": torch.tensor(width)}
        content = io.BytesIO()
        torch.save({**sizes, **rotation_state(directions, "rotate_layer")}, content)
        write_bytes_whole(folder / f"intkey_{key}.bin", content.getvalue())
    write_text_whole(folder / "config.json", json.dumps(config, indent=2) + "\n")
