"""Properties of fitted interventions: closed form or trained, rotation or not, and how large.

Invariants: pure functions of one intervention.
"""

from dataclasses import replace

from raysearch.core.featurizers import kind_of
from raysearch.core.hypothesis import Intervention


def is_closed_form(intervention: Intervention) -> bool:
    """Says whether the intervention is computed without training steps."""
    made = {kind_of(unit.subspace.featurizer).fitted for unit in intervention.units}
    return "closed_form" in made and "trained" not in made


def is_rotation(intervention: Intervention) -> bool:
    """Says whether it has one unit with a trained rotation; its directions are a subspace of any
    larger one."""
    return [kind_of(unit.subspace.featurizer).nested for unit in intervention.units] == [True]


def without_size(rotation: Intervention) -> Intervention:
    """Returns the rotation without its size: equal for smaller and larger rotations of the same
    unit.
    """
    (unit,) = rotation.units
    return replace(
        rotation, units=(replace(unit, subspace=replace(unit.subspace, features=None)),), fit=None
    )


def size_of_rotation(rotation: Intervention) -> int:
    """Returns the number of directions."""
    return rotation.units[0].subspace.features or 0
