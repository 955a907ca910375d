"""A saved intervention on two texts: its featurizer made ready, its named positions found.

Invariants: "last" is the last token of each text; any other position is where the user says, and
nothing is guessed.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import torch

from raysearch.causal import LAST
from raysearch.core.events import Ids
from raysearch.core.hypothesis import Intervention
from raysearch.engine.featurizers.make import to_bytes
from raysearch.engine.patching.featurized import Featurizers
from raysearch.errors import PairsError, PositionError
from raysearch.interventions.saved import SavedIntervention
from raysearch.storage.digests import sha256

PositionSpec = int | str
Positions = PositionSpec | Mapping[str, PositionSpec]
"""Where a position stands in a text; or where several do, by their names."""


def ready(saved: SavedIntervention, device: torch.device) -> tuple[Intervention, Featurizers]:
    """The intervention as rows are made of it, and its featurizer at hand. Raises: StoreError where
    its tensors do not fit."""
    featurizers = Featurizers(device)
    featurizer = saved.featurizer
    if featurizer is None:
        return saved.intervention, featurizers
    content = to_bytes(featurizer)
    digest = sha256(content)
    featurizers.take({digest: content}, [digest])
    return replace(saved.intervention, fit=digest), featurizers


def lender(intervention: Intervention, default: str) -> str:
    """The name of the source. Raises: PairsError where several lend."""
    names = sorted({unit.source or default for unit in intervention.units})
    if len(names) > 1:
        raise PairsError(
            f"its units take from {', '.join(names)}; a swap has one source: use an intervention "
            f"of one"
        )
    return names[0] if names else default


def places(
    text: str,
    length: int,
    names: Iterable[str],
    given: Positions | None,
    locate: Callable[[PositionSpec], Ids],
    otherwise: Mapping[str, Ids],
    key: str,
) -> dict[str, Ids]:
    """Where each of `names` stands in `text`, of `length` tokens.

    `otherwise`: where those stand that are not `given`; `key`: how the user gives them. Raises:
    PositionError where it is not said.
    """
    names = sorted(set(names))
    if given is not None and not isinstance(given, Mapping):
        if len(names) != 1:
            raise PositionError(
                f"it has the positions {', '.join(names)}; give {key} as a mapping from their names"
            )
        given = {names[0]: given}
    given = given or {}
    if unknown := sorted(given.keys() - set(names)):
        raise PositionError(f"{key}: it has no position {unknown[0]!r}; it has {', '.join(names)}")
    found: dict[str, Ids] = {}
    for name in names:
        if name in given:
            found[name] = locate(given[name])
        elif name == LAST:
            found[name] = (length - 1,)
        elif name in otherwise:
            found[name] = otherwise[name]
        else:
            raise PositionError(
                f"where {name!r} stands in {text!r} is not said; give {key}: a token's index, or a "
                f"piece of the text"
            )
    return found
