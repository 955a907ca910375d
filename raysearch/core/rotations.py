"""Properties of fitted interventions: closed form or trained, rotation or not, and how large.

Invariants: pure functions of one intervention.
"""

from dataclasses import replace

from raysearch.core.hypothesis import CLOSED_FORM, TRAINED, Intervention


def is_closed_form(intervention: Intervention) -> bool:
    """Whether the intervention is computed without training steps."""
    names = {unit.subspace.featurizer for unit in intervention.units}
    return bool(names & set(CLOSED_FORM)) and not names & set(TRAINED)


def is_rotation(intervention: Intervention) -> bool:
    """Whether it has one unit with a trained rotation; its directions are a subspace of any larger
    one.
    """
    return [unit.subspace.featurizer for unit in intervention.units] == ["das"]


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
