"""What fits of one unit have in common: which are computed at once, which are rotations, and how
large.

Invariants: pure; asked of an intervention alone.
"""

from dataclasses import replace

from raysearch.core.featurizers import kind_of
from raysearch.core.hypothesis import Intervention


def is_closed(intervention: Intervention) -> bool:
    """Whether it is computed, without steps."""
    made = {kind_of(unit.subspace.featurizer).fitted for unit in intervention.units}
    return "closed_form" in made and "trained" not in made


def is_rotation(intervention: Intervention) -> bool:
    """Whether it is of one unit, whose trained directions are a subspace of any that are more."""
    return [kind_of(unit.subspace.featurizer).nested for unit in intervention.units] == [True]


def of_any_size(rotation: Intervention) -> Intervention:
    """What it shares with smaller and larger rotations of its unit."""
    (unit,) = rotation.units
    return replace(
        rotation, units=(replace(unit, subspace=replace(unit.subspace, features=None)),), fit=None
    )


def size_of_rotation(rotation: Intervention) -> int:
    """How many directions it has."""
    return rotation.units[0].subspace.features or 0
