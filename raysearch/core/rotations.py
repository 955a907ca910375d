"""What fits of one unit have in common: which are computed at once, which are rotations, and how
large.

Invariants: pure; asked of an intervention alone.
"""

from dataclasses import replace

from raysearch.core.hypothesis import CLOSED_FORM, TRAINED, Intervention


def is_closed(intervention: Intervention) -> bool:
    """Whether it is computed, without steps."""
    names = {unit.subspace.featurizer for unit in intervention.units}
    return bool(names & set(CLOSED_FORM)) and not names & set(TRAINED)


def is_rotation(intervention: Intervention) -> bool:
    """Whether it is of one unit, whose trained directions are a subspace of any that are more."""
    return [unit.subspace.featurizer for unit in intervention.units] == ["das"]


def of_any_size(rotation: Intervention) -> Intervention:
    """What it shares with smaller and larger rotations of its unit."""
    (unit,) = rotation.units
    return replace(
        rotation, units=(replace(unit, subspace=replace(unit.subspace, features=None)),), fit=None
    )


def size_of_rotation(rotation: Intervention) -> int:
    """How many directions it has."""
    return rotation.units[0].subspace.features or 0
