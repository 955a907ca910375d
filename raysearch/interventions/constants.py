"""The constants of a mean ablation: what it puts in at each unit, computed as the run did, named as
tensors, and read back.

Invariants: a constant has the shape (token, feature) of its unit; it is what the oracle puts in.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from raysearch.core.events import Encoded
from raysearch.core.hypothesis import Intervention
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.network import Network
from raysearch.engine.patching.build import ablation_sources, build_row
from raysearch.engine.patching.edits import replacement_of
from raysearch.engine.patching.oracle import activations_in
from raysearch.engine.patching.rows import Row, Source
from raysearch.errors import PairsError, StoreError

_NAME = "constant"


@torch.inference_mode()
def mean_constants(
    network: Network, encoded: Sequence[Encoded], intervention: Intervention
) -> dict[str, Tensor]:
    """Returns the tensors of a mean ablation, one for each unit, on the CPU; `encoded` are all
    pairs of its run, in their order.

    Raises: PairsError where its positions have not as many tokens in every base, or where a
    continuation drew other bases, so that it has no one constant.
    """
    if any(pair.added for pair in encoded):
        raise PairsError(
            f"intervention {intervention.id}: the run was continued on further pairs, and its mean "
            f"may be another for the first ones"
        )
    counts = {
        tuple(len(pair.base_positions.get(unit.site.position, ())) for unit in intervention.units)
        for pair in encoded
    }
    if len(counts) != 1:
        places = ", ".join(unit.site.position for unit in intervention.units)
        raise PairsError(
            f"intervention {intervention.id}: bases have different numbers of tokens at {places} "
            f"({', '.join(map(str, sorted(counts))) or 'no pairs'}), and its mean is another for "
            f"each"
        )
    hook_points = Components(network)
    others = ablation_sources(encoded[0], encoded, intervention)
    row = build_row(encoded[0], intervention, hook_points, others=others)

    def read(source: Source) -> Tensor:
        return activations_in(network, hook_points, source.run, (source.point,))[source.point]

    found = [replacement_of(patch, read) for patch in row.patches]
    return {f"{_NAME}.{i}": one.cpu() for i, one in enumerate(found) if one is not None}


def constants_of(intervention: Intervention, tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """Returns the constant of each unit of a mean ablation, in their order.

    Raises: StoreError where it was saved without them.
    """
    names = [f"{_NAME}.{i}" for i in range(len(intervention.units))]
    if missing := [name for name in names if name not in tensors]:
        raise StoreError(
            f"intervention {intervention.id}: is a mean ablation, and its {missing[0]} was not "
            f"saved; export it again where its network is at hand (in Python: run.export(..., "
            f"model=model))"
        )
    return tuple(tensors[name] for name in names)


def check_constants(
    row: Row, intervention: Intervention, constants: Sequence[Tensor] | None
) -> None:
    """Raises: StoreError for a constant of another number of tokens than its patch of `row`."""
    if constants is None:
        return
    for unit, patch, constant in zip(intervention.units, row.patches, constants, strict=True):
        if constant.dim() != 2 or len(constant) != len(patch.tokens):
            raise StoreError(
                f"intervention {intervention.id}: its constant at {unit.site.position!r} has shape "
                f"{list(constant.shape)} (token, feature), and {len(patch.tokens)} tokens stand "
                f"there; name as many"
            )
