"""Applies a saved intervention to two texts: prepares its featurizer and locates its positions.

Invariants: "last" is the last token of each text; every other position is given by the user, never
guessed.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from raysearch.causal import LAST
from raysearch.core.events import Ids
from raysearch.core.hypothesis import Intervention
from raysearch.engine.featurizers.construction import to_bytes
from raysearch.engine.patching.subspace_operations import Featurizers
from raysearch.errors import PairsError, PositionError
from raysearch.interventions.constants import constants_of
from raysearch.interventions.saved_intervention import SavedIntervention
from raysearch.storage.digests_json import sha256

PositionSpec = int | str
Positions = PositionSpec | Mapping[str, PositionSpec]
"""A position in a text (token index or piece of text), or several by name."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A saved intervention ready for building rows, and the cache that holds its featurizer.

    `constants`: of a mean ablation, what is put in at each unit, of shape (token, feature).
    """

    intervention: Intervention
    featurizers: Featurizers
    constants: tuple[Tensor, ...] | None = None

    @property
    def as_built(self) -> Intervention:
        """The intervention by which rows are built: one that is given its constants needs no other
        bases, and is built as an interchange."""
        if self.constants is None:
            return self.intervention
        return replace(self.intervention, kind="interchange")


def prepare(saved: SavedIntervention, device: torch.device) -> Prepared:
    """Returns the intervention ready for building rows.

    Raises: StoreError if its tensors do not fit, or lack the constant of a mean ablation.
    """
    featurizers = Featurizers(device)
    if saved.intervention.kind == "mean":
        found = constants_of(saved.intervention, saved.tensors)
        return Prepared(saved.intervention, featurizers, tuple(c.to(device) for c in found))
    featurizer = saved.featurizer
    if featurizer is None:
        return Prepared(saved.intervention, featurizers)
    content = to_bytes(featurizer)
    digest = sha256(content)
    featurizers.take({digest: content}, [digest])
    return Prepared(replace(saved.intervention, fit=digest), featurizers)


def source_name(intervention: Intervention, default: str) -> str:
    """Returns the name of the only source. Raises: PairsError if there are several."""
    names = sorted({unit.source or default for unit in intervention.units})
    if len(names) > 1:
        raise PairsError(
            f"its units take from {', '.join(names)}; a swap has one source: use an intervention "
            f"of one"
        )
    return names[0] if names else default


def locate_positions(
    text: str,
    length: int,
    names: Iterable[str],
    given: Positions | None,
    locate: Callable[[str, PositionSpec], Ids],
    default_positions: Mapping[str, Ids],
    key: str,
) -> dict[str, Ids]:
    """Returns the token indices of each of `names` in `text`, which has `length` tokens.

    Args: given: the user's positions. locate: finds that of a name in the text. default_positions:
    those of names that are not given. key: the argument to name in errors.

    Raises: PositionError for a position that is missing or unknown.
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
            found[name] = locate(name, given[name])
        elif name == LAST:
            found[name] = (length - 1,)
        elif name in default_positions:
            found[name] = default_positions[name]
        else:
            raise PositionError(
                f"where {name!r} stands in {text!r} is not said; give {key}: a token's index, or a "
                f"piece of a text"
            )
    return found
